"""What the C library does with memory that is freed."""

import ctypes
import os
from functools import cache

KEPT = 512 << 20
"""Bytes free at the end of the heap up to which they are kept."""

MAPPED = (128 << 20, 32 << 20)
"""Bytes from which on memory is asked for by itself, and given back when it is freed.

The second is the most that glibc takes before 2.35.
"""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, rather than have it mapped and zeroed anew for each layer.

    By itself glibc learns to do so, up to 32 MB; not where ``MALLOC_TRIM_THRESHOLD_`` is set, as Dask sets it
    for its workers: there each feature map above 128 kB costs a fault a page. Other C libraries are left as
    they are, and so is one that is told by ``MALLOC_MMAP_THRESHOLD_``.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    if any(mallopt(_M_MMAP_THRESHOLD, size) for size in MAPPED):  # refused, the other alone does harm
        mallopt(_M_TRIM_THRESHOLD, KEPT)
