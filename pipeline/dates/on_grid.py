"""Read another raster as a source of pixels on the grid of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rasterio.enums import Resampling

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.pipeline.errors import OtherDateError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import ELSEWHERE, lies_elsewhere, misfit, read_on_grid
from decr_scene.pipeline.tiling.grid import Span


@dataclass(frozen=True)
class OnGrid:
    """Some bands of a raster, laid over a scene by coordinates, or pixel on pixel where either has none.

    Args:
        path: The raster; every worker opens it for itself, once a thread.
        scene: The scene.
        indexes: Its bands, 0-based.
    """

    path: str
    scene: RasterioScene
    indexes: tuple[int, ...]

    @property
    def nodata(self) -> float | None:
        """Return ``None``: what has no value is NaN."""
        return None

    def read(self, span: Span) -> Float:
        """Read digital numbers in a window of the scene, ``(C, h, w)``, NaN where a band has no value.

        Raises:
            SceneReadError: It cannot be read there.
            OtherDateError: There is no way to lay it over the scene.
        """
        numbers = [index + 1 for index in self.indexes]
        with RasterioScene.open(self.path).dataset(span.window) as source:
            trouble = ELSEWHERE if lies_elsewhere(source, self.scene) else misfit(source, self.scene)
            if trouble is not None:
                raise OtherDateError(f"other date {self.path} {trouble}")
            pixels, has_values = read_on_grid(source, self.scene, span, numbers, Resampling.cubic)
        values = pixels.astype(np.float32)
        values[:, ~(has_values & np.isfinite(values).all(axis=0))] = np.nan
        return values

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Mark the valid ones of the pixels just read, same shape."""
        return np.isfinite(pixels)
