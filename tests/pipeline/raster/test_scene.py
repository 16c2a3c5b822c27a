"""Opening and reading: what a scene says of itself, which band is which, what is valid, what is refused."""

import os
import pickle
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from rasterio.windows import Window

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import BandError, SceneError, SceneNotFoundError, SceneReadError
from decr_scene.pipeline.inputs.bands import ROLES, name_bands, resolve_names, select_bands
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.scene import RasterioScene, gdal_env, open_scene

BGRN = ("blue", "green", "red", "nir")


def shared(name: str) -> Path:
    """A real file of the project's data, or a loud skip."""
    if not SHARED.is_dir():
        pytest.skip(f"NO REAL RASTERS HERE: {SHARED} is not there")
    return SHARED / name


def window(row: int, col: int, height: int, width: int) -> Window:
    return Window(row_off=row, col_off=col, height=height, width=width)


def whole(scene: RasterioScene) -> Window:
    return window(0, 0, *scene.shape)


# -- opening -------------------------------------------------------------------------------------------------


def test_a_scene_says_what_it_is(tmp_path):
    path = cases.described(tmp_path / "a.tif", BGRN, nodata=7, tiled=True, blockxsize=64, blockysize=128)
    with RasterioScene.open(path) as scene:
        assert (scene.shape, scene.count, scene.dtype) == ((300, 280), 4, np.dtype("uint16"))
        assert (scene.bands, scene.nodata, scene.block_shape) == (BGRN, 7, (128, 64))
        assert (scene.crs.to_epsg(), scene.transform) == (32650, cases.NORTH_UP)


def test_opening_reads_no_pixels(tmp_path):
    """A file whose pixels are cut off opens as well as a whole one."""
    path = cases.plain(tmp_path / "a.tif", (600, 600), compress=None)
    os.truncate(path, 4096)
    assert RasterioScene.open(path).shape == (600, 600)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_windows_are_what_rasterio_reads(dtype, tmp_path):
    path = cases.plain(tmp_path / "a.tif", (257, 311), 3, dtype)
    with RasterioScene.open(path) as scene, rasterio.open(path) as plain:
        np.testing.assert_array_equal(scene.read(whole(scene)), plain.read())
        part = window(200, 5, 57, 300)
        np.testing.assert_array_equal(scene.read(part, [3, 1]), plain.read([3, 1], window=part))


def test_a_window_beyond_the_scene_is_our_mistake(tmp_path):
    scene = RasterioScene.open(cases.plain(tmp_path / "a.tif", (20, 30)))
    with pytest.raises(ValueError, match="beyond a scene"):
        scene.read(window(0, 0, 21, 30))
    with pytest.raises(ValueError, match="beyond a scene"):
        scene.read(window(-1, 0, 5, 5))


def test_a_replaced_file_is_opened_anew(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (20, 30))
    old = RasterioScene.open(path)
    path.unlink()
    cases.plain(path, (40, 50))
    assert RasterioScene.open(path).shape == (40, 50)
    old.close()
    with pytest.raises(SceneReadError, match="has changed since it was opened"):
        old.read(whole(old))


def test_a_mask_that_is_added_later_is_seen(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (20, 30), 1, "uint8")
    assert RasterioScene.open(path).always_valid
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.zeros((20, 30), bool))
    assert not RasterioScene.open(path).valid(window(0, 0, 20, 30)).any()


def test_closing_lets_the_file_go(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (20, 30))
    with RasterioScene.open(path) as scene:
        scene.read(whole(scene))
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert str(path) not in links


def _is_link(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


# -- other threads and processes -----------------------------------------------------------------------------


def _mean(scene: RasterioScene, row: int) -> float:
    return float(scene.read(window(row, 0, 10, scene.shape[1])).mean())


def test_threads_read_one_scene_at_once(tmp_path):
    with RasterioScene.open(cases.plain(tmp_path / "a.tif", (400, 300), tiled=True)) as scene:
        rows = list(range(0, 390, 3)) * 4
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda row: _mean(scene, row), rows))
        assert found == [_mean(scene, row) for row in rows]


