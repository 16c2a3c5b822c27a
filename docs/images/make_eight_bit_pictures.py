"""Make ``sentinel2-8-bits.jpg``: real cloud in natural colour of 8 bits, and what takes its place.

    python docs/images/make_eight_bit_pictures.py DATA

``DATA`` holds ``pairs4/sen12mscr`` and ``pairs4/sen12mscr_ts``. Columns: cloudy, ``fill``, ``rgb``, the clear
date. Each row is as light as its clear date asks for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from decr_scene.pipeline import process_scene

HERE = Path(__file__).parent
ROWS = (
    "sen12mscr/test/{}/ROIs1970_fall_85_p782.tif",
    "sen12mscr/train/{}/ROIs1158_spring_39_p500.tif",
    "sen12mscr_ts/train/{}/2018-02-25.tif",
)
WHITE, SIDE, GAP = 0.356, 256, 4
"""Reflectance of 255, and side of what is shown and distance between, px."""

Pixels = NDArray[np.uint8]


def main() -> None:
    """Make pictures of 8 bits of the pairs, restore them, and lay all out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(data / "pairs4", name, Path(folder)) for name in ROWS]
    Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP]).save(HERE / "sentinel2-8-bits.jpg", quality=90)


def row(pairs: Path, name: str, folder: Path) -> Pixels:
    """Restore one scene, and put its images side by side, ``(H, W, 3)``."""
    cloudy, clear = (
        natural_colour(pairs / name.format(date), folder / f"{date}.tif") for date in ("cloudy", "clear")
    )
    paths = [cloudy]
    for model in ("fill", "rgb"):
        paths.append(folder / f"{model}.tif")
        process_scene(cloudy, paths[-1], model=model, overwrite=True)
    images = [read(path) for path in (*paths, clear)]
    light = 255 / np.percentile(images[-1], 99.5)
    frame = (0, GAP), (0, GAP), (0, 0)
    shown = [np.clip(np.rint(image * light), 0, 255).astype(np.uint8) for image in images]
    return np.concatenate([np.pad(image, frame, constant_values=255) for image in shown], axis=1)


def natural_colour(path: Path, picture: Path) -> Path:
    """Write blue, green and red of reflectance as a picture of 8 bits."""
    with rasterio.open(path) as dataset:
        pixels = dataset.read([1, 2, 3]) / 10000
        profile = {**dataset.profile, "count": 3, "dtype": "uint8", "nodata": None}
    with rasterio.open(picture, "w", **profile) as dataset:
        dataset.write(np.clip(np.rint(pixels / WHITE * 255), 1, 255).astype(np.uint8))
        dataset.descriptions = ("blue", "green", "red")
    return picture


def read(path: Path) -> Pixels:
    """Read red, green and blue, ``(H, W, 3)``."""
    with rasterio.open(path) as dataset:
        pixels: Pixels = np.moveaxis(dataset.read([3, 2, 1]), 0, 2)[:SIDE, :SIDE]
    return pixels


if __name__ == "__main__":
    main()
