"""Bound what of a scene is under way: windows of the output, tasks of models, and tiles waiting for both."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from decr_scene.pipeline.engine.workers import TASKS_A_MODEL
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.restorers import on_gpu
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span

ROWS_UNDER_WAY = 2
WINDOWS_UNDER_WAY = 4
"""Most windows of those rows that are blended or wait to be written, however wide the scene."""
COPIES_AHEAD = 2
"""Windows without a tile that are read while another one is written."""
TASKS_AHEAD = TASKS_A_MODEL + 1
"""Tasks queued or computed for each model; the same number may be done and wait for their blocks."""
BATCHES_A_TASK = 4
"""Most batches in a task."""
BYTES_A_TASK = 1 << 25
"""Most bytes that the changes of several batches in a task may take, in float32."""
CHUNK_COLS = 2048
"""Greatest width of one blending task, px."""


def block_rows(shape: tuple[int, int], block: int) -> Iterator[list[Span]]:
    """Cut the output into windows of whole blocks, row by row, none wider than `CHUNK_COLS`."""
    height, width = shape
    step = max(block, CHUNK_COLS // block * block)
    for row in range(0, height, block):
        yield [
            Span(row, col, min(block, height - row), min(step, width - col)) for col in range(0, width, step)
        ]


def room_for_tiles(plan: Plan, batches: Batches, block: int, models: int = 1) -> tuple[int, int]:
    """Estimate the bytes of a tile, and the number of finished tiles whose blocks are not written."""
    grid = batches.grid
    rows = math.ceil((ROWS_UNDER_WAY + 1) * block / (grid.size - grid.overlap)) + 2
    most = rows * len(grid.cols) + 3 * TASKS_AHEAD * models * batches.largest
    number = np.float64 if plan.spec.bands is None else np.float32  # a callable answers as it likes
    return values_of_tile(plan) * np.dtype(number).itemsize, min(len(grid), most)


def most_batches(plan: Plan, batches: Batches) -> int:
    """Count the batches that a task may take: one of a network on a CPU, which is never so quick."""
    if plan.spec.bands is not None and not on_gpu(plan.spec):
        return 1
    of_a_batch = values_of_tile(plan) * np.dtype(np.float32).itemsize * max(1, batches.largest)
    return max(1, min(BATCHES_A_TASK, BYTES_A_TASK // of_a_batch))


def values_of_tile(plan: Plan) -> int:
    """Count the values of a tile's change."""
    bands = len(plan.indexes) * (2 if plan.samples > 1 else 1) + (plan.other is not None)
    return bands * plan.grid.size**2
