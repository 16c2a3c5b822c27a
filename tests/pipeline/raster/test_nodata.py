"""What is nodata: GDAL's answer, for pixels of a file and those in memory; and a scaling that cannot be."""

from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from decr_scene.pipeline.engine.graph import restore
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.raster.nodata import is_nodata, off_nodata
from decr_scene.pipeline.raster.scaling import Fit, fit_radiometry
from decr_scene.pipeline.raster.scene import RasterioScene, open_scene
from decr_scene.pipeline.run import process_scene

LOWEST = float(np.finfo(np.float32).min)


def masked(path: Path) -> NDArray[np.bool_]:
    """What GDAL calls valid."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read_masks() != 0)


def with_collar(path: Path, value: float, nodata: float | None, dtype: str = "float32") -> Path:
    pixels = cases.draw((96, 112), 4, dtype) * 1000 + 300
    pixels[:, :, :40] = value
    return cases.write(path, pixels.astype(dtype), nodata=nodata)


ROUNDED = {
    "seven digits": (LOWEST, -3.402823e38, "float32"),
    "the greatest float": (-LOWEST, 3.4028235e38, "float32"),
    "float32 in float64": (float(np.float32(-1e30)), -1e30, "float64"),
    "a tenth": (float(np.float32(-999.9)), -999.9, "float32"),
    "far from full precision": (-32767.999, -32768.0, "float32"),
    "infinity": (np.inf, np.inf, "float32"),
    "nothing but NaN": (np.nan, np.nan, "float64"),
}


@pytest.mark.parametrize("kind", ROUNDED)
def test_a_rounded_nodata_value_is_what_gdal_takes_it_for(kind, tmp_path):
    value, nodata, dtype = ROUNDED[kind]
    path = with_collar(tmp_path / "a.tif", value, nodata, dtype)
    scene = RasterioScene.open(path)
    whole = rasterio.windows.Window(0, 0, 112, 96)
    assert not masked(path)[:, :, :40].any()
    np.testing.assert_array_equal(scene.valid(whole), masked(path))
    pixels = scene.read(whole)
    np.testing.assert_array_equal(~is_nodata(pixels, scene.nodata) & np.isfinite(pixels), masked(path))


@pytest.mark.parametrize("kind", ROUNDED)
def test_a_collar_of_it_leaves_the_scene_whole(kind, tmp_path):
    value, nodata, dtype = ROUNDED[kind]
    path, clean = with_collar(tmp_path / "a.tif", value, nodata, dtype), tmp_path / "clean.tif"
    report = process_scene(path, clean, restorer=lambda tiles, noise: tiles * 0.5, mask="none")
    assert all(report.checks.values())
    assert np.abs(list(report.scaling.values())).max() < 1e6
    np.testing.assert_array_equal(masked(clean), masked(path))
    with rasterio.open(path) as one, rasterio.open(clean) as other:
        before, after = one.read(), other.read()
    assert before[:, :, :40].tobytes() == after[:, :, :40].tobytes()
    assert np.abs(after[:, :, 40:]).max() < 1e6
    assert (before != after)[:, :, 40:].mean() > 0.9


def test_an_array_knows_it_as_well(tmp_path):
    path = with_collar(tmp_path / "a.tif", LOWEST, -3.402823e38)
    clean = restore(open_scene(path), restorer=lambda tiles, noise: tiles * 0.5).compute()
    assert (clean[:, :, :40] == LOWEST).all()
    assert np.abs(clean[:, :, 40:]).max() < 1e6


@given(
    st.sampled_from(["float32", "float64", "uint8", "int16", "uint16", "int32"]),
    st.sampled_from([0.0, 0.1, 7.0, 254.0, 254.7, 1000.0, -9999.0, -3.402823e38, 1e-30]),
    st.integers(-12, 12),
)
def test_the_rule_is_that_of_gdal(dtype, nodata, digits):
    info = np.iinfo(dtype) if np.dtype(dtype).kind != "f" else None
    if info is not None and not info.min <= nodata <= info.max:
        return
    near = nodata * (1 + digits * 4e-8) if info is None else np.clip(int(nodata) + digits, info.min, info.max)
    with np.errstate(over="ignore"):
        pixels = np.array([[[near, 0, 1]]]).astype(dtype)
    with rasterio.MemoryFile() as memory:
        shape = {"count": 1, "height": 1, "width": 3, "dtype": dtype, "nodata": nodata}
        with memory.open(driver="GTiff", **shape, transform=cases.NORTH_UP) as dataset:
            dataset.write(pixels)
        with memory.open() as dataset:
            found, told = dataset.read_masks() == 0, dataset.nodata
    np.testing.assert_array_equal(is_nodata(pixels, told), found)


@given(st.sampled_from(["float32", "float64"]), st.floats(-1e30, 1e30))
def test_what_falls_on_nodata_is_moved_off_it_and_not_far(dtype, nodata):
    pixels = np.full((1, 1, 2), nodata, dtype)
    moved = off_nodata(pixels, nodata)
    assert not is_nodata(moved, nodata).any()
    assert (np.abs(moved - pixels) <= 1e-5 * np.abs(pixels) + 1e-30).all()


# -- masks that are no nodata value --------------------------------------------------------------------------


def nodata_values(folder: Path) -> Path:
    path = cases.plain(folder / "a.tif", (40, 50), 3, "uint8")
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, :10], pixels[0, 10:20] = 0, 0
        dataset.write(pixels)
        dataset.update_tags(NODATA_VALUES="0 0 0")
    return path


def mask_of_a_vrt(folder: Path) -> Path:
    path, mask = cases.plain(folder / "a.tif", (40, 50), 3), np.full((1, 40, 50), 255, np.uint8)
    mask[:, :, :20] = 0
    cases.write(folder / "m.tif", mask)
    rasterio.shutil.copy(path, folder / "a.vrt", driver="VRT")
    text = (folder / "a.vrt").read_text()
    band = (
        f'<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename>{folder}/m.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></MaskBand>"
    )
    (folder / "a.vrt").write_text(text.replace("</VRTDataset>", band + "</VRTDataset>"))
    return folder / "a.vrt"


def mask_and_nodata(folder: Path) -> Path:
    path = cases.plain(folder / "a.tif", (40, 50), 3, nodata=7)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        inside = np.ones((40, 50), bool)
        inside[:10] = False
        dataset.write_mask(inside)
    return path


@pytest.mark.parametrize("make", [nodata_values, mask_of_a_vrt, mask_and_nodata])
def test_a_mask_of_another_kind_is_gdals_too(make, tmp_path):
    path = make(tmp_path)
    scene = RasterioScene.open(path)
    valid = scene.valid(rasterio.windows.Window(0, 0, 50, 40))
    np.testing.assert_array_equal(valid, masked(path))
    assert not valid.all()
    report = process_scene(path, tmp_path / "o.tif", restorer=lambda tiles, noise: tiles * 0.5, mask="none")
    assert all(report.checks.values())
    np.testing.assert_array_equal(masked(tmp_path / "o.tif"), masked(path))


def test_nodata_beside_a_mask_counts_as_well(tmp_path):
    """GDAL then knows the mask alone, but nobody means such pixels for ground."""
    path = mask_and_nodata(tmp_path)
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 30] = 7
        dataset.write(pixels)
    valid = RasterioScene.open(path).valid(rasterio.windows.Window(0, 0, 50, 40))
    assert not valid[:, 30].any()
    assert not valid[:, :10].any()
    assert valid[:, 11:30].all()


# -- a scaling that cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "share"), [(LOWEST, 0.3), (-1e10, 0.3), (-1e10, 0.7), (1e20, 0.01), (-(2**31), 0.3)]
)
def test_a_span_in_which_the_ground_is_nothing_is_refused(value, share):
    values = np.random.default_rng(0).random((1, 1000)).astype(np.float32) * 0.3
    values[0, : int(1000 * share)] = value
    with pytest.raises(SceneError, match=r"band 1 has valid values from .* -a_nodata, or give --scale"):
        fit_radiometry(values.dtype, 1, values, np.ones(values.shape, bool), Fit())


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(0, 2, (1, 9999)),
        np.linspace(-3e4, 6e4, 9999)[None],
        np.where(np.arange(9999) < 8000, 0, 1200.0)[None],
        np.full((1, 9999), 4e9),
        np.full((1, 9999), 1e-20),
    ],
)
def test_wide_and_narrow_ground_is_not(values):
    radiometry = fit_radiometry(values.dtype, 1, values, np.ones(values.shape, bool), Fit())
    assert radiometry.low[0] < radiometry.high[0]


def test_an_undeclared_collar_is_refused_in_one_line_before_any_work(tmp_path):
    path = with_collar(tmp_path / "a.tif", LOWEST, None)
    with pytest.raises(SceneError, match="declare it"):
        process_scene(path, tmp_path / "o.tif", restorer=lambda tiles, noise: tiles, mask="none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif"]


def test_half_of_the_values_at_one_place_are_told_as_one():
    values = np.full((1, 400), 1e30, np.float32)
    with pytest.raises(SceneError, match=r"half of them about 1e\+30: some must be nodata"):
        fit_radiometry(np.dtype("float32"), 1, values, values > 0, Fit())
