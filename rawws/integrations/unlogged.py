"""Unlogged: what HTTP libraries log of a request, its URL, kept out of all logs where it is a request of ours.

A URL has the token of a device, the password of a backend, or the query of a client with a token of its own. httpx2
logs it at INFO, and hpack at DEBUG. What an application itself asks by them is logged as before.
"""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["unlogged"]

# A filter holds for records of its own logger alone, and not for those below.
LOGGERS: Final = ("httpx2", "hpack.hpack", "hpack.table")
IS_OURS: Final = ContextVar("rawws_unlogged", default=False)


def is_shown(record: logging.LogRecord) -> bool:
    """Tell whether a record is of a request of somebody else."""
    del record
    return not IS_OURS.get()


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Have nothing logged of the requests that are sent within."""
    for name in LOGGERS:
        # Once, however often: and anew where an application has set up its logs meanwhile.
        logging.getLogger(name).addFilter(is_shown)
    token = IS_OURS.set(True)
    try:
        yield
    finally:
        IS_OURS.reset(token)
