"""Images of training as they are read: layouts, bands, windows, scaling, resizing."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from pair_cases import save_png
from raster_cases import UTM, write
from rasterio.transform import from_origin

from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.loading import load_source
from decr_scene.models.data.resize import resize
from decr_scene.models.data.source import batches, held_in_memory
from decr_scene.models.errors import TrainingError
from decr_scene.pipeline.raster.images import RasterImage, read_image


def write_tiff(path, pixels, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": bands, "dtype": pixels.dtype, "height": height, "width": width}
    transform = from_origin(0, 0, 1, 1)
    with rasterio.open(
        path, "w", **profile, crs=32650, transform=transform, nodata=nodata, photometric="minisblack"
    ) as target:
        target.write(pixels)


def test_a_folder_of_another_layout_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    with pytest.raises(TrainingError, match="found train, expected cloudy or cloud, and clear or label"):
        load_source(DataConfig(folder="set"), tmp_path, read_image)


@pytest.mark.parametrize("kinds", [("cloud", "label"), ("cloudy", "clear")])
def test_near_infrared_beside_the_colours_is_the_fourth_band_where_four_are_wanted(tmp_path, kinds):
    rng = np.random.default_rng(0)
    images = {}
    for kind in kinds:
        colours, nir = rng.integers(0, 255, (40, 40, 3)), rng.integers(0, 255, (40, 40))
        save_png(tmp_path / kind / "7.png", colours)
        save_png(tmp_path / "nir" / kind / "7.png", np.stack([nir] * 3, axis=2))
        images[kind] = np.concatenate([colours.transpose(2, 0, 1), nir[None]])
    four = load_source(DataConfig(folder="."), tmp_path, read_image, bands=4).pairs[0][0]
    np.testing.assert_allclose((four.cloudy + 1) * 127.5, images[kinds[0]], atol=1e-3)
    np.testing.assert_allclose((four.clear + 1) * 127.5, images[kinds[1]], atol=1e-3)
    three = load_source(DataConfig(folder="."), tmp_path, read_image, bands=3).pairs[0][0]
    np.testing.assert_array_equal(three.clear, four.clear[:3])
    (tmp_path / "nir" / kinds[0] / "7.png").rename(tmp_path / "nir" / kinds[0] / "8.png")
    with pytest.raises(TrainingError, match=r"7 has no twin in .*nir.*8 has no twin in"):
        load_source(DataConfig(folder="."), tmp_path, read_image, bands=4)


def test_an_alpha_channel_of_a_picture_is_no_band(tmp_path):
    pixels = np.dstack([np.full((8, 8, 3), 100), np.full((8, 8), 255)])
    save_png(tmp_path / "a.png", pixels)
    assert read_image(tmp_path / "a.png").shape == (3, 8, 8)


def test_crops_by_window_are_those_of_images_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("cloudy", "clear"):
        write_tiff(tmp_path / kind / "a.tif", rng.integers(1, 255, (4, 150, 200)).astype(np.uint8), nodata=0)
    config = DataConfig(folder=".", bands=(2, 1, 0), scales=(1.0, 0.5), tone=False, windowed=True)
    opened = load_source(config, tmp_path, read_image, bands=3, crop=32, opener=RasterImage.open)
    held = load_source(replace(config, windowed=False), tmp_path, read_image, bands=3, crop=32)
    assert opened.pairs[0][0].clear.shape == held.pairs[0][0].clear.shape
    assert not isinstance(opened.pairs[0][0].clear, np.ndarray)
    drawn = [next(batches([source], 0, 32, 6, ("red", "green", "blue"))) for source in (opened, held)]
    np.testing.assert_array_equal(drawn[0].cloudy, drawn[1].cloudy)
    np.testing.assert_array_equal(drawn[0].clear, drawn[1].clear)
    middle = held_in_memory(opened.pairs[0][0], most=64)
    np.testing.assert_array_equal(middle.clear, held.pairs[0][0].clear[:, 43:107, 68:132])


def test_a_large_raster_gets_one_scaling_and_a_tone(tmp_path):
    clear, cloudy = pair_of_tones((2, 2100, 300))
    write_tiff(tmp_path / "clear" / "a.tif", clear)
    write_tiff(tmp_path / "cloudy" / "a.tif", cloudy)
    config = DataConfig(folder=".", windowed=True)
    pair = load_source(config, tmp_path, read_image, opener=RasterImage.open).pairs[0][0]
    top, bottom = (pair.clear[:, rows, slice(0, 50)] for rows in (slice(0, 50), slice(2050, 2100)))
    assert abs(float(top.mean() - bottom.mean())) < 0.05
    assert pair.tone is not None
    np.testing.assert_allclose(pair.tone.apply(bottom), pair.cloudy[:, 2050:2100, slice(0, 50)], atol=0.03)


@pytest.mark.parametrize("windowed", [True, False])
def test_both_images_of_a_pair_take_the_scaling_of_the_cloudy_one(windowed, tmp_path):
    clear, cloudy = pair_of_tones((2, 600, 300))
    write_tiff(tmp_path / "clear" / "a.tif", clear)
    write_tiff(tmp_path / "cloudy" / "a.tif", cloudy)
    config = DataConfig(folder=".", windowed=windowed, tone=False)
    pair = load_source(config, tmp_path, read_image, opener=RasterImage.open).pairs[0][0]
    scaling = RasterImage.open(tmp_path / "cloudy" / "a.tif").radiometry
    whole = (slice(None), slice(0, 600), slice(0, 300))
    np.testing.assert_allclose(pair.clear[whole], scaling.to_model(clear), atol=1e-6)
    np.testing.assert_allclose(pair.cloudy[whole], scaling.to_model(cloudy), atol=1e-6)


def pair_of_tones(shape):
    """Noise of 200 to 3000 DN; the same in another tone, with cloud and shadow over its first rows."""
    clear = np.random.default_rng(0).integers(200, 3000, shape).astype(np.uint16)
    cloudy = (clear // 2 + 700).astype(np.uint16)
    cloudy[:, :100], cloudy[:, 100:150] = 4000, 100
    return clear, cloudy


def test_a_window_that_cannot_be_read_is_named(tmp_path):
    write_tiff(tmp_path / "a.tif", np.ones((1, 300, 300), np.uint8))
    raster = RasterImage.open(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(TrainingError, match=r"a\.tif: .*cannot be read"):
        raster.read(0, 0, 10, 10)


def test_images_are_resized_as_the_paper_does(data):
    source = load_source(DataConfig(folder=".", resize=24), data, read_image, crop=24)
    assert {pair.clear.shape for pair in source.pairs[0]} == {(3, 24, 24)}
    whole = read_image(data / "label" / "0.png")
    np.testing.assert_array_equal(source.pairs[0][0].clear, resize(whole, 24 / 64))


def test_images_of_two_sizes_are_no_pair_though_they_are_resized_to_one(data):
    save_png(data / "cloud" / "0.png", np.full((48, 48, 3), 90))
    with pytest.raises(TrainingError, match=r"0\.png: cloudy is \(3, 48, 48\), clear is \(3, 64, 64\)"):
        load_source(DataConfig(folder=".", resize=24), data, read_image)


@pytest.mark.parametrize(
    ("side", "px", "seen"),
    [(0.5, 512, True), (2.000001, 512, True), (0.5, 511, False), (2.5, 512, False), (None, 512, False)],
)
def test_a_truth_is_darker_than_the_veil_above_it(side, px, seen, tmp_path):
    """Of coarse and unknown pixels, and of small images, the quantiles are the scaling."""
    clear = np.random.default_rng(0).integers(200, 2000, (4, px, px)).astype(np.uint16)
    veiled = (0.3 * clear + 0.7 * 3000).astype(np.uint16)
    place = {} if side is None else {"crs": UTM, "transform": from_origin(4e5, 4e6, side, side)}
    for name, pixels in (("clear", clear), ("cloudy", veiled)):
        write(tmp_path / f"{name}.tif", pixels, **({"crs": None, "transform": None} | place))
    truth = read_image(tmp_path / "clear.tif", tmp_path / "cloudy.tif")
    windows = RasterImage.open(tmp_path / "clear.tif", tmp_path / "cloudy.tif").read(0, 0, px, px)
    np.testing.assert_array_equal(windows, truth)
    assert (truth.std() > 0.2) == seen
    assert ((truth == -1).mean() < 0.01) == seen
