"""A scene, its mask and restorers, for the tests of what lies beside an output and what is checked of it."""

import numpy as np
import rasterio
from raster_cases import described, write
from test_run import pixels_of

from decr_scene.pipeline import process_scene

CLOUD = (slice(60, 120), slice(150, 200))


def noisy(tiles, noise):
    return tiles + 0.1 * noise


def darker(tiles, noise):
    return tiles - 0.25


def bgrn(tmp_path):
    """Blue, green, red and near-infrared, with a corner of nodata."""
    path = described(tmp_path / "scene.tif", ("blue", "green", "red", "nir"), nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.zeros((4, 40, 50), np.uint16), window=((0, 40), (0, 50)))
    return path


def cloud_mask(tmp_path):
    """Cloud over `CLOUD` of that scene."""
    cloud = np.zeros((1, 300, 280), np.uint8)
    cloud[:, *CLOUD] = 1
    return str(write(tmp_path / "mask.tif", cloud))


def run(scene, mask="none", restorer=darker, **options):
    """Process a scene; gives the report, input, output and classes."""
    out = scene.with_name("clean.tif")
    report = process_scene(scene, out, restorer=restorer, mask=mask, scale=(0, 12000), **options)
    return report, pixels_of(scene), pixels_of(out), pixels_of(out.with_name("clean_provenance.tif"))[0]
