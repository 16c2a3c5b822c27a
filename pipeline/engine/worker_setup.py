"""What Dask does in a worker process of ours before its first task; it is named to Dask as a *preload*."""

from __future__ import annotations

import logging
from typing import Any

from decr_scene.pipeline.system.ignored_warnings import ignore_warnings


def dask_setup(worker: Any) -> None:
    """Prepare this process, as `decr_scene.pipeline.commands.main` prepares its own."""
    ignore_warnings()
    for logger in loggers_of_dask():  # errors of tasks reach the process that submitted them
        logger.setLevel(logging.CRITICAL)


def loggers_of_dask() -> list[logging.Logger]:
    """Return the loggers of Dask's cluster that have a level: ``distributed``, and some below it."""
    below = [name for name in list(logging.root.manager.loggerDict) if name.startswith("distributed.")]
    named = [logging.getLogger(name) for name in below]
    return [logging.getLogger("distributed"), *(logger for logger in named if logger.level)]
