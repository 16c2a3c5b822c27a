"""A fork of a process that has done a run: refused in one line, where it would wait for ever.

A fork has the memory of its parent but none of its threads, and what waits for one of those, in Dask or in
torch, never wakes.
"""

from __future__ import annotations

import os

from decr_scene.pipeline.errors import ForkError


class _Used:
    by: int | None = None


def threads_begin() -> None:
    """Note that this process has threads that no fork of it will have."""
    _Used.by = _Used.by or os.getpid()


def refuse_after_fork() -> None:
    """To be called before threads are wanted.

    Raises:
        ForkError: This process was forked from one that had such threads.
    """
    if _Used.by not in (None, os.getpid()):
        raise ForkError(
            f"this process was forked from {_Used.by} after a run there, whose threads it lacks, so a run "
            "here would never end: start the pool before the first run, or as "
            "multiprocessing.get_context('spawn').Pool"
        )
