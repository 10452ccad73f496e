"""How the process deals with the memory of the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["keep_freed_memory", "large_blocks_mapped", "release_freed_memory"]

# Parameters of mallopt in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Older versions refuse a threshold above half the size of a heap.
_LARGEST_KEPT = (1 << 30, 32 << 20)
_MAPPED = 1 << 19  # bytes of a block that is worth a mapping of its own


def keep_freed_memory() -> bool:
    """Lets the C library keep freed blocks for the next step instead of giving them back.

    By default glibc maps every large block anew, and the kernel clears each of its pages at the
    first touch; a training step on a CPU, which frees and asks for the same sizes again and again,
    spends 10 to 20 % of its time on that. The process then holds its peak until it ends.

    Returns:
        Whether it was done: only on Linux with glibc, and not where the user has tuned the
        allocator or put another in its place (any ``MALLOC_*`` variable, ``GLIBC_TUNABLES`` or
        ``LD_PRELOAD``).
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    # In this order: the trim threshold alone would end glibc's own adaptation of the other.
    if not any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST_KEPT):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 0x7FFFFFFF) == 1)


@contextlib.contextmanager
def large_blocks_mapped() -> Iterator[None]:
    """Lets blocks of half a MiB or more go straight back to the system when they are freed.

    For computations whose blocks have another size every time: in the heap each would leave a hole
    that the next does not fit into. It costs the time to map and clear every such block. Where
    ``keep_freed_memory`` does nothing, this does nothing either; afterwards blocks up to 32 MiB are
    kept.
    """
    mallopt = _mallopt()
    if mallopt is None or mallopt(_MMAP_THRESHOLD, _MAPPED) != 1:
        yield
        return
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT[-1])


def _mallopt() -> Callable[[int, int], int] | None:
    """Gives glibc's function that tunes its allocator, unless the user has done so already."""
    if sys.platform != "linux" or "LD_PRELOAD" in os.environ:
        return None
    if any(name.startswith("MALLOC_") for name in os.environ):
        return None
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


def release_freed_memory() -> bool:
    """Gives freed blocks in the middle of the heap back to the system.

    What lives long settles in the holes that the blocks of a frame leave, and the next frame's
    blocks go behind it; over thousands of frames the holes add up to tens of MiB.

    Returns:
        Whether it was done: only on Linux with glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) >= 0
