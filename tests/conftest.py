"""What all tests share: the right twin, the profiles of Hypothesis, the signals of a shell, and a browser.

HYPOTHESIS_PROFILE=thorough looks further, and elsewhere each time; HYPOTHESIS_PROFILE=quick looks at little.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.compiled import refuse

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Here and in no hook: the files of fixtures that are loaded after this one import rawws.
refuse()

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
