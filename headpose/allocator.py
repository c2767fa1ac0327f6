"""Freed memory that the process keeps for its next step.

A training step on a CPU allocates and frees the same large blocks again and again. The C library
maps each of them anew and gives it back, and the kernel clears every page on the way: a fifth of a
step of MobileNetV2 at 64 px (benchmarks/allocator.py).
"""

import ctypes
import sys

# Parameters of mallopt(3), from <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_LARGEST_FROM_HEAP = 1 << 30
_NEVER_TRIM = (1 << 31) - 1
_GROW_BY = 64 << 20  # untuned


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, up to the largest step so far; for workers that train.

    Returns:
        Whether the C library took the settings; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP),
        (_M_TRIM_THRESHOLD, _NEVER_TRIM),
        (_M_TOP_PAD, _GROW_BY),
    )
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)
