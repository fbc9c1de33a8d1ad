"""Fixtures of the integrations' tests: those of the server's tests."""

from tests.server.conftest import logged, pytest_generate_tests, pytest_pyfunc_call, quick_collections, steady

__all__ = ["logged", "pytest_generate_tests", "pytest_pyfunc_call", "quick_collections", "steady"]
