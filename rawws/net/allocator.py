"""Allocator: freed memory that glibc keeps for the next large message, where it would give it back to the kernel.

By itself it gives each block of 1 MiB back as soon as two of them are free, and the kernel makes 256 pages of zeros for
the next one: measured on echoes of 1 MiB, a sixth of the CPU of the server.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# malloc.h; mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# Up to this size blocks come from the heap, which is reused; larger ones come from the kernel, and go back to it.
BLOCK = 4 << 20
# What may be free at the end of the heap, and so what an idle process has more after a burst.
KEPT = 16 << 20
# Where the operator has said something of it, that counts. These are glibc's own.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Have this process keep up to 16 MiB that it freed; return False without glibc, or where the operator chose.

    To be called where the process does nothing but serve, for it holds for all of it.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or tuned or any(name in os.environ for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    # musl has no such function.
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, BLOCK) and library.mallopt(M_TRIM_THRESHOLD, KEPT))
