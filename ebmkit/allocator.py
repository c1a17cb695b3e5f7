"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of `mallopt` in glibc's malloc.h."""
MOST = 2**31 - 1
"""The largest threshold, in bytes, that it takes."""


def keep_freed_memory() -> bool:
    """Have freed memory used again instead of given back to the system; whether that could be had.

    glibc gives large blocks back at once, and each operator of a network then waits for new pages: half of the time of
    feature extraction on a CPU. The process stays as large as it ever was, so that this is for processes of our own
    that do one thing; nothing is changed where the environment sets glibc's options.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if platform.libc_ver()[0] != "glibc" or chosen:
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST))
    return False