@pytest.mark.parametrize("method", ["fork", "spawn"])
# Python warns of forking beside threads, which is what is tried here
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_scene_travels_to_another_process(method, tmp_path):
    with RasterioScene.open(cases.plain(tmp_path / "a.tif", (60, 50))) as scene:
        assert pickle.loads(pickle.dumps(scene)) == scene
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            found = list(pool.map(_mean, [scene] * 6, range(6)))
        assert found == [_mean(scene, row) for row in range(6)]


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SceneNotFoundError, match=r"none\.tif: no such file") as caught:
        RasterioScene.open(tmp_path / "none.tif")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, DecrSceneError)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(SceneReadError, match="is a directory"):
        RasterioScene.open(tmp_path)


def test_a_text_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("no raster at all")
    with pytest.raises(SceneReadError, match="not a raster that GDAL reads"):
        RasterioScene.open(tmp_path / "a.tif")


def test_an_archive_is_told_from_a_damaged_raster(tmp_path):
    with zipfile.ZipFile(tmp_path / "delivery.ZIP", "w") as archive:
        archive.writestr("scene.tif", b"")
    with pytest.raises(SceneReadError, match=r"delivery\.ZIP is an archive, expected a raster: unpack it"):
        RasterioScene.open(tmp_path / "delivery.ZIP")


@pytest.mark.parametrize("dtype", ["complex64", "int8", "uint64"])
def test_a_dtype_that_we_do_not_know_is_refused(dtype, tmp_path):
    path = cases.write(tmp_path / "a.tif", np.ones((1, 5, 5), dtype))
    with pytest.raises(SceneError, match=f"pixels are {dtype}, expected one of uint8"):
        RasterioScene.open(path)


def test_bands_of_several_dtypes_are_refused():
    bands = ('<VRTRasterBand dataType="Byte" band="1"/>', '<VRTRasterBand dataType="UInt16" band="2"/>')
    text = f'<VRTDataset rasterXSize="4" rasterYSize="4">{"".join(bands)}</VRTDataset>'
    with pytest.raises(SceneError, match="pixels are uint16, uint8"):
        RasterioScene.open(text)


def test_a_container_of_rasters_is_refused_with_what_is_in_it(tmp_path):
    two = {"red": ("y", "x"), "nir": ("v", "u")}
    path = tmp_path / "a.nc"
    xr.Dataset({name: (dims, np.ones((5, 6), "i2")) for name, dims in two.items()}).to_netcdf(
        path, engine="scipy"
    )
    with pytest.raises(SceneError, match=r'no bands, but the rasters netcdf:.*a\.nc"?:red, netcdf:'):
        RasterioScene.open(path)


def test_an_unreadable_window_is_named():
    scene = RasterioScene.open(shared("odd/truncated_corrupt.tif"))
    with pytest.raises(
        SceneReadError, match=r"truncated_corrupt\.tif: cannot read rows 512 to 600, cols 512"
    ):
        scene.read(window(512, 512, 88, 512))
    assert scene.read(window(0, 0, 100, 100)).shape == (3, 100, 100)


