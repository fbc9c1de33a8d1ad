"""Reload: the same command again, in a process of its own, each time a file of the program changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .loading import CommandError
from .streams import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run_again"]

# What is held open while the program is worked on is not waited for longer than so many seconds.
PATIENCE = 2.0


def run_again(words: Sequence[str]) -> int:
    """Run `rawws` with these words until a signal, from the start after each change; return the last exit status.

    A program that cannot start is started again after the next change. Raises CommandError without watchfiles.
    """
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 - an extra
    except ImportError:
        raise CommandError("--reload needs watchfiles: pip install 'rawws[reload]'") from None

    def start() -> subprocess.Popen[bytes]:
        # In a group of its own: Ctrl-C goes to a whole group, and this one passes it on.
        return subprocess.Popen([sys.executable, "-m", "rawws", *words], process_group=0)

    here = Path.cwd()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    child = start()
    for changes in watch(here, watch_filter=PythonFilter(), stop_event=over, raise_interrupt=False):
        paths = sorted(path for _, path in changes)
        name = Path(paths[0]).relative_to(here) if Path(paths[0]).is_relative_to(here) else paths[0]
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        complain(f"{name}{more} changed, starting again")
        end(child)
        child = start()
    return end(child)


def end(child: subprocess.Popen[bytes]) -> int:
    """End a process, properly if it does not take too long; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(number)
        try:
            return child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # The second signal does not wait for clients.
            continue
    return child.wait()
