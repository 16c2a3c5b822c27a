"""Write a picture of a scene before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from decr_scene.pipeline.inputs.bands import display_bands
from decr_scene.pipeline.outputs.side_file import FinishedRun, SideDocument
from decr_scene.pipeline.raster.scene import RasterioScene, gdal_env
from decr_scene.pipeline.tiling.grid import reduced_shape

SIDE = 640
"""Greatest side of each half, px."""

GAP = 6
STRETCH = (1.0, 99.0)
"""Percentiles of the input that become black and white, if it is not uint8 already."""


class Quicklook(SideDocument):
    """Before and after side by side as a PNG, both with the stretch of the input."""

    role = "quicklook"
    ending = ".png"
    option = "quicklook"

    def write(self, run: FinishedRun, path: Path) -> None:
        """Draw the picture from both rasters, decimated to `SIDE` px."""
        bands = display_bands(run.bands)
        bands = bands if len(bands) == 3 else bands * 3
        with gdal_env(), RasterioScene.open(run.output) as after:
            (left, valid), (right, _) = _decimated(run.scene, bands), _decimated(after, bands)
        low, high = _stretch(left[valid], run.scene.dtype)
        gap = np.full((3, left.shape[1], GAP), 255, np.uint8)
        picture = np.concatenate([_to_uint8(left, low, high), gap, _to_uint8(right, low, high)], axis=2)
        profile = {"driver": "PNG", "dtype": "uint8", "count": 3}
        with (
            rasterio.Env(GDAL_PAM_ENABLED="NO"),
            rasterio.open(path, "w", **profile, height=picture.shape[1], width=picture.shape[2]) as target,
        ):
            target.write(picture)


def _decimated(scene: RasterioScene, bands: list[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read averages of some bands (1-based), ``(C, h, w)``, and where they are valid."""
    pixels, valid = scene.decimated(reduced_shape(scene.shape, SIDE), Resampling.average)
    chosen = [band - 1 for band in bands]
    return pixels[chosen].astype(np.float32), valid[chosen]


def _stretch(image: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the values that become black and white, from valid pixels."""
    if dtype == np.uint8:
        return 0.0, 255.0
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, STRETCH) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _to_uint8(image: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    scaled = np.nan_to_num((image - low) / (high - low))
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