def test_a_png_that_is_cut_off_is_not_read_as_if_whole(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    with rasterio.open(path, "w", driver="PNG", height=64, width=64, count=3, dtype="uint8") as file:
        file.write(noise)
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(SceneReadError, match=r"cut\.png: cannot read rows 0 to 64"):
        RasterioScene.open(path).read(window(0, 0, 64, 64))


# -- valid pixels --------------------------------------------------------------------------------------------


def test_nodata_is_told_apart_by_band(tmp_path):
    pixels = cases.draw((40, 50), 3, "uint16")
    pixels[1, :10] = 0
    with RasterioScene.open(cases.write(tmp_path / "a.tif", pixels, nodata=0)) as scene:
        np.testing.assert_array_equal(scene.valid(whole(scene)), pixels != 0)
        assert not scene.always_valid


@pytest.mark.parametrize("maker", [cases.nan_nodata, cases.nan_without_nodata])
def test_nan_and_infinities_are_never_valid(maker, tmp_path):
    with RasterioScene.open(maker(tmp_path)) as scene:
        pixels = scene.read(whole(scene))
        np.testing.assert_array_equal(scene.valid(whole(scene)), np.isfinite(pixels))


def test_a_float_nodata_is_compared_as_a_float32(tmp_path):
    with RasterioScene.open(cases.lowest_float_nodata(tmp_path)) as scene:
        valid = scene.valid(whole(scene))
        assert not valid[:, :9].any()
        assert valid[:, 9:].all()


def test_nodata_that_the_dtype_cannot_hold_matches_nothing(tmp_path):
    with RasterioScene.open(cases.nodata_out_of_range(tmp_path)) as scene:
        assert scene.nodata in (None, 999)
        assert scene.valid(whole(scene)).all()


@pytest.mark.parametrize("maker", [cases.internal_mask, cases.external_mask])
def test_masks_count_in_all_bands(maker, tmp_path):
    with RasterioScene.open(maker(tmp_path)) as scene, rasterio.open(scene.path) as dataset:
        part = window(90, 30, 200, 500)
        mask = dataset.dataset_mask(window=part) != 0
        np.testing.assert_array_equal(scene.valid(part), np.broadcast_to(mask, (3, 200, 500)))
        assert not mask.all()


def test_alpha_counts_in_all_bands_but_its_own(tmp_path):
    with RasterioScene.open(cases.with_alpha(tmp_path)) as scene:
        assert scene.bands == ("red", "green", "blue", "alpha")
        valid = scene.valid(whole(scene))
        assert not valid[:3, :60].any()
        assert valid[:3, 60:].all()
        assert valid[3].all()


def test_a_near_infrared_band_that_gdal_takes_for_alpha_can_be_called_so(tmp_path):
    """What comes of writing four bytes without saying what they are."""
    pixels = cases.draw((40, 50), 4, "uint8")
    pixels[3, :10] = 0
    path = cases.write(tmp_path / "a.tif", pixels)
    assert RasterioScene.open(path).bands == ("red", "green", "blue", "alpha")
    scene = RasterioScene.open(path, "b,g,r,n")
    assert scene.bands == BGRN
    assert scene.valid(whole(scene)).all()


def test_valid_takes_pixels_that_the_caller_has(tmp_path):
    with RasterioScene.open(cases.nodata_collar(tmp_path)) as scene:
        ones = np.ones((4, 300, 260), "uint16")
        assert scene.valid(whole(scene), ones).all()


# -- which band is which -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (("Blue", "GREEN", " red ", "NIR"), BGRN),
        (("b", "g", "r", "n"), BGRN),
        (("Band 1 (blue)", "Band 2 (green)", "Band 3 (red)", "Band 4 (Near Infrared)"), BGRN),
        (("TOA_blue", "TOA_green", "TOA_red", "TOA_near-infrared"), BGRN),
        (("B02", "B03", "B04", "B08"), BGRN),
        (("B2", "B3", "B4", "B5"), BGRN),
        (("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6"), (*BGRN, "SR_B6")),
        (("B01", "B02", "B03", "B04", "B05", "B08", "B8A"), ("B01", *BGRN[:3], "B05", "nir", "B8A")),
        (("B1", "B2", "B3", "B4"), ("B1", "B2", "B3", "B4")),
        (
            ("coastal", "blue", "green", "yellow", "red", "red edge", "NIR1", "NIR2"),
            ("coastal", "blue", "green", "yellow", "red", "red edge", "nir", "NIR2"),
        ),
        (("coastal_blue", "blue", "green_i", "green"), ("coastal_blue", "blue", "green_i", "green")),
        (("red", "red"), ("red", "red")),
        (("shortwave infrared", "ndvi", None), ("shortwave infrared", "ndvi", "")),
    ],
)
def test_descriptions_are_understood(descriptions, expected):
    assert name_bands(descriptions) == expected


def test_descriptions_come_before_colours():
    colours = ("red", "green", "blue", "alpha")
    assert name_bands(BGRN, colours) == BGRN
    assert name_bands((None, None, None, "nir"), colours) == ("red", "green", "blue", "nir")
    assert name_bands((None,) * 4, colours) == colours


def test_colours_of_near_infrared_are_understood(tmp_path):
    scene = RasterioScene.open(cases.with_colours(tmp_path))
    assert scene.bands == ("blue", "green", "red", "nir", "", "")


def test_four_bands_without_a_name_are_refused_with_a_proposal(tmp_path):
    scene = RasterioScene.open(cases.plain(tmp_path / "a.tif", (9, 9), photometric="MINISBLACK"))
    assert scene.bands == ("", "", "", "")
    with pytest.raises(BandError, match=r"band 1 unnamed.*--bands blue,green,red,nir"):
        resolve_names(scene.bands)
    assert resolve_names(scene.bands, "b,g,r,n") == BGRN
    assert resolve_names(scene.bands, "Red, Green, Blue, near infrared") == ("red", "green", "blue", "nir")


