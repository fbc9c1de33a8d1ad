"""Fixtures of the client's tests: those of the server's tests, and an environment without proxies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.conftest import logged, pytest_generate_tests, pytest_pyfunc_call
from tests.server.peers import Logged

__all__ = ["logged", "pytest_generate_tests", "pytest_pyfunc_call"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what this machine says about proxies."""
    for scheme in ("ws", "wss", "http", "https", "all", "no", "socks"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def coming_back(logged: Logged) -> Iterator[None]:
    """Let a HubClient log that it could not connect, as often as that is."""
    yield
    logged.take_any("connecting to the hub at")
