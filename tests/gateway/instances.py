"""Instances of a gateway as processes: `rawws gateway`, joined by a real Redis or by a broker of workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cli.commands import start
from tests.processes import Process

__all__ = ["instances"]


@contextmanager
def instances(folder: Path, text: str, count: int = 1, *options: str) -> Iterator[list[Process]]:
    """Run so many instances with one file."""
    (folder / "gateway.toml").write_text(text)
    with ExitStack() as running:
        yield [
            running.enter_context(start(folder, "gateway", "gateway.toml", "--port", "0", *options))
            for _ in range(count)
        ]
