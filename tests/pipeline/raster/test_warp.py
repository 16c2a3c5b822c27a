"""A raster on the grid of a scene is read as it is; any other is laid over it."""

import numpy as np
import pytest
import rasterio
from raster_cases import NORTH_UP, draw, write
from rasterio.enums import Resampling
from rasterio.transform import Affine

from decr_scene.pipeline.raster import warp
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span

SPAN = Span(3, 5, 40, 31)


def read(path, scene, resampling=Resampling.nearest):
    with rasterio.open(path) as source:
        (values,), valid = warp.read_on_grid(source, scene, SPAN, [1], resampling)
    return np.where(valid, values, 0), valid


def refuse(*_, **__):
    raise AssertionError("warped")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", None), ("uint8", 0), ("int16", -7), ("float32", np.nan)]
)
def test_a_mask_on_the_grid_of_its_scene_is_read_without_a_warp(dtype, nodata, tmp_path, monkeypatch):
    scene = RasterioScene.open(write(tmp_path / "scene.tif", draw((60, 50), 3, "uint8")))
    mask = draw((60, 50), 1, dtype)
    if nodata is not None:
        mask[:, 10:20, 8:30] = nodata
    path = write(tmp_path / "mask.tif", mask, nodata=nodata)
    with monkeypatch.context() as patch:
        patch.setattr(warp, "_has_its_pixels", lambda *_: False)
        warped = read(path, scene)
    monkeypatch.setattr(warp, "WarpedVRT", refuse)
    for found, expected in zip(read(path, scene), warped, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert warped[1].all() == (nodata is None)


@pytest.mark.parametrize(
    ("bands", "shift", "resampling"),
    [(2, 0, Resampling.nearest), (1, 1, Resampling.nearest), (1, 0, Resampling.cubic)],
)
def test_bands_that_share_an_alpha_another_place_and_cubic_values_are_warped(
    bands, shift, resampling, tmp_path, monkeypatch
):
    scene = RasterioScene.open(write(tmp_path / "scene.tif", draw((60, 50), 3, "uint8")))
    moved = NORTH_UP @ Affine.translation(shift, 0)
    path = write(tmp_path / "mask.tif", draw((60, 50), bands, "uint8"), transform=moved)
    monkeypatch.setattr(warp, "WarpedVRT", refuse)
    with pytest.raises(AssertionError, match="warped"):
        read(path, scene, resampling)
