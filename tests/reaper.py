"""Reaper: ends the programs of a process that is gone, however that ended: `kill -9` lets nobody tidy up.

`python tests/reaper.py SECONDS` reads the ids of processes, one a line. When its input ends, with all who could write
to it, those that still run get SIGTERM, and SIGKILL after so many seconds: with the whole group, where one leads it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress


def running(programs: dict[int, int]) -> dict[int, int]:
    """Return those that run still, and close the descriptors of the others: an id of theirs may be another's now."""
    poll = select.poll()
    for descriptor in programs:
        poll.register(descriptor, select.POLLIN)
    for ended, _ in poll.poll(0):
        os.close(ended)
        del programs[ended]
    return programs


def end(programs: dict[int, int], number: signal.Signals) -> None:
    """Signal all that run, and the groups that they lead."""
    for descriptor, pid in running(programs).items():
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)


def main(seconds: float) -> None:
    """Read what is to be ended, then end it."""
    programs: dict[int, int] = {}
    for line in sys.stdin:
        with suppress(ProcessLookupError):
            programs[os.pidfd_open(int(line))] = int(line)
        running(programs)
    end(programs, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while running(programs) and time.monotonic() < deadline:
        time.sleep(0.05)
    end(programs, signal.SIGKILL)


if __name__ == "__main__":
    main(float(sys.argv[1]))
