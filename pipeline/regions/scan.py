"""What a mask has on the pixels of a scene, strip by strip: its values, and how much of it it covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import laid_over
from decr_scene.pipeline.tiling.grid import Span

_STRIP = 1 << 24
"""Pixels that are looked at at a time, at most."""

_MOST = 4096
"""More values than these are no classes."""

_LISTED = 8
"""So many values are listed in a message."""


@dataclass(frozen=True)
class Found:
    """What a band of a mask has within the scene.

    Args:
        values: All that it has, ascending; ``None``: too many to be classes, or fractions.
        low: The least of them.
        high: The greatest.
        fractions: Whether some are no whole numbers.
        share: How much of the scene it says anything about.
        nodata: Its nodata value.
    """

    values: tuple[int, ...] | None
    low: float = 0.0
    high: float = 0.0
    fractions: bool = False
    share: float = 1.0
    nodata: float | None = None

    def told(self) -> str:
        """For a message."""
        if self.values is None:
            return f"values from {self.low:g} to {self.high:g}"
        if len(self.values) > _LISTED:
            return f"{len(self.values)} values from {self.low:g} to {self.high:g}"
        return f"the value{'s' if len(self.values) > 1 else ''} {', '.join(map(str, self.values))}"


def scan(source: Any, scene: RasterioScene, band: int) -> Found:
    """Look at all of a band that lies on a scene.

    Args:
        source: The open mask; one that `misfit` finds nothing against.
        scene: The scene.
        band: 1-based.
    """
    values: set[int] | None = set()
    known, low, high, fractions = 0, np.inf, -np.inf, False
    for pixels in _strips(source, scene, band):
        known += pixels.size
        pixels = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        if not pixels.size:
            continue
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
        fractions = fractions or (pixels.dtype.kind == "f" and bool((pixels != np.floor(pixels)).any()))
        if values is not None:
            values = None if fractions else _with(values, pixels)
    share = known / (scene.shape[0] * scene.shape[1])
    told = None if values is None else tuple(sorted(values))
    return Found(told, low, high, fractions, share, source.nodatavals[band - 1])


def _strips(source: Any, scene: RasterioScene, band: int) -> Iterator[Pixels]:
    """What a mask says of a scene, without the places where it says nothing."""
    height, width = scene.shape
    rows = max(1, min(height, _STRIP // width))
    for row in range(0, height, rows):
        span = Span(row, 0, min(rows, height - row), width)
        (pixels,), known = laid_over(source, scene, span, [band], Resampling.nearest)
        yield pixels[known]


def _with(values: set[int], pixels: Pixels) -> set[int] | None:
    """The values and those of some pixels; ``None``: too many."""
    low, high = int(pixels.min()), int(pixels.max())
    if high - low < 1 << 16 and abs(low) < 1 << 62:
        counts = np.bincount((pixels.astype(np.int64) - low).ravel())
        found = [int(place) + low for place in np.flatnonzero(counts)[: _MOST + 1]]
    else:
        found = [int(value) for value in np.unique(pixels)[: _MOST + 1]]
    values = values | set(found)
    return values if len(values) <= _MOST else None
