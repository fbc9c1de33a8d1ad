"""Children of the tests that are forked."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["child"]


@contextmanager
def child() -> Iterator[None]:
    """Have a child that was forked now, and does nothing."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
