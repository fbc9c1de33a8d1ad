"""Folders: a place for what the workers of one server share, which goes with them; if they were killed, with the next.

In each folder is a file that its owner, and the workers that it forks, hold a lock on: the kernel ends it with the last
of them, however they end. So a folder whose lock can be had is nobody's any more. POSIX only.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

__all__ = ["make_folder"]

PREFIX = "rawws-"
LOCK = "lock"


def make_folder() -> Path:
    """Make a folder that nobody else may enter, until this process ends; remove those that dead owners left."""
    try:
        import fcntl  # noqa: PLC0415 - there is none on Windows, and there are no workers
    except ImportError:
        return Path(tempfile.mkdtemp(prefix=PREFIX))
    _remove_left(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # It has its name when it is locked: nobody finds one that is not locked yet. Its descriptor stays open.
    new = folder / f"{LOCK}.new"
    fcntl.flock(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), fcntl.LOCK_EX)
    new.rename(folder / LOCK)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_left(parent: Path) -> None:
    """Remove this user's folders whose owners, and all their workers, are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        # Whatever somebody else does there meanwhile, it stops no server.
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and _is_left(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(lock: Path) -> bool:
    """Tell whether nobody holds a lock. Raises OSError where there is none."""
    import fcntl  # noqa: PLC0415 - as above

    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
