"""Fixtures of the tests with other programs: those of the client's tests."""

from __future__ import annotations

from tests.client.conftest import logged, no_proxies, pytest_generate_tests, pytest_pyfunc_call

__all__ = ["logged", "no_proxies", "pytest_generate_tests", "pytest_pyfunc_call"]
