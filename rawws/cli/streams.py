"""Streams: what is said on standard output and standard error, which may be full or closed.

A server goes on: a log on a full disk, or a terminal that is gone, costs lines of the log and no client. Each outage is
told once, on the other stream, if that still takes it. Where the log is JSON, each line is: who reads a container's
output reads both. What a client has to print (`write_output`) is what it was run for: it ends where that cannot be.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO, final

from .loading import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LogHandler",
    "ReaderGoneError",
    "complain",
    "flush_streams",
    "lay_out",
    "open_streams",
    "print_line",
    "release_streams",
    "write_error",
    "write_output",
]

LAYOUT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ReaderGoneError(Exception):
    """Whoever read standard output has enough."""


@final
class Lines:
    """What the lines of this process are made of: a level of `logging` and a text; None for the text alone."""

    made_by: Callable[[int, str], str] | None = None


def lay_out(made_by: Callable[[int, str], str] | None) -> None:
    """Have a function make the lines from now on, None for texts as they are."""
    Lines.made_by = made_by


def open_streams() -> None:
    """Have those go nowhere that were closed when the process began, so that no socket gets their descriptors.

    What writes to standard error, or is careful not to close it (libuv), means them by their numbers. And Python has
    None in the place of their files.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest one that is free: this.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r"))


def print_line(text: str) -> None:
    """Print a line on standard output at once; where that fails, say so on standard error, and print no more."""
    try:
        print(_line(logging.INFO, text), flush=True)
    except OSError as error:
        _drop(sys.stdout)
        complain(f"cannot write to standard output: {error.strerror}; it serves anyway")


def write_output(data: bytes) -> None:
    """Write on standard output at once. Raises ReaderGoneError for a pipe that nobody reads, CommandError for others.

    These are no OSErrors: a connection to a server can end with the same ones.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise CommandError(f"cannot write to standard output: {error.strerror}") from None


def complain(text: str) -> None:
    """Say on standard error what went wrong, if that takes it."""
    write_error(text if Lines.made_by else f"rawws: {text}")


def write_error(text: str) -> None:
    """Write a line on standard error, if that takes it."""
    text = _line(logging.ERROR, text)
    if sys.stderr is not None:  # closed when the process began
        with contextlib.suppress(OSError):
            # In one piece: `print` writes the end of the line by itself, and workers may fail at the same time.
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@final
class LogHandler(logging.StreamHandler[TextIO]):
    """The log on standard error: what cannot be written is lost, which is told once for each outage."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LAYOUT))
        # Whether the last record could not be written, and whether that was told.
        self._failed = self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the first one that can be written ends an outage."""
        self._failed = False
        super().emit(record)
        self._told = self._told and self._failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Tell why nothing can be written; a record that is wrong itself is logging's to tell."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                begin = "" if Lines.made_by else "rawws: "
                text = f"{begin}cannot write the log: {error.strerror}; it serves anyway"
                print(_line(logging.ERROR, text), flush=True)


def flush_streams() -> None:
    """Write what is left in the streams, if they take it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()


def release_streams() -> None:
    """Leave nothing in the streams that Python would fail to write at its end, and exit with 120 for."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                _drop(stream)


def _line(level: int, text: str) -> str:
    return text if Lines.made_by is None else Lines.made_by(level, text)


def _drop(stream: TextIO) -> None:
    """Have what is left in a stream, and what comes, go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
