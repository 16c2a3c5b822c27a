"""What Dask does in a worker process of ours before its first task; it is named to Dask as a *preload*."""

from __future__ import annotations

import logging
from typing import Any

from decr_scene.pipeline.system.ignored_warnings import ignore_warnings


def dask_setup(worker: Any) -> None:
    """Prepare this process, as `decr_scene.pipeline.commands.main` prepares its own."""
    ignore_warnings()
    # errors of tasks reach the process that submitted them, which reports them
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
