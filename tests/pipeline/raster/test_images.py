"""Images to train and measure on: what is valid in them is what a scene would show."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
from raster_cases import draw, plain, write
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine

from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.evaluation.pairs import load_pairs
from decr_scene.pipeline.raster.images import RasterImage, band_roles, read_image
from decr_scene.pipeline.raster.scene import RasterioScene


def holey(path: Path, value: float = np.nan) -> Path:
    """Four bands of floats with 400 values that are none, and no nodata tag."""
    image = draw((64, 96), 4, "float32")
    image[:, 10:20, 30:40] = value
    return write(path, image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_image_has_values_that_are_none(value, tmp_path):
    path = holey(tmp_path / "a.tif", value)
    whole = read_image(path)
    assert np.isfinite(whole).all()
    assert abs(whole[:, 10:20, 30:40].mean() - whole[:, 8:22, 28:42].mean()) < 0.1, "as the pixels around"
    raster = RasterImage.open(path)
    assert np.isfinite(raster.read(0, 20, 30, 40)).all()
    assert np.isfinite(raster.overview(16, 24)).all()
    assert np.isfinite([raster.radiometry.low, raster.radiometry.high]).all()


def test_windows_and_the_whole_have_the_same_scaling(tmp_path):
    path = holey(tmp_path / "a.tif")
    raster = RasterImage.open(path)
    np.testing.assert_array_equal(raster.read(0, 0, 64, 96), read_image(path))


def test_pairs_to_evaluate_have_no_values_that_are_none(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        holey(tmp_path / folder / "a.tif")
    (pair,) = load_pairs(("blue", "green", "red", "nir"), tmp_path, bands="b,g,r,n")
    assert np.isfinite(pair.cloudy).all()
    assert np.isfinite(pair.clear).all()


def test_near_infrared_that_the_file_calls_alpha_is_a_band_and_no_mask(tmp_path):
    image = draw((40, 50), 4, "uint16")
    image[3, :, :10] = 0
    path = write(tmp_path / "a.tif", image)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
        dataset.descriptions = ("blue", "green", "red", "nir")
    shown = read_image(path)
    assert shown.shape == (4, 40, 50)
    assert shown[3, :, :10].max() == -1, "dark, and not filled from around"
    assert band_roles(path) == ("blue", "green", "red", "nir")
    assert band_roles(tmp_path / "none.tif") == ()


def test_a_missing_image_is_told_as_a_missing_scene(tmp_path):
    with pytest.raises(SceneReadError, match="no such file"):
        read_image(tmp_path / "none.tif")


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.average])
def test_a_decimated_scene_is_valid_where_its_nearest_pixels_are(resampling, tmp_path):
    image = draw((80, 60), 2, "uint16")
    image[1, :40] = 7
    scene = RasterioScene.open(write(tmp_path / "a.tif", image, nodata=7))
    pixels, valid = scene.decimated((20, 15), resampling)
    assert pixels.shape == valid.shape == (2, 20, 15)
    assert valid[0].all()
    assert not valid[1, :10].any()
    assert valid[1, 10:].all()
    everything, _ = RasterioScene.open(plain(tmp_path / "b.tif", (80, 60), 1)).decimated((80, 60))
    np.testing.assert_array_equal(everything, rasterio.open(tmp_path / "b.tif").read())


APART, OFF = "no ground in common", "px off .*, expected the same ground"


@pytest.mark.parametrize(
    ("crs", "x", "up", "told"),
    [
        ("EPSG:32650", 200.0, 1, APART),
        ("EPSG:32650", -200.0, 1, APART),
        ("EPSG:32650", 10.0, -1, f"10 {OFF}"),
        ("EPSG:32650", -1.5, -1, f"1.5 {OFF}"),
        ("EPSG:32650", 0.5, 1, f"20 {OFF}"),  # upside down
        ("EPSG:32650", 0.9, -1, None),
        ("EPSG:32650", 1.0, -1, f"1 {OFF}"),
        ("EPSG:4326", 1.0, -1, f"1 {OFF}"),
        ("EPSG:4326", 360.0, -1, None),
        ("EPSG:4326", -725.0, -1, f"5 {OFF}"),
        ("EPSG:4326", 100.0, 1, APART),
    ],
)
def test_images_of_a_pair_whose_pixels_show_other_ground_are_refused(crs, x, up, told, tmp_path):
    paths = []
    for name, left, down in (("cloudy", 0.0, -1), ("clear", x, up)):
        paths.append(tmp_path / f"{name}.tif")
        transform = Affine(1, 0, left, 0, down, 0 if down > 0 else 20)
        write(paths[-1], np.arange(400, dtype=np.uint8).reshape(1, 20, 20), crs=crs, transform=transform)
    for read in (read_image, RasterImage.open):
        with pytest.raises(SceneReadError, match=told) if told else nullcontext():
            read(paths[1], paths[0])
