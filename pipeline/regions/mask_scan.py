"""Read a mask on the pixels of a scene, strip by strip: its values, and the share of the scene it covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import read_on_grid
from decr_scene.pipeline.tiling.grid import Span

_STRIP = 1 << 24
"""Greatest number of pixels read at a time."""

_MOST_CLASSES = 4096
"""Greatest number of different values that count as classes."""

_LISTED = 8
"""Greatest number of values listed in a message."""


@dataclass(frozen=True)
class BandValues:
    """Values of a band of a mask within the scene.

    Args:
        values: All different ones, ascending; ``None``: too many to be classes, or fractions.
        low: The least of them.
        high: The greatest.
        fractions: Whether some are not whole numbers.
        share: Share of the scene where it has valid pixels, which NaN and infinities never are.
        nodata: Its nodata value.
        nan: Share of the scene where it is NaN or infinite and does not declare that as nodata.
    """

    values: tuple[int, ...] | None
    low: float = 0.0
    high: float = 0.0
    fractions: bool = False
    share: float = 1.0
    nodata: float | None = None
    nan: float = 0.0

    def describe(self) -> str:
        """Return them as words for a message."""
        if self.values is None:
            return f"values from {self.low:g} to {self.high:g}"
        if len(self.values) > _LISTED:
            return f"{len(self.values)} values from {self.low:g} to {self.high:g}"
        return f"the value{'s' if len(self.values) > 1 else ''} {', '.join(map(str, self.values))}"


def scan(source: Any, scene: RasterioScene, band: int) -> BandValues:
    """Read all of a band that lies on a scene.

    Args:
        source: The open mask; `misfit` has accepted it.
        scene: The scene.
        band: 1-based.
    """
    values: set[int] | None = set()
    valid, nan, low, high, fractions = 0, 0, np.inf, -np.inf, False
    for pixels in _strips(source, scene, band):
        unknown = int((~np.isfinite(pixels)).sum()) if pixels.dtype.kind == "f" else 0
        valid, nan = valid + pixels.size - unknown, nan + unknown
        pixels = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        if not pixels.size:
            continue
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
        fractions = fractions or (pixels.dtype.kind == "f" and bool((pixels != np.floor(pixels)).any()))
        if values is not None:
            values = None if fractions else _merged(values, pixels)
    area = scene.shape[0] * scene.shape[1]
    classes = None if values is None else tuple(sorted(values))
    return BandValues(classes, low, high, fractions, valid / area, source.nodatavals[band - 1], nan / area)


def _strips(source: Any, scene: RasterioScene, band: int) -> Iterator[Pixels]:
    """Yield the valid pixels of a mask on a scene, ``(n,)`` a strip."""
    height, width = scene.shape
    rows = max(1, min(height, _STRIP // width))
    for row in range(0, height, rows):
        span = Span(row, 0, min(rows, height - row), width)
        (pixels,), valid = read_on_grid(source, scene, span, [band], Resampling.nearest)
        yield pixels.ravel() if valid.all() else pixels[valid]


def _merged(values: set[int], pixels: Pixels) -> set[int] | None:
    """Add the values of some pixels, or return ``None`` if they are too many."""
    low, high = int(pixels.min()), int(pixels.max())
    if pixels.dtype == np.uint8:
        seen = np.zeros(256, bool)
        seen[pixels] = True
        new = np.flatnonzero(seen).tolist()
    elif high - low < 1 << 16 and abs(low) < 1 << 62:
        counts = np.bincount((pixels.astype(np.int64) - low).ravel())
        new = [int(place) + low for place in np.flatnonzero(counts)[: _MOST_CLASSES + 1]]
    else:
        new = [int(value) for value in np.unique(pixels)[: _MOST_CLASSES + 1]]
    values = values | set(new)
    return values if len(values) <= _MOST_CLASSES else None
