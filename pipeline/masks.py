"""Where the scene is cloudy: a mask of the user's, warped onto the scene, softened and buffered.

Outside the soft mask every pixel is the input's, bit for bit; tiles that it does not touch are not sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.grid import Span, Tile, TileGrid
from decr_scene.pipeline.scene import RasterioScene

Float = NDArray[np.float32]

BUFFER = 12
"""Pixels around a cloud that are restored fully: masks are tight, and clouds have thin rims."""

FALLOFF = 20
"""Pixels over which the restoration then fades out."""

CLEAR_CHANGE = 2 * 5 / 255
"""A change of 5 of 255 DN is the model's own unsteadiness on clear ground, not cloud."""

CLOUDY_CHANGE = 2 * 15 / 255
"""A change of 15 of 255 DN is cloud or shadow."""


@dataclass(frozen=True)
class MaskFile:
    """A raster whose non-zero pixels are cloud, on the grid of a scene.

    Args:
        path: The mask: any raster that GDAL reads; integers are classes, 0 clear; floats are probabilities,
            cloud from 0.5.
        scene: The scene.

    Raises:
        MaskError: It cannot be read, or there is no way to lay it over the scene.
    """

    path: str
    scene: RasterioScene

    def __post_init__(self) -> None:
        with self._open() as (source, placed):
            georeferenced = placed or source.shape == self.scene.shape
        if not georeferenced:
            raise MaskError(
                f"mask {self.path} is {source.shape} px, scene {self.scene.shape}, and not both are "
                "georeferenced: make the mask of the scene's size, or georeference it"
            )

    def soft(self, span: Span) -> Float:
        """Weight of the restoration: 1 in and around cloud, 0 away from it, ``(height, width)``."""
        reach = BUFFER + FALLOFF
        height, width = self.scene.shape
        row, col = max(0, span.row - reach), max(0, span.col - reach)
        bottom, right = min(height, span.bottom + reach), min(width, span.right + reach)
        wide = Span(row, col, bottom - row, right - col)
        cloud = self._cloud(wide)
        if not cloud.any():
            return np.zeros((span.height, span.width), np.float32)
        return _soften(cloud)[span.inside(wide)]

    def cloudy_tiles(self, grid: TileGrid) -> list[int]:
        """Numbers of the tiles that the soft mask touches, in order."""
        found = []
        for first in range(0, len(grid), len(grid.cols)):
            row = [grid[number] for number in range(first, first + len(grid.cols))]
            found += self._cloudy_in_row(grid, row)
        return found

    def _cloudy_in_row(self, grid: TileGrid, row: list[Tile]) -> list[int]:
        whole = Span(row[0].row, 0, min(grid.size, grid.shape[0]), grid.shape[1])
        soft = self.soft(whole)
        return [tile.number for tile in row if soft[grid.span(tile).inside(whole)].any()]

    def _cloud(self, span: Span) -> NDArray[np.bool_]:
        with self._open() as (source, placed):
            values = self._warped(source, span) if placed else source.read(1, window=span.window)
        return values >= 0.5

    def _warped(self, source: Any, span: Span) -> Float:
        """The mask on the scene's pixels; where it does not reach, there is no cloud."""
        transform = self.scene.transform @ Affine.translation(span.col, span.row)
        where = {"crs": self.scene.crs, "transform": transform, "width": span.width, "height": span.height}
        with WarpedVRT(source, **where, resampling=Resampling.nearest, add_alpha=True) as vrt:
            values, alpha = vrt.read([1, vrt.count])
        return np.where(alpha > 0, values, 0)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, bool]]:
        """The open mask, and whether it is laid over the scene by coordinates."""
        try:
            with rasterio.open(self.path) as source:
                yield source, source.crs is not None and self.scene.crs is not None
        except RasterioError as error:
            raise MaskError(f"mask {self.path} cannot be read: {error}") from error


def keep_clear_ground(change: Float) -> Float:
    """Leave alone what the model hardly changes: its own change says where it sees cloud or shadow.

    Args:
        change: ``(C, H, W)`` on the [-1, 1] scale.

    Returns:
        The change, faded out smoothly where its largest band is below `CLOUDY_CHANGE`, and nothing at all
        below `CLEAR_CHANGE`: there every pixel keeps its bits.
    """
    size = np.abs(change).max(axis=0)
    rise = np.clip((size - CLEAR_CHANGE) / (CLOUDY_CHANGE - CLEAR_CHANGE), 0, 1)
    return change * (rise * rise * (3 - 2 * rise))


def _soften(cloud: NDArray[np.bool_]) -> Float:
    """1 up to `BUFFER` px from cloud, then a raised cosine to 0 over `FALLOFF` px."""
    from scipy.ndimage import distance_transform_edt

    away = np.clip((distance_transform_edt(~cloud) - BUFFER) / FALLOFF, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * away)).astype(np.float32)
