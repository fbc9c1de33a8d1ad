"""Tests of the gateway run as those of the server do: on each loop, and what they leave behind fails them."""

from tests.server.conftest import logged, pytest_generate_tests, pytest_pyfunc_call, quick_collections

__all__ = ["logged", "pytest_generate_tests", "pytest_pyfunc_call", "quick_collections"]
