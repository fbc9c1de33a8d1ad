"""Unix sockets: a path to a socket that is bound there, with its permissions, and the one of a dead server replaced."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

__all__ = ["bind_unix", "check_mode"]


def check_mode(mode: object, path: object) -> None:
    """Raise TypeError or ValueError for what are no permissions of a unix socket."""
    if mode is None:
        return
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise TypeError(f"mode is {type(mode).__name__}, allowed are numbers such as 0o660 and None")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode is {mode:#o}, allowed are 0o0 to 0o777")
    if path is None:
        raise ValueError(f"mode is {mode:#o} without a path, allowed is a mode for a unix socket")


def bind_unix(path: str | os.PathLike[str], mode: int | None) -> socket.socket:
    """Return a socket that is bound to a path, and does not listen yet.

    Whoever opens it before it listens is refused, so nobody passes before the permissions are set. A socket where
    nobody listens any more is replaced. Raises OSError (EADDRINUSE) where somebody listens, or where a file is.
    """
    path = os.fspath(path)
    # Linux has names without a file, which end with their server.
    if path[:1] not in {"", "\0"}:
        _take_over(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        if mode is not None and path[:1] not in {"", "\0"}:
            # Not `umask`, which is that of all threads.
            os.chmod(path, mode)  # noqa: PTH101 - the path may be longer than what Path makes of it
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from None
        raise
    return sock


def _take_over(path: str) -> None:
    """Remove the socket of a server that is gone. Raises OSError where one listens."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - as above
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # One that takes no more connections for now, EAGAIN, is there all the same.
        probe.setblocking(False)
        found = probe.connect_ex(path)
    if found == errno.ECONNREFUSED:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - as above
    elif found != errno.ENOENT:
        raise OSError(errno.EADDRINUSE, "another server listens there", path)
