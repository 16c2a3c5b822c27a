"""Images to train and measure on: what is valid in them is what a scene would show."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
from raster_cases import draw, plain, write
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.warp import transform as to_crs

from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.evaluation.pairs import load_pairs
from decr_scene.pipeline.raster.images import RasterImage, band_roles, read_image
from decr_scene.pipeline.raster.scaling import LEAST_SIDE
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


APART, OFF = "no ground in common", "px off .* on another grid.* expected the same ground"


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


CORNERS = ((0, 0), (0, 64), (64, 0), (64, 64))
GRID = tuple((row, col) for row in (0, 32, 64) for col in (0, 32, 64))
INNER = tuple((20 + row // 4, 20 + col // 4) for row, col in GRID)


def placed(path, crs, corner=(5e5, 4e6), side=10.0, points=(), wrong=0.0):
    """64 x 64 px from a corner on, by GCPs at these pixels, the last by so many px in the wrong place."""
    transform = Affine(side, 0, corner[0], 0, -side, corner[1])
    pixels = np.tile(np.arange(64, dtype=np.uint8), (1, 64, 1))
    if not points:
        return write(path, pixels, crs=crs, transform=transform)
    found = [GroundControlPoint(row, col, *(transform @ (col, row))) for row, col in points]
    found[-1].x += wrong * side
    return write(path, pixels, crs=crs, transform=None, gcps=found)


def refusal_of(clear, cloudy):
    """What both readers say of a pair, or ``None``."""
    told = []
    for read in (read_image, RasterImage.open):
        try:
            read(clear, cloudy)
            told.append(None)
        except SceneReadError as error:
            told.append(str(error))
    assert told[0] == told[1]
    return told[0]


@pytest.mark.parametrize(
    ("cloudy", "clear", "off", "refused"),
    [
        (GRID, GRID, 0, False),
        (GRID, GRID, 0.9, False),
        (GRID, GRID, 3, True),
        (GRID, (), 0.9, False),  # one of them has a transform
        ((), GRID, -3, True),
        (INNER, GRID, 3, True),
        (CORNERS, GRID, 3, False),  # so few that wrong ones fit, too
        (GRID, ((0, 0), (20, 20), (64, 64)), 3, False),
        (GRID, ((0, 0), (64, 64)), 3, False),
        (GRID[:6], GRID[6:], 3, False),
        (tuple((row // 4, col // 4) for row, col in GRID), INNER, 3, False),  # no pixel among both
    ],
)
def test_images_of_a_pair_that_points_place_elsewhere_are_refused(cloudy, clear, off, refused, tmp_path):
    first = placed(tmp_path / "cloudy.tif", "EPSG:32650", points=cloudy)
    second = placed(tmp_path / "clear.tif", "EPSG:32650", (5e5 + 10 * off, 4e6), points=clear)
    told = refusal_of(second, first)
    assert (told is not None) == refused, told
    if told is not None:
        assert f"by ground control points it lies {abs(off)} px off" in told
        assert "on another grid, expected the same ground in every pixel" in told


def test_points_that_contradict_each_other_refuse_no_pair(tmp_path):
    points = (*CORNERS, (32, 30), (16, 48), (10, 25))
    first = placed(tmp_path / "cloudy.tif", "EPSG:32650", points=(*points, (48, 20)), wrong=8)
    second = placed(tmp_path / "clear.tif", "EPSG:32650", (5e5 + 20, 4e6), points=points)
    assert refusal_of(second, first) is None


def test_points_that_are_a_little_wrong_refuse_no_pair(tmp_path):
    """By a pixel and a half of 25 points, and one of them anywhere."""
    plain, rng = placed(tmp_path / "plain.tif", "EPSG:32650", side=1.0), np.random.default_rng(0)
    grid = [(row, col) for row in range(0, 65, 16) for col in range(0, 65, 16)]
    for noise, wild in ((1.5, False), (1.5, True), (0.0, True)):
        pixels = np.tile(np.arange(64, dtype=np.uint8), (1, 64, 1))
        found = [
            GroundControlPoint(r, c, 5e5 + c + rng.normal(0, noise), 4e6 - r + rng.normal(0, noise))
            for r, c in grid
        ]
        found[7].x += 1e6 * wild
        points = write(tmp_path / f"{noise}_{wild}.tif", pixels, crs="EPSG:32650", transform=None, gcps=found)
        assert refusal_of(plain, points) is None
        assert refusal_of(points, plain) is None


def like_in(path, crs, corner, side=10.0, off=0.0):
    """An image of 64 x 64 px in another CRS with about the corner and width of one in UTM, some px off."""
    far = (corner[0] + 64 * side, corner[1] - 64 * side)
    xs, ys = to_crs(CRS.from_epsg(32650), CRS.from_string(crs), *zip(corner, far, strict=True))
    across, down = (xs[1] - xs[0]) / 64, (ys[1] - ys[0]) / 64
    transform = Affine(across, 0, xs[0] + off * across, 0, down, ys[0])
    return write(path, np.tile(np.arange(64, dtype=np.uint8), (1, 64, 1)), crs=crs, transform=transform)


MIDDLE, RIM = (499_680.0, 4e6), (740_000.0, 4.9e6)
"""Corners in UTM where north is up, and where it is 2 degrees to the side."""


@pytest.mark.parametrize(
    ("crs", "corner", "side", "off", "refused"),
    [
        ("EPSG:4326", MIDDLE, 10, 0, False),
        ("EPSG:4326", MIDDLE, 10, 3, True),
        ("EPSG:4326", RIM, 10, 0, True),  # grids that are turned do not coincide
        ("EPSG:4326", RIM, 0.1, 0.0, True),
        ("EPSG:3857", MIDDLE, 10, 0, False),
        ("EPSG:3857", MIDDLE, 10, 40, True),
        ("EPSG:4490", MIDDLE, 10, 0.5, False),  # China's, by satellites too
        ("EPSG:4490", MIDDLE, 10, 3, True),
        ("EPSG:4490", MIDDLE, 0.5, 3, False),  # a metre and a half, which two datums may differ by
        ("EPSG:4214", MIDDLE, 10, 40, False),  # one of 1954, of which nobody knows to hundreds of metres
        ("EPSG:4214", MIDDLE, 100, 40, True),
    ],
)
def test_pairs_in_two_crs_are_compared_on_the_ground(crs, corner, side, off, refused, tmp_path):
    cloudy = placed(tmp_path / "cloudy.tif", "EPSG:32650", corner, side)
    clear = like_in(tmp_path / "clear.tif", crs, corner, side, off)
    told, turned_round = refusal_of(clear, cloudy), refusal_of(cloudy, clear)
    assert (told is not None) == (turned_round is not None) == refused, (told, turned_round)
    if told is not None:
        assert f"on another grid (it is in {crs}, that one in EPSG:32650)" in told


@pytest.mark.parametrize("turns", [0, 1, -2])
def test_longitudes_of_a_pair_in_two_crs_may_be_turns_apart(turns, tmp_path):
    x, y = 500_000.0, 4e6
    utm = placed(tmp_path / "utm.tif", "EPSG:32660", (x - 320, y))
    xs, ys = to_crs(CRS.from_epsg(32660), CRS.from_epsg(4326), [x - 320, x + 320], [y, y - 640])
    across, down = (xs[1] - xs[0]) / 64, (ys[1] - ys[0]) / 64
    transform = Affine(across, 0, xs[0] + 360 * turns, 0, down, ys[0])
    pixels = np.tile(np.arange(64, dtype=np.uint8), (1, 64, 1))
    degrees = write(tmp_path / "degrees.tif", pixels, crs="EPSG:4326", transform=transform)
    assert refusal_of(degrees, utm) is None
    assert refusal_of(utm, degrees) is None


def test_images_that_points_place_are_scaled_as_those_with_a_transform(tmp_path):
    pixels = draw((LEAST_SIDE, LEAST_SIDE), 3, "uint16") // 4 + 6000  # no dark place: all may be under a veil
    by_grid = write(tmp_path / "grid.tif", pixels, transform=Affine(2, 0, 5e5, 0, -2, 4e6), photometric="RGB")
    side = LEAST_SIDE
    corners = ((0, 0), (0, side), (side, 0), (side, side))
    points = [GroundControlPoint(row, col, 5e5 + 2 * col, 4e6 - 2 * row) for row, col in corners]
    by_points = write(tmp_path / "points.tif", pixels, transform=None, gcps=points, photometric="RGB")
    nowhere = write(tmp_path / "nowhere.tif", pixels, transform=None, crs=None, photometric="RGB")
    np.testing.assert_array_equal(read_image(by_points), read_image(by_grid))
    assert (read_image(nowhere) != read_image(by_grid)).any()
