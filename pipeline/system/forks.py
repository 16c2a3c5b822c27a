"""Refuse runs in a fork of a process that has done a run, where they would wait for ever.

A fork has the memory of its parent but none of its threads; Dask and torch would wait for those.
"""

from __future__ import annotations

import os

from decr_scene.pipeline.errors import ForkError


class _Used:
    by: int | None = None


def threads_begin() -> None:
    """Note that this process has threads that its forks will lack."""
    _Used.by = _Used.by or os.getpid()


def refuse_after_fork() -> None:
    """Refuse to start threads in a fork, when called before.

    Raises:
        ForkError: This process was forked from one that had such threads.
    """
    if _Used.by not in (None, os.getpid()):
        raise ForkError(
            f"this process was forked from {_Used.by} after a run there, whose threads it lacks, so a run "
            "here would never end: start the pool before the first run, or as "
            "multiprocessing.get_context('spawn').Pool"
        )
