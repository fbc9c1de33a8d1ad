"""Tests of the gateway run as those of the server do: on each loop, and what they leave behind fails them."""

from __future__ import annotations

import pytest

from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.gateway import control, servers
from rawws.topics import shared
from tests.server.conftest import logged, pytest_generate_tests, pytest_pyfunc_call, quick_collections, steady

__all__ = ["engines", "logged", "patient", "pytest_generate_tests", "pytest_pyfunc_call", "quick_collections", "steady"]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Join the gateways that are made from now on, each of their three hubs to its like."""
    found = [Engine(), Engine(), Engine()]
    joined = shared.SharedBackplane(lambda number: MemoryBackplane(found[(number - 1) % 3]))
    monkeypatch.setattr(shared, "shared", joined)
    return found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have instances wait for one another for as long as a slow machine may take."""
    monkeypatch.setattr(control, "PATIENCE", 60.0)
    monkeypatch.setattr(servers, "PATIENCE", 60.0)
