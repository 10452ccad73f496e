"""How the process deals with the memory of the host."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# Parameters of mallopt in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Lets the C library keep freed blocks for the next step instead of giving them back.

    By default glibc maps every large block anew, and the kernel clears each of its pages at the
    first touch; a training step on a CPU, which frees and asks for the same sizes again and again,
    spends 10 to 20 % of its time on that. The process then holds its peak until it ends.

    Returns:
        Whether it was done: only on Linux with glibc, and not where the user has tuned the
        allocator or put another in its place (any ``MALLOC_*`` variable, or ``LD_PRELOAD``).
    """
    if sys.platform != "linux" or "LD_PRELOAD" in os.environ:
        return False
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, sys.maxsize & 0x7FFFFFFF))
    return all([mallopt(name, value) == 1 for name, value in settings])
