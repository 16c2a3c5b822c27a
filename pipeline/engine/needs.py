"""Estimate the memory of a run besides the model, and refuse the run where there is too little."""

from __future__ import annotations

import math

import numpy as np
import psutil
from distributed.system import MEMORY_LIMIT

from decr_scene.pipeline.engine.under_way import (
    ROWS_UNDER_WAY,
    TASKS_AHEAD,
    WINDOWS_UNDER_WAY,
    block_rows,
    values_of_tile,
)
from decr_scene.pipeline.errors import MemorySpaceError
from decr_scene.pipeline.files import size_in_words
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.plan import Planned
from decr_scene.pipeline.tiling.windows import tiles_a_side


def bytes_under_way(scene: RasterioScene, planned: Planned, batch_size: int | None, block: int) -> int:
    """Estimate the bytes of windows and batches that a run holds at the same time.

    Args:
        scene: The scene.
        planned: Its plan.
        batch_size: As in `Options`.
        block: Side of the output's blocks, px.
    """
    plan, row = planned.plan, next(block_rows(scene.shape, block))
    pixels = min(ROWS_UNDER_WAY * len(row), WINDOWS_UNDER_WAY) * block * row[0].width
    windows = pixels * (2 * scene.count * scene.dtype.itemsize + 1)
    tile = values_of_tile(plan) * np.dtype(np.float32).itemsize
    rows = math.ceil(ROWS_UNDER_WAY * block / (plan.grid.size - plan.grid.overlap)) + 1
    tiles = rows * len(plan.grid.cols) + 3 * TASKS_AHEAD * planned.batches(batch_size).largest
    held = min(tiles, planned.tiles_to_restore)
    if plan.spec.windows:  # first guesses of all that lies in the windows over these rows
        guesses = (rows + 2 * tiles_a_side(plan.grid)) * len(plan.grid.cols)
        held += min(guesses, planned.tiles_to_restore if plan.aoi is None else len(plan.grid))
    return windows + tile * held


def free_memory() -> int:
    """Return the bytes that this process may still take, by the machine and by its container."""
    own = psutil.Process().memory_info().rss
    return min(int(psutil.virtual_memory().available), max(0, int(MEMORY_LIMIT) - own))


def check_memory(
    scene: RasterioScene, planned: Planned, batch_size: int | None, block: int, limit: int | None = None
) -> None:
    """Refuse a run for which memory, or the limit of it in bytes, cannot suffice.

    Raises:
        MemorySpaceError: There is too little.
    """
    needed, free = bytes_under_way(scene, planned, batch_size, block), free_memory()
    if limit is not None and needed > limit:
        raise MemorySpaceError(
            f"a scene {scene.shape[1]} px wide needs {size_in_words(needed)} besides the model, and memory "
            f"is limited to {size_in_words(limit)}: raise --memory-limit, take a smaller --batch-size, or "
            "cut the scene into strips from top to bottom"
        )
    if needed > free:
        raise MemorySpaceError(
            f"not enough memory for a scene {scene.shape[1]} px wide: {size_in_words(free)} free, "
            f"{size_in_words(needed)} expected besides the model: take a smaller --batch-size, or "
            "cut the scene into strips from top to bottom"
        )
