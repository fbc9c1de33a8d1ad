"""What is left in the log fails a test, as beside it."""

from __future__ import annotations

from tests.server.conftest import logged

__all__ = ["logged"]
