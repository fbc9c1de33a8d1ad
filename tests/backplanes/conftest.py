"""Each test of a backplane runs over each engine, on each loop, and what it leaves behind fails it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.backplanes.engines import ENGINES, Engine, RedisEngine, Started
from tests.server.conftest import logged, pytest_pyfunc_call, quick_collections
from tests.server.conftest import pytest_generate_tests as on_each_loop

__all__ = ["engine", "logged", "pytest_generate_tests", "pytest_pyfunc_call", "quick_collections", "started"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of an engine all of them."""
    on_each_loop(metafunc)
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", ENGINES)


@pytest.fixture
def started() -> Iterator[Started]:
    """Start Redis servers with options of their own."""
    with ExitStack() as stack:

        def start(folder: Path, *options: str, **arguments: Any) -> RedisEngine:
            made = RedisEngine(folder, *options, **arguments)
            stack.callback(made.end)
            return made

        yield start


@pytest.fixture
def engine(kind: str, tmp_path: Path) -> Iterator[Engine]:
    """Give a running engine without data."""
    made = ENGINES[kind](tmp_path)
    yield made
    made.end()
