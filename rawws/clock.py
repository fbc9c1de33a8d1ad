"""Clock: the one time by which deadlines, rates and ages are measured; `rawws.testing` turns it.

Modules ask `clock.monotonic()`, and keep no copy of the function: so there is one place where it changes.
"""

from __future__ import annotations

from time import monotonic

__all__ = ["monotonic"]
