"""Each test of a backplane runs over each engine, on each loop, and what it leaves behind fails it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rawws._twins import running
from tests.backplanes.engines import ENGINES, ONCE, Engine, RedisEngine, Started
from tests.server.conftest import LOOPS, logged, pytest_pyfunc_call, quick_collections
from tests.server.conftest import pytest_generate_tests as on_each_loop

__all__ = ["engine", "logged", "pytest_generate_tests", "pytest_pyfunc_call", "quick_collections", "started"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of an engine all of them."""
    once = "uvloop" if running() == "compiled" else "asyncio"
    if "kind" not in metafunc.fixturenames:
        if inspect.iscoroutinefunction(metafunc.function) and getattr(metafunc.module, "ON_ONE_LOOP", False):
            metafunc.fixturenames.append("loop_name")
            metafunc.parametrize("loop_name", [once])
        else:
            on_each_loop(metafunc)
    elif inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_name")
        kinds = getattr(metafunc.module, "KINDS", ENGINES)
        pairs = [(loop, kind) for kind in kinds for loop in LOOPS if kind not in ONCE or loop == once]
        metafunc.parametrize(("loop_name", "kind"), pairs)
    else:
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
