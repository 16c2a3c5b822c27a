"""A raster on the grid of a scene is read as it is; any other is laid over it."""

import numpy as np
import pytest
import rasterio
from raster_cases import NORTH_UP, draw, write
from rasterio.enums import Resampling
from rasterio.transform import Affine
from scipy.ndimage import maximum_filter, minimum_filter

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


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.cubic])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("uint16", 9999), ("float32", np.nan)])
@pytest.mark.parametrize("step", [1, 0.5])
def test_where_one_band_has_nodata_there_is_no_pixel(step, dtype, nodata, resampling, tmp_path):
    """Nor does its value leak into its neighbours; a band that is not asked for has no say."""
    scene = RasterioScene.open(write(tmp_path / "scene.tif", draw((60, 50), 3, "uint8")))
    other = np.full((4, 120, 100), 100, dtype)
    other[2, 20:40, 30:60] = nodata
    other[3, 60:80, 30:60] = nodata
    transform = NORTH_UP @ Affine.translation(0.1, 0.1) @ Affine.scale(step)
    with rasterio.open(write(tmp_path / "date.tif", other, nodata=nodata, transform=transform)) as source:
        pixels, valid = warp.read_on_grid(source, scene, Span(2, 2, 50, 45), [1, 3], resampling)
        _, without = warp.read_on_grid(source, scene, Span(2, 2, 50, 45), [1, 2], resampling)
    assert without.all()
    hole = np.zeros((60, 50), np.bool_)
    hole[round(20 * step) : round(40 * step), round(30 * step) : round(60 * step)] = True
    hole = hole[2:52, 2:47]
    assert not valid[minimum_filter(hole, 3)].any()
    assert valid[~maximum_filter(hole, 5)].all()
    assert (pixels[:, valid] == 100).all()


@pytest.mark.parametrize("west", [-180.15, 179.85])
def test_a_raster_of_the_world_covers_a_scene_across_the_antimeridian(west, tmp_path):
    """Cells of half a degree, numbered by their longitude from -180: 719 before, 0 after the antimeridian."""
    path = write(
        tmp_path / "scene.tif",
        np.zeros((1, 60, 300), "uint8"),
        crs="EPSG:4326",
        transform=Affine(1e-3, 0, west, 0, -1e-3, 10),
    )
    world = np.broadcast_to(np.arange(720, dtype="uint16"), (1, 360, 720))
    mask = write(tmp_path / "world.tif", world, crs="EPSG:4326", transform=Affine(0.5, 0, -180, 0, -0.5, 90))
    with rasterio.open(mask) as source:
        scene, span = RasterioScene.open(path), Span(0, 0, 60, 300)
        (values,), valid = warp.read_on_grid(source, scene, span, [1], Resampling.nearest)
    assert valid.all()
    middles = west + (np.arange(300) + 0.5) * 1e-3
    cells = np.floor(((middles + 180) % 360) * 2).astype(int)
    assert set(cells) == {0, 719}
    np.testing.assert_array_equal(values, np.broadcast_to(cells, values.shape))


@pytest.mark.parametrize("west", [-180.15, 179.85])
@pytest.mark.parametrize(("one", "other"), [("EPSG:4326", "EPSG:4720"), ("EPSG:4720", "EPSG:4326")])
def test_rasters_of_two_datums_meet_across_the_antimeridian(one, other, west, tmp_path):
    pixels, place = np.ones((1, 60, 300), "uint8"), Affine(1e-3, 0, west, 0, -1e-3, 10)
    scene = RasterioScene.open(write(tmp_path / "scene.tif", pixels, crs=one, transform=place))
    beyond = Affine.translation(360 if west < 0 else -360, 0) @ place
    for name, transform in (("same", place), ("beyond", beyond)):
        path = write(tmp_path / f"{name}.tif", pixels, crs=other, transform=transform)
        with rasterio.open(path) as source:
            _, valid = warp.read_on_grid(source, scene, Span(0, 0, 60, 300), [1], Resampling.nearest)
        columns = np.flatnonzero(~valid[:, 2:-2].all(axis=0))
        assert len(columns) <= 15, f"{name}: GDAL interpolates between coordinates, by which some are lost"
