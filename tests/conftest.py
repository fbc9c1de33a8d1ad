"""What all tests share: the right twin, the profiles of Hypothesis, the signals of a shell, an end, and a browser.

HYPOTHESIS_PROFILE=thorough looks further, and elsewhere each time; HYPOTHESIS_PROFILE=quick looks at little.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest
from hypothesis import settings

from tests.compiled import refuse
from tests.engine import choose

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Here and in no hook: the files of fixtures that are loaded after this one import rawws.
refuse()
choose()

settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
# For `make check`, and for `make mutate`, which runs tests some thousand times.
settings.register_profile("quick", settings.get_profile("ci"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A shell starts its background jobs with SIGINT ignored, and processes inherit that: the tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup does the same to SIGHUP.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A test, or a fixture, that takes so many seconds waits for what never comes. `async def` tests have less.
LIMIT: Final = float(os.environ.get("TEST_LIMIT", "900"))
# It fails once more after so many seconds where what it does when it fails waits as well.
AGAIN: Final = 30.0


# The files that take minutes, with the longest first: all workers of xdist begin with them, or at the end one of them
# would have such a file alone, and the others nothing to do.
LONG: Final = (
    "tests/test_packaging.py",
    "tests/autobahn/test_autobahn.py",
    "tests/torture/test_torture.py",
    "tests/test_site.py",
    "tests/javascript/test_chromium.py",
    "tests/javascript/test_node.py",
    "tests/browser/test_one_connection.py",
    "tests/gateway/test_engines.py",
    "tests/gateway/test_node.py",
    "tests/gateway/test_instances.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; behind that come the files with the most tests, as xdist has it by itself."""
    files = [item.nodeid.partition("::")[0] for item in items]
    counts = Counter(files)
    order = {file: (LONG.index(file) if file in LONG else len(LONG), -counts[file], file) for file in counts}
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])


@contextlib.contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    """Fail where this takes too long; the traceback says what was waited for."""

    def fail(_number: int, _frame: object) -> NoReturn:
        with contextlib.suppress(RuntimeError):
            # uvloop logs what is raised here, and goes on.
            for task in asyncio.all_tasks(asyncio.get_running_loop()):
                task.cancel(f"{item.nodeid} was not over after {LIMIT} s")
        # It is no Exception: what tries again after each of those does not take it for one.
        pytest.fail(f"{item.nodeid} was not over after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Limit what fixtures do first."""
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Limit the test."""
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Limit what fixtures do last."""
    with limited(item):
        yield


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take away the folder of all runs, which pytest leaves, if there is nothing in it."""
    with contextlib.suppress(OSError):
        (Path(tempfile.gettempdir()) / f"pytest-of-{getpass.getuser()}").rmdir()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a Chromium."""
    from tests.browser.chromium import browsing  # noqa: PLC0415 - few tests need it, and what it imports

    with browsing() as browser:
        yield browser
