"""What tasks hand to one another: values of tiles by number, and errors that can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.tiling.feather import blend
from decr_scene.pipeline.tiling.grid import Span, Tile

P = ParamSpec("P")
R = TypeVar("R")

Results = Mapping[int, Float]
"""Tile index to ``(C, h, w)``: tiles without a valid pixel are left out."""


class Batchwise(dict[int, Float]):
    """Results of several batches, and how long those took of which something has changed.

    Nothing is known of the others: no model may have seen them.
    """

    batches: int = 0
    seconds: float = 0.0

    def add(self, changes: Results, seconds: float) -> None:
        """Add the results of a batch."""
        self.update(changes)
        if changes:
            self.batches += 1
            self.seconds += seconds


def picklable_errors(task: Callable[P, R]) -> Callable[P, R]:
    """Re-raise our own errors without their cause: GDAL's exceptions cannot be pickled back to the client."""

    @wraps(task)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if isinstance(args[0], Plan):
                args[0].check_files()
            return task(*args, **kwargs)
        except DecrSceneError as error:
            ours = type(error)(str(error))
        raise ours

    return alone


def last_band(plan: Plan, span: Span, results: Sequence[tuple[Tile, Float]]) -> Float:
    """Blend the last band of tiles, ``(h, w)``."""
    return blend(plan.grid, span, bands_of(results, slice(-1, None)), 1, share_out=True)[0]


def tiles_over(plan: Plan, span: Span, results: Sequence[Results]) -> list[tuple[Tile, Float]]:
    """Find the tiles over a window among results, with their values."""
    by_index: dict[int, Float] = {}
    for part in results:
        by_index.update(part)
    return [(tile, by_index[tile.number]) for tile in plan.grid.touching(span) if tile.number in by_index]


def bands_of(results: Sequence[tuple[Tile, Float]], bands: slice) -> list[tuple[Tile, Float]]:
    """Take some bands of tiles."""
    return [(tile, values[bands]) for tile, values in results]


def padded(image: Float, *sides: int) -> Float:
    """Mirror the bottom and right edge up to height and width: only in scenes smaller than a tile."""
    missing = [(0, 0), *((0, side - own) for side, own in zip(sides, image.shape[1:], strict=True))]
    return image if not any(after for _, after in missing) else np.pad(image, missing, mode="symmetric")


def unpadded(values: Float, span: Span) -> Float:
    """Cut the padding from values of a window, ``(C, H, W)``."""
    return values[:, : span.height, : span.width]
