"""Masks of others: what their values mean is understood, or asked for."""

import numpy as np
import pytest
import rasterio
from raster_cases import plain, write
from test_run import pixels_of, to_zero

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import MaskError, OptionError
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import lies_elsewhere
from decr_scene.pipeline.regions.mask_values import Values
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.tiling.grid import Span

SHAPE = (40, 50)
UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "unusable_data")


@pytest.fixture
def ground(tmp_path):
    return RasterioScene.open(plain(tmp_path / "scene.tif", SHAPE, 1))


def painted(path, stripes, dtype="uint8", names=None, **profile):
    """A mask with a stripe of each value in turn, from the left."""
    pixels = np.array(stripes, dtype)
    pixels = pixels.reshape(-1, pixels.shape[-1]).repeat(10, axis=1)[:, None].repeat(SHAPE[0], axis=1)
    path = write(path, np.ascontiguousarray(pixels), **profile)
    if names is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = names
    return path


def cloudy_stripes(path, scene, values=None):
    found = MaskFile.read(str(path), scene, values).cloud(Span(0, 0, *SHAPE))
    assert (found == found[:1]).all()
    return found[0, ::10].astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "dtype", "stripes", "cloudy"),
    [
        ("T33UVP_20240315T101010_SCL_20m.tif", "uint8", [4, 3, 8, 11, 10], [0, 1, 1, 0, 1]),
        ("T33_SCL.tif", "uint8", [0, 4, 5, 6, 9], [0, 0, 0, 0, 1]),
        ("L2A_MSK_CLDPRB_20m.tif", "uint8", [0, 20, 49, 50, 100], [0, 0, 0, 1, 1]),
        ("QA60.tif", "uint16", [0, 1024, 2048, 3072, 0], [0, 1, 1, 1, 0]),
        ("LC09_T1_QA_PIXEL.TIF", "uint16", [1, 21824, 22280, 23888, 54596], [0, 0, 1, 1, 1]),
        ("LC08_01_T1_BQA.TIF", "uint16", [1, 2720, 2800, 2976, 6816], [0, 0, 1, 1, 1]),
        ("LC08_pixel_qa.tif", "uint16", [1, 322, 324, 328, 480], [0, 0, 0, 1, 1]),
        ("20190315_3B_AnalyticMS_DN_udm.tif", "uint8", [0, 1, 2, 0, 66], [0, 0, 1, 0, 1]),
        ("HLS.L30.T11SQA.2024015T181000.v2.0.Fmask.tif", "uint8", [64, 66, 72, 96, 80], [0, 1, 1, 0, 0]),
        ("LC08_Fmask4.tif", "uint8", [0, 1, 2, 3, 4], [0, 0, 1, 0, 1]),
        ("ga_ls8c_oa_fmask.tif", "uint8", [1, 2, 3, 4, 5], [0, 1, 1, 0, 0]),
        ("SENTINEL2A_CLM_R1.tif", "uint8", [0, 3, 33, 0, 128], [0, 1, 1, 0, 1]),
        ("LC80_fixedmask.tif", "uint8", [0, 64, 128, 192, 255], [0, 1, 0, 1, 1]),
        ("mask.tif", "uint16", [21824, 22280, 21952, 1, 0], [0, 1, 0, 0, 0]),  # told by the values alone
        ("mask.tif", "uint8", [0, 1, 2, 3, 0], [0, 1, 1, 1, 0]),
        ("mask.tif", "uint8", [0, 255, 0, 255, 0], [0, 1, 0, 1, 0]),
        ("mask.tif", "int16", [0, -1, 0, -1, 0], [0, 1, 0, 1, 0]),
        ("mask.tif", "uint8", [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
        ("mask.tif", "float32", [0, 0.4, 0.5, 0.9, np.nan], [0, 0, 1, 1, 0]),
        ("mask.tif", "float32", [0, np.inf, 0.5, -np.inf, 1], [0, 0, 1, 0, 1]),
        ("mask.tif", "float32", [0, 1, 2, 1, 0], [0, 1, 1, 1, 0]),
    ],
)
def test_a_mask_that_is_understood(name, dtype, stripes, cloudy, ground, tmp_path):
    assert cloudy_stripes(painted(tmp_path / name, stripes, dtype), ground) == cloudy


@pytest.mark.parametrize(
    ("name", "dtype", "stripes"),
    [
        ("mask.tif", "uint8", [4, 4, 4, 9, 9]),
        ("mask.tif", "uint8", [4, 4, 4, 4, 4]),
        ("mask.tif", "uint8", [0, 4, 5, 9, 8]),
        ("mask.tif", "uint8", [1, 2, 1, 2, 1]),
        ("mask.tif", "uint8", [0, 1, 255, 0, 1]),
        ("mask.tif", "uint8", [0, 20, 40, 60, 100]),
        ("mask.tif", "float32", [0, 20.5, 40, 60, 100]),
        ("mask.tif", "float32", [0, 1, -9999, 0, 1]),
        ("t_SCL.tif", "uint8", [0, 1, 0, 1, 0]),
        ("t_SCL.tif", "uint8", [4, 5, 12, 200, 9]),
        ("Fmask.tif", "uint8", [1, 2, 3, 4, 4]),  # of two that share the name
        ("x_udm2_clear.tif", "uint8", [0, 1, 0, 1, 0]),
        ("x_QA_PIXEL.tif", "uint16", [0, 1, 2, 3, 4]),
    ],
)
def test_a_mask_that_nobody_can_tell_is_refused(name, dtype, stripes, ground, tmp_path):
    mask = painted(tmp_path / name, stripes, dtype)
    with pytest.raises(MaskError, match="--mask-values"):
        MaskFile.read(str(mask), ground)
    assert cloudy_stripes(mask, ground, "9") == [int(value == 9) for value in stripes]


def test_complex_numbers_are_no_mask(ground, tmp_path):
    mask = write(tmp_path / "mask.tif", np.ones((1, *SHAPE), np.complex64))
    with pytest.raises(MaskError, match="complex"):
        MaskFile.read(str(mask), ground)


# -- several bands -------------------------------------------------------------------------------------------

CLEAR_LEFT = [[1, 1, 0, 0, 0], [0] * 5, [0, 0, 1, 0, 0], [0] * 5, [0] * 5, [0, 0, 0, 1, 1], [80] * 5, [0] * 5]


@pytest.mark.parametrize(("name", "names"), [("m.tif", UDM2), ("3B_udm2_clip.tif", None)])
def test_a_usable_data_mask(name, names, ground, tmp_path):
    assert cloudy_stripes(painted(tmp_path / name, CLEAR_LEFT, names=names), ground) == [0, 0, 1, 1, 1]


def test_bands_are_told_by_their_names(ground, tmp_path):
    stripes = [[200, 3, 40, 5, 9], [0, 1, 0, 1, 0], [9, 8, 7, 6, 5]]
    mask = painted(tmp_path / "m.tif", stripes, names=("red", "cloud mask", "cloud top height"))
    assert cloudy_stripes(mask, ground) == [0, 1, 0, 1, 0]


def test_a_band_of_clear_ground_is_the_other_way_round(ground, tmp_path):
    mask = painted(tmp_path / "m.tif", [1, 1, 0, 0, 1], names=("clear",))
    assert cloudy_stripes(mask, ground) == [0, 0, 1, 1, 0]
    everywhere = painted(tmp_path / "all.tif", [0, 0, 0, 0, 0], names=("clear",))
    assert cloudy_stripes(everywhere, ground) == [1, 1, 1, 1, 1]


def test_each_band_has_its_own_nodata(ground, tmp_path):
    mask = painted(
        tmp_path / "m.tif", [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], names=("cloud", "shadow"), nodata=0
    )
    assert cloudy_stripes(mask, ground) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("names", [None, ("clear", "water"), ("", "cloud")])
def test_bands_that_nobody_can_tell_are_refused(names, ground, tmp_path):
    mask = painted(tmp_path / "m.tif", [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], names=names)
    with pytest.raises(MaskError, match=r"2 bands.*--mask-values 2:1"):
        MaskFile.read(str(mask), ground)
    with pytest.raises(MaskError, match="2 bands"):
        MaskFile.read(str(mask), ground, "1")
    with pytest.raises(MaskError, match="no band 3"):
        MaskFile.read(str(mask), ground, "3:1")
    assert cloudy_stripes(mask, ground, "2:1") == [0, 1, 0, 1, 0]


# -- what a user says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cloudy"),
    [
        ("3,8-10", [3, 8, 9, 10]),
        ("bit1", [2, 3, 6, 7, 10, 11]),
        ("bit2-3, 0", [0, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("-5--1", [-1]),
        ("2.5-3.5", [3]),
    ],
)
def test_values_that_a_user_names(text, cloudy):
    numbers = np.arange(-1, 12)
    assert [int(n) for n in numbers[Values.parse(text).hold(numbers)] if n >= 0 or n in cloudy] == cloudy


@pytest.mark.parametrize("text", ["", "cloud", "3,,4", "9-3", "bit4-2", "bit40", "3;4", "2:", "x:3"])
def test_values_that_say_nothing_are_refused(text):
    with pytest.raises(OptionError, match="mask_values"):
        inspect_scene("no.tif", mask="m.tif", mask_values=text)


def test_values_need_a_mask():
    with pytest.raises(OptionError, match="mask is auto"):
        inspect_scene("no.tif", mask_values="3")


def test_values_that_are_nodata_or_bits_of_fractions_are_refused(ground, tmp_path):
    with pytest.raises(MaskError, match="nodata"):
        MaskFile.read(str(painted(tmp_path / "a.tif", [0, 1, 2, 3, 4], nodata=4)), ground, "3-5")
    with pytest.raises(MaskError, match="no bits"):
        MaskFile.read(str(painted(tmp_path / "b.tif", [0, 1, 2, 3, 4], "float32")), ground, "bit1")


# -- whole runs ----------------------------------------------------------------------------------------------


def test_what_a_mask_was_taken_for_stands_in_the_report(ground, tmp_path):
    mask = painted(tmp_path / "t_SCL.tif", [4, 4, 4, 4, 9])
    report = process_scene(ground.path, tmp_path / "out.tif", restorer=to_zero, mask=str(mask))
    assert report.mask == "Sentinel-2 SCL, cloud is 3,8-10"
    changed = (pixels_of(tmp_path / "out.tif") != pixels_of(ground.path))[0]
    assert changed[:, 40:].mean() > 0.9
    assert not changed[:, :8].any()
    again = {"mask": str(mask), "mask_values": "4", "overwrite": True}
    report = process_scene(ground.path, tmp_path / "out.tif", restorer=to_zero, **again)
    assert report.parameters["mask_values"] == "4"
    assert (pixels_of(tmp_path / "out.tif") != pixels_of(ground.path))[0, :, :8].mean() > 0.9


def test_a_mask_that_does_not_touch_the_scene_is_refused(ground, tmp_path):
    far = rasterio.Affine.translation(100_000, 0) @ ground.transform
    for mask in (
        painted(tmp_path / "far.tif", [1] * 5, transform=far),
        painted(tmp_path / "nodata.tif", [1] * 5, nodata=1),
    ):
        with pytest.raises(MaskError, match=r"^mask \S+ says nothing of the scene"):
            process_scene(ground.path, tmp_path / "out.tif", restorer=to_zero, mask=str(mask))
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("shift", [0, 100_000])
def test_a_mask_of_another_place_is_not_laid_on_a_scene_that_points_place(shift, ground, tmp_path):
    with rasterio.open(ground.path) as scene:
        profile = {**scene.profile, "transform": None, "crs": None}
        corners = [(row, col, *(scene.transform @ (col, row))) for row in (0, 50) for col in (0, 40)]
        points = [rasterio.control.GroundControlPoint(*corner) for corner in corners]
        pixels, crs = scene.read(), scene.crs
    with rasterio.open(tmp_path / "points.tif", "w", **profile) as placed:
        placed.write(pixels)
        placed.gcps = points, crs
    moved = rasterio.Affine.translation(shift, 0) @ ground.transform
    mask = painted(tmp_path / "mask.tif", [1] * 5, transform=moved)
    call = {"restorer": to_zero, "mask": str(mask)}
    if shift:
        with pytest.raises(
            MaskError, match=r"^mask \S+ lies elsewhere than the scene, by its coordinates and"
        ):
            process_scene(tmp_path / "points.tif", tmp_path / "out.tif", **call)
        return
    process_scene(tmp_path / "points.tif", tmp_path / "out.tif", **call)
    assert (pixels_of(tmp_path / "out.tif") != pixels).any()


@pytest.mark.parametrize(("west", "refused"), [(190.0, False), (-170.0, False), (-160.0, True)])
def test_longitudes_of_points_and_masks_may_be_turns_apart(west, refused, tmp_path):
    corners = [(row, col, 190 + col / 1000, 10 - row / 1000) for row in (0, 40) for col in (0, 50)]
    points = [rasterio.control.GroundControlPoint(*corner) for corner in corners]
    path = plain(tmp_path / "points.tif", SHAPE, 1)
    with rasterio.open(path) as scene:
        pixels, profile = scene.read(), {**scene.profile, "transform": None, "crs": "EPSG:4326"}
    with rasterio.open(path, "w", **profile, gcps=points) as scene:
        scene.write(pixels)
    place = rasterio.Affine(1e-3, 0, west, 0, -1e-3, 10)
    mask = painted(tmp_path / "mask.tif", [1] * 5, transform=place, crs="EPSG:4326")
    with rasterio.open(mask) as source, RasterioScene.open(path) as scene:
        assert lies_elsewhere(source, scene) == refused


def test_a_mask_of_a_part_or_without_cloud_is_told(ground, tmp_path):
    half = rasterio.Affine.translation(25 * ground.transform.a, 0) @ ground.transform
    mask = painted(tmp_path / "half.tif", [0] * 5, transform=half)
    covered, unchanged = inspect_scene(ground.path, restorer=to_zero, mask=str(mask))["warnings"]
    assert "50.0 % of the scene" in covered
    assert "nothing will change" in unchanged
