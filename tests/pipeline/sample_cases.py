"""Parts of the sample scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from places import SAMPLES
from rasterio.windows import Window

LANDSAT = SAMPLES / "landsat_cloudy.tif"


def part_of_landsat(path: Path, height: int, width: int) -> Path:
    """A window of the cloudy Landsat scene, as a file of its own."""
    return part_of(LANDSAT, path, height, width, row=300)


def part_of(scene: Path, path: Path, height: int, width: int, row: int = 0) -> Path:
    """A window of a scene from a row on, as a file of its own."""
    with rasterio.open(scene) as dataset:
        window = Window(row_off=row, col_off=0, width=width, height=height)
        profile = {**dataset.profile, "height": height, "width": width}
        profile["transform"] = dataset.window_transform(window)
        with rasterio.open(path, "w", **profile) as part:
            part.write(dataset.read(window=window))
            part.descriptions = dataset.descriptions
    return path


def pixels(path: Path) -> NDArray[Any]:
    """All bands of a raster."""
    with rasterio.open(path) as dataset:
        return dataset.read()
