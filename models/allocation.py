"""What the C library does with memory that is freed, and how many heaps it has.

All of it is asked of glibc alone: other C libraries are left as they are.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

KEPT = 512 << 20
"""Bytes free at the end of the heap up to which they are kept."""

MAPPED = (128 << 20, 32 << 20)
"""Bytes from which on memory is asked for by itself, and given back when it is freed.

The second is the most that glibc takes before 2.35.
"""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of ``malloc.h``."""


@cache
def share_one_heap() -> None:
    """Have all threads of this process take memory from one heap.

    By itself glibc gives threads heaps of their own, up to eight for each core, and what is freed in one
    serves no thread of another: a run of `default` takes a fifth more memory so, and no less time. It cannot
    be taken back, so it is for a program to ask for, not for what is imported by one. ``MALLOC_ARENA_MAX``
    counts for more.
    """
    mallopt = _function("mallopt")
    if "MALLOC_ARENA_MAX" not in os.environ and mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back_freed_memory() -> None:
    """Give back to the system, once, what this process has freed, wherever it lies in its heaps."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, rather than have it mapped and zeroed anew for each layer.

    By itself glibc learns to do so, up to 32 MB; not where ``MALLOC_TRIM_THRESHOLD_`` is set, as Dask sets it
    for its workers: there each feature map above 128 kB costs a fault a page. ``MALLOC_MMAP_THRESHOLD_``
    counts for more.
    """
    mallopt = _function("mallopt")
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or mallopt is None:
        return
    if any(mallopt(_M_MMAP_THRESHOLD, size) for size in MAPPED):  # refused, the other alone does harm
        mallopt(_M_TRIM_THRESHOLD, KEPT)


def _function(name: str) -> Callable[..., Any] | None:
    """Find a function of the C library."""
    try:
        found: Callable[..., Any] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return None
    return found
