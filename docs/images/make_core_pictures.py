"""Make ``cores.jpg``: ten cores of cloud of a sample scene, and what takes their place.

    python docs/images/make_core_pictures.py

Columns: cloudy, first guess (``--weight-floor 1``), as bundled, ``--gain 2.4 --steps 5``, the clear date; two
sets of them side by side.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

from decr_scene.models.data.tone import fit_tone
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.measures.cloud_classes import classify_clouds

HERE = Path(__file__).parent
SCENES = HERE.parents[1] / "sample_scenes"
SIDE, ROWS, GAP = 96, 5, 4
SETTINGS: tuple[dict[str, Any], ...] = ({"weight_floor": 1, "steps": 1}, {}, {"gain": 2.4, "steps": 5})

Pixels = NDArray[np.uint8]


def main() -> None:
    """Restore the scene in three ways, and lay out its cores."""
    cloudy = SCENES / "landsat_cloudy.tif"
    images = [read(cloudy)]
    with tempfile.TemporaryDirectory() as folder:
        for number, settings in enumerate(SETTINGS):
            out = Path(folder, f"{number}.tif")
            process_scene(cloudy, out, model="rice2", **settings)
            images.append(read(out))
    images.append(read(SCENES / "landsat_clear.tif"))
    strips = [strip(images, row, col) for row, col in cores(images[0], images[-1])]
    halves = [np.concatenate(strips[first : first + ROWS]) for first in (0, ROWS)]
    Image.fromarray(np.concatenate(halves, axis=1)).save(HERE / "cores.jpg", quality=92)


def read(path: Path) -> Pixels:
    """Read all bands, ``(H, W, 3)``."""
    with rasterio.open(path) as dataset:
        return np.moveaxis(dataset.read(), 0, 2)


def cores(cloudy: Pixels, clear: Pixels) -> list[tuple[int, int]]:
    """Choose the windows with most opaque cloud that do not overlap, by row and column."""
    one, other = (np.moveaxis(image, 2, 0).astype(np.float32) / 127.5 - 1 for image in (cloudy, clear))
    opaque = classify_clouds(one, fit_tone(one, other).apply(other)).opaque
    half = SIDE // 2
    share = uniform_filter(opaque.astype(np.float32), SIDE)[half:-half, half:-half]
    chosen = []
    for _ in range(2 * ROWS):
        row, col = (int(i) for i in np.unravel_index(share.argmax(), share.shape))
        chosen.append((row, col))
        share[max(0, row - SIDE) : row + SIDE, max(0, col - SIDE) : col + SIDE] = -1
    return chosen


def strip(images: list[Pixels], row: int, col: int) -> Pixels:
    """Cut a window out of all images, side by side, with white around each."""
    frame = (0, GAP), (0, GAP), (0, 0)
    parts = [
        np.pad(image[row : row + SIDE, col : col + SIDE], frame, constant_values=255) for image in images
    ]
    return np.pad(np.concatenate(parts, axis=1), ((0, 0), (0, 3 * GAP), (0, 0)), constant_values=255)


if __name__ == "__main__":
    main()
