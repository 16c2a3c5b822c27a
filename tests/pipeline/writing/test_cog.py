"""The finished file: how it is compressed, its statistics, its overviews."""

import numpy as np
import pytest
import raster_cases as cases
import rasterio
import rasterio.shutil
from rasterio.windows import Window
from writer_cases import copy, pixels_of

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.raster.scene import RasterioScene

# -- compression and size ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("deflate", "DEFLATE"), ("lzw", "LZW"), ("zstd", "ZSTD"), ("lzma", "LZMA"), ("packbits", "DEFLATE")],
)
def test_compression_is_the_inputs(stored, expected, tmp_path):
    source = cases.plain(tmp_path / "scene.tif", (300, 280), compress=stored)
    with rasterio.open(copy(source, tmp_path / "out.tif")) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == expected


def test_compression_can_be_chosen(tmp_path):
    source = cases.lossy(tmp_path)
    for asked in ("zstd", "none", "auto"):
        with rasterio.open(copy(source, tmp_path / f"{asked}.tif", compress=asked)) as dataset:
            found = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "NONE")
        assert found == {"auto": "DEFLATE"}.get(asked, asked.upper())
    with pytest.raises(OptionError, match="compress must be one of auto, deflate"):
        copy(source, tmp_path / "jpeg.tif", compress="jpeg")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_output_is_not_larger_than_a_copy_and_its_overviews(dtype, tmp_path):
    predictor = 3 if dtype == "float32" else 2
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    source = cases.plain(tmp_path / "a.tif", (1100, 1300), 4, dtype, predictor=predictor, **tiles)
    target = copy(source, tmp_path / "out.tif")
    assert target.stat().st_size <= 1.35 * source.stat().st_size


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")  # trials warn of nothing
@pytest.mark.parametrize(("noise", "level_taken"), [(3, 6), (14, 4), (300, 1)])
def test_deflate_is_as_quick_as_costs_no_space(noise, level_taken, tmp_path):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(900), np.arange(700))
    ground = (1500 + 900 * np.sin(x / 37) * np.cos(y / 23)) // 40 * 40
    pixels = np.stack([ground + rng.integers(0, noise, ground.shape) for _ in range(4)]).astype(np.uint16)
    source = tmp_path / "scene.tif"
    cases.write(source, pixels)
    sizes = {}
    for level in (1, 4, 6):
        asked = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "OVERVIEW_RESAMPLING": "AVERAGE", "LEVEL": level}
        rasterio.shutil.copy(source, tmp_path / f"{level}.tif", driver="COG", **asked)
        sizes[level] = (tmp_path / f"{level}.tif").stat().st_size
    found = copy(source, tmp_path / "out.tif", compress="deflate").stat().st_size
    assert found <= 1.005 * min(sizes.values()) + 4096
    assert min(sizes, key=lambda level: abs(found - sizes[level])) == level_taken


# -- statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [cases.nodata_collar, cases.internal_mask, cases.nan_without_nodata])
def test_statistics_are_those_of_valid_pixels(maker, tmp_path):
    source = maker(tmp_path)
    target = copy(source, tmp_path / "out.tif", blocksize=64)
    with RasterioScene.open(source) as scene, rasterio.open(target) as dataset:
        window = Window(0, 0, scene.shape[1], scene.shape[0])
        pixels, valid = scene.read(window), scene.valid(window)
        for band in range(scene.count):
            inside = pixels[band][valid[band]].astype("float64")
            found = [float(dataset.tags(band + 1)[f"STATISTICS_{key}"]) for key in _STATISTICS]
            expected = [inside.min(), inside.max(), inside.mean(), inside.std(), 100 * valid[band].mean()]
            np.testing.assert_allclose(found, expected, rtol=1e-3)
            np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-6)


_STATISTICS = ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")


def test_a_band_without_a_valid_pixel_says_so(tmp_path):
    source = cases.write(tmp_path / "empty.tif", np.zeros((1, 40, 50), "uint16"), nodata=0)
    with rasterio.open(copy(source, tmp_path / "out.tif")) as dataset:
        assert dataset.tags(1) == {"STATISTICS_VALID_PERCENT": "0"}


# -- overviews -----------------------------------------------------------------------------------------------


def overview(path, level=0):
    with rasterio.open(path, overview_level=level) as dataset:
        return dataset.read(), dataset.read_masks()


def test_overviews_are_averages(tmp_path):
    source = cases.plain(tmp_path / "scene.tif", (1024, 1024), 2, "float32")
    target = copy(source, tmp_path / "out.tif", blocksize=256)
    expected = pixels_of(source).reshape(2, 512, 2, 512, 2).mean((2, 4))
    np.testing.assert_allclose(overview(target)[0], expected, rtol=1e-5)
    with rasterio.open(target) as dataset:
        assert dataset.overviews(1) == [2, 4]


def test_nodata_does_not_darken_overviews(tmp_path):
    pixels = np.full((1, 700, 700), 3000, "uint16")
    pixels[:, :333, :] = 0
    source = cases.write(tmp_path / "scene.tif", pixels, nodata=0)
    values, _ = overview(copy(source, tmp_path / "out.tif", blocksize=256))
    assert set(np.unique(values)) == {0, 3000}


def test_masked_pixels_do_not_enter_overviews(tmp_path):
    source = cases.internal_mask(tmp_path)
    with rasterio.open(source, "r+") as dataset:
        pixels = np.full((3, 700, 600), 90, "uint8")
        pixels[:, dataset.dataset_mask() == 0] = 255
        dataset.write(pixels)
    values, masks = overview(copy(source, tmp_path / "out.tif", blocksize=256))
    assert (values[masks != 0] == 90).all()
    assert (masks == 0).any()


def test_indexes_of_a_colour_table_are_not_averaged(tmp_path):
    pixels = np.random.default_rng(1).choice([0, 200], (1, 600, 600)).astype("uint8")
    source = cases.write(tmp_path / "scene.tif", pixels, photometric="PALETTE")
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 200: (255, 0, 0, 255), 100: (9, 9, 9, 255)})
    values, _ = overview(copy(source, tmp_path / "out.tif", blocksize=256))
    assert set(np.unique(values)) == {0, 200}