def test_three_bands_without_a_name_are_red_green_blue(tmp_path):
    assert resolve_names(RasterioScene.open(cases.three_grey_bytes(tmp_path)).bands) == (
        "red",
        "green",
        "blue",
    )


def test_one_band_may_be_anything(tmp_path):
    assert resolve_names(RasterioScene.open(cases.plain(tmp_path / "a.tif", (9, 9), 1)).bands) == ("",)


@pytest.mark.parametrize(("option", "told"), [("b,g,r", "names 3 bands"), ("b,g,r,r", "red twice")])
def test_a_wrong_option_is_refused(option, told):
    with pytest.raises(BandError, match=told):
        resolve_names(("",) * 4, option)


def test_models_pick_their_bands():
    assert select_bands(BGRN, ("red", "green", "blue")) == (2, 1, 0)
    with pytest.raises(BandError, match=r"wants the bands red, nir, the scene has red, green, blue: nir is"):
        select_bands(("red", "green", "blue"), ("red", "nir"))
    with pytest.raises(BandError, match="2 bands are called red"):
        select_bands(("red", "red"), ("red",))


@given(st.lists(st.sampled_from(["", "red", "Blue", "nir", "B2", "B5", "red edge", "x", "NIR2"]), max_size=9))
def test_naming_is_stable_and_gives_no_role_twice(descriptions):
    names = name_bands(descriptions)
    assert name_bands(names) == names
    given_by_us = [name for name, text in zip(names, descriptions, strict=True) if name != text]
    assert len(given_by_us) == len(set(given_by_us))
    assert set(given_by_us) <= set(ROLES)


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("scenes/landsat8_cloudy_bgrn.tif", BGRN),
        ("scenes/landsat7_bahamas_rgb.tif", ("red", "green", "blue")),
        ("clear4/ikonos_1m_bgrn.tif", BGRN),
        ("clear4/haiti_5m_bgrn.tif", ("red", "green", "blue", "")),
        ("clear4/naip5m_20170827_rgbn.tif", ("", "", "", "")),
        ("odd/alpha_rgba_uint16.tif", ("blue", "green", "red", "alpha")),
        ("odd/all_nodata_planetscope_u16_4band.tif", BGRN),
    ],
)
def test_real_files_say_their_bands(name, bands):
    assert RasterioScene.open(shared(name)).bands == bands


# -- DataArrays, fingerprints, memory ------------------------------------------------------------------------


def test_a_scene_opens_as_a_lazy_array(tmp_path):
    path = cases.described(tmp_path / "a.tif", BGRN, nodata=3)
    array = open_scene(path, chunks=128)
    assert array.chunks == ((4,), (128, 128, 44), (128, 128, 24))
    assert array.dims == ("band", "y", "x")
    assert array.attrs["long_name"] == BGRN
    assert array.attrs["source"] == str(path)
    assert (array.rio.crs.to_epsg(), array.rio.nodata, array.rio.transform()) == (32650, 3, cases.NORTH_UP)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(array.to_numpy(), dataset.read())
    array.close()


def test_a_fingerprint_tells_contents_apart(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (20, 30))
    before = fingerprint(path)
    assert fingerprint(path) == before
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(path)["sha256_ends"] != before["sha256_ends"]
    with pytest.raises(SceneNotFoundError, match="no such file"):
        fingerprint(tmp_path / "none.tif")


def test_the_cache_is_bounded_once(tmp_path, monkeypatch):
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    scene = RasterioScene.open(cases.plain(tmp_path / "a.tif", (700, 1000), tiled=True, blockysize=256))
    with gdal_env(scene):
        bound = rasterio.env.getenv()["GDAL_CACHEMAX"]
        assert bound == 48 << 20
        with gdal_env():
            assert rasterio.env.getenv()["GDAL_CACHEMAX"] == bound
    wide = RasterioScene.open(cases.plain(tmp_path / "b.tif", (16, 20_000), tiled=True, blockysize=256))
    with gdal_env(wide):
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == (16 << 20) + 2 * 256 * 20_000 * 4 * 2
