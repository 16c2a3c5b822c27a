"""The road of a scene, end to end: real rasters, real GDAL, a real Dask cluster."""

import json
from threading import Event

import numpy as np
import pytest
import rasterio
from distributed import LocalCluster
from places import SHARED
from raster_cases import draw, plain, with_alpha, write
from rio_cogeo.cogeo import cog_validate
from scipy.ndimage import uniform_filter

from decr_scene.pipeline import open_scene, process_scene, restore
from decr_scene.pipeline.errors import MaskError, OptionError, OutputExistsError, RestorerError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.clear_ground import change_share
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.restoration.restorers import Plugin
from decr_scene.pipeline.tiling.grid import Span, TileGrid
from decr_scene.pipeline.writing.together import WritersTogether

DTYPES = ["uint8", "uint16", "int16", "float32"]
SIZES = [(1, 1), (200, 150), (256, 256), (257, 511), (777, 1000)]


def smooth(tiles, noise):
    """A restorer that looks at its surroundings and at the noise, as a network does."""
    return np.clip(0.7 * uniform_filter(tiles, (0, 0, 9, 9)) + 0.05 * noise, -1, 1)


def to_zero(tiles, noise):
    return np.zeros_like(tiles)


def pixels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def assert_same_pixels(one, other):
    np.testing.assert_array_equal(pixels_of(one), pixels_of(other))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES)
def test_identity_gives_every_pixel_back(shape, dtype, tmp_path):
    scene = plain(tmp_path / "scene.tif", shape, 4, dtype)
    report = process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert_same_pixels(scene, tmp_path / "clean.tif")
    assert all(report.checks.values())
    assert cog_validate(tmp_path / "clean.tif", quiet=True)[0]


@pytest.mark.slow
def test_identity_gives_a_large_scene_back(tmp_path):
    scene = plain(tmp_path / "scene.tif", (3000, 2000), 4, "uint16", nodata=0)
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert_same_pixels(scene, tmp_path / "clean.tif")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="NO REAL SCENES HERE: ../shared/data/scenes is not there")
@pytest.mark.parametrize("scene", sorted((SHARED / "scenes").glob("*.tif")), ids=lambda path: path.stem)
def test_identity_gives_a_real_scene_back(scene, tmp_path):
    report = process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert_same_pixels(scene, tmp_path / "clean.tif")
    assert all(report.checks.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("restorer", [to_zero, smooth])
def test_a_flat_scene_comes_back_flat(restorer, dtype, tmp_path):
    flat = np.full((2, 300, 470), 77, dtype)
    scene = write(tmp_path / "scene.tif", flat)
    calm = (lambda tiles, noise: smooth(tiles, 0 * noise)) if restorer is smooth else to_zero
    process_scene(scene, tmp_path / "clean.tif", restorer=calm, scale=(0, 200))
    for band in pixels_of(tmp_path / "clean.tif"):
        assert np.ptp(band) == 0
        assert band[0, 0] != 77


def test_batch_size_does_not_change_the_result(tmp_path):
    scene = plain(tmp_path / "scene.tif", (777, 1000), 3)
    for size in (1, 5, 8):
        process_scene(scene, tmp_path / f"{size}.tif", restorer=smooth, batch_size=size)
    assert_same_pixels(tmp_path / "1.tif", tmp_path / "8.tif")
    assert_same_pixels(tmp_path / "1.tif", tmp_path / "5.tif")
    assert not np.array_equal(pixels_of(scene), pixels_of(tmp_path / "1.tif"))


def test_a_seed_is_a_result(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 300), 1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        process_scene(scene, tmp_path / f"{name}.tif", restorer=smooth, seed=seed)
    assert_same_pixels(tmp_path / "a.tif", tmp_path / "b.tif")
    assert not np.array_equal(pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / "c.tif"))


def test_every_tile_is_restored_once(tmp_path):
    scene, seen = plain(tmp_path / "scene.tif", (777, 1000), 1), []

    def counting(tiles, noise):
        assert tiles.shape[1:] == (1, 256, 256) == noise.shape[1:]
        assert tiles.dtype == noise.dtype == np.float32
        seen.append(len(tiles))
        return tiles

    report = process_scene(scene, tmp_path / "clean.tif", restorer=counting, batch_size=6)
    assert sum(seen) == report.tiles["total"] == 20
    assert sorted(seen) == [2, 6, 6, 6]


def test_nothing_invalid_is_seen_or_changed(tmp_path):
    image = draw((300, 400), 2, "float32")
    image[:, 40:90, 100:300] = np.nan
    image[0, 200, 200] = np.inf
    image[1, :30, :30] = -9999
    scene = write(tmp_path / "scene.tif", image, nodata=-9999)

    def checking(tiles, noise):
        assert np.isfinite(tiles).all()
        assert np.abs(tiles).max() <= 1
        return np.full_like(tiles, -1)

    process_scene(scene, tmp_path / "clean.tif", restorer=checking)
    clean = pixels_of(tmp_path / "clean.tif")
    invalid = ~np.isfinite(image) | (image == -9999)
    np.testing.assert_array_equal(clean[invalid], image[invalid])
    assert np.isfinite(clean[~invalid]).all()
    assert not (clean[~invalid] == -9999).any()
    assert (clean[~invalid] < image[~invalid]).mean() > 0.99


def test_a_scene_without_a_valid_pixel_never_meets_the_restorer(tmp_path):
    scene = write(tmp_path / "scene.tif", np.zeros((1, 300, 300), np.uint16), nodata=0)
    process_scene(scene, tmp_path / "clean.tif", restorer=lambda tiles, noise: 1 / 0)
    assert not pixels_of(tmp_path / "clean.tif").any()


def test_memory_that_does_not_suffice_halves_the_batch(tmp_path):
    scene = plain(tmp_path / "scene.tif", (500, 700), 1)

    def small(tiles, noise):
        if len(tiles) > 3:
            raise MemoryError
        return smooth(tiles, noise)

    process_scene(scene, tmp_path / "small.tif", restorer=small, batch_size=8)
    process_scene(scene, tmp_path / "large.tif", restorer=smooth, batch_size=8)
    assert_same_pixels(tmp_path / "small.tif", tmp_path / "large.tif")


def test_what_a_restorer_overwrites_is_its_own():
    buffer = np.empty((2, 1, 8, 8), np.float32)

    def thrifty(tiles, noise):
        tiles *= 0.5
        noise += 1
        return np.add(tiles, noise, out=buffer)

    plugin, ones, zeros = Plugin(thrifty), np.ones_like(buffer), np.zeros_like(buffer)
    first = plugin.restore(ones, zeros, None)
    plugin.restore(zeros, zeros, None)
    assert (first == 1.5).all()  # the second answer is in the same buffer
    assert (ones == 1).all()
    assert (zeros == 0).all()


def test_a_restorer_may_work_in_its_tiles_and_answer_from_one_buffer(tmp_path):
    scene, buffer = plain(tmp_path / "scene.tif", (300, 500), 1), np.empty((2, 1, 256, 256), np.float32)

    def thrifty(tiles, noise):
        tiles *= 0.5
        answer = buffer[: len(tiles)]
        np.add(tiles, 0.05 * noise, out=answer)
        return answer

    options = {"batch_size": 2, "scale": (0, 6000), "samples": 3}
    process_scene(scene, tmp_path / "thrifty.tif", restorer=thrifty, **options)
    process_scene(scene, tmp_path / "plain.tif", restorer=lambda t, n: t * 0.5 + 0.05 * n, **options)
    assert_same_pixels(tmp_path / "thrifty.tif", tmp_path / "plain.tif")
    assert_same_pixels(tmp_path / "thrifty_uncertainty.tif", tmp_path / "plain_uncertainty.tif")
    assert not np.array_equal(pixels_of(scene), pixels_of(tmp_path / "plain.tif"))


@pytest.mark.parametrize(
    ("restorer", "message"),
    [
        (lambda tiles, noise: tiles[:, :, 1:], "must keep the shape"),
        (lambda tiles, noise: tiles * np.nan, "not finite"),
    ],
)
def test_a_wrong_answer_is_refused_and_leaves_nothing(restorer, message, tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 300), 1)
    with pytest.raises(RestorerError, match=message):
        process_scene(scene, tmp_path / "clean.tif", restorer=restorer)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_an_error_of_the_restorer_reaches_the_caller_and_leaves_nothing(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 300), 1)
    with pytest.raises(ZeroDivisionError):
        process_scene(scene, tmp_path / "clean.tif", restorer=lambda tiles, noise: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_an_output_is_replaced_only_when_told(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 30), 1)
    out = tmp_path / "clean.tif"
    process_scene(scene, out, model="identity")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        process_scene(scene, out, model="identity")
    process_scene(scene, out, restorer=to_zero, scale=(0, 10), overwrite=True)
    assert not np.array_equal(pixels_of(scene), pixels_of(out))


def test_the_report_tells_what_was_done(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 300), 1)
    process_scene(scene, tmp_path / "clean.tif", restorer=smooth, scale=(0, 500), seed=9)
    report = json.loads((tmp_path / "clean.json").read_text())
    assert report["input"]["bytes"] == scene.stat().st_size
    assert report["output"]["bytes"] == (tmp_path / "clean.tif").stat().st_size
    assert report["parameters"]["seed"] == 9
    assert report["scaling"] == {"band 1": [0, 500]}
    assert report["tiles"] == {"total": 4, "restored": 4, "kept": 0, "tiles_resumed": 0, "windows_resumed": 0}
    assert report["model"]["name"] == "smooth"


@pytest.mark.parametrize("option", [{"steps": 0}, {"overlap": 200}, {"halo": -1}, {"scale": (5, 5)}])
def test_an_option_out_of_range_is_refused(option, tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 30), 1)
    with pytest.raises(OptionError, match="got"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", **option)


@pytest.mark.slow
def test_worker_processes_and_a_running_cluster_give_the_same_file(tmp_path):
    scene = plain(tmp_path / "scene.tif", (777, 1000), 2)
    process_scene(scene, tmp_path / "here.tif", restorer=smooth)
    process_scene(scene, tmp_path / "two.tif", restorer=smooth, workers=2)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, resources={"GPU": 1}, dashboard_address=":0"
    ) as cluster:
        process_scene(scene, tmp_path / "cluster.tif", restorer=smooth, scheduler=cluster.scheduler_address)
    assert_same_pixels(tmp_path / "here.tif", tmp_path / "two.tif")
    assert_same_pixels(tmp_path / "here.tif", tmp_path / "cluster.tif")


def test_restore_is_lazy_and_does_what_process_does(tmp_path):
    scene = plain(tmp_path / "scene.tif", (600, 700), 2)
    seen = []

    def counting(tiles, noise):
        seen.append(len(tiles))
        return smooth(tiles, noise)

    array = open_scene(scene)
    clean = restore(array, restorer=counting)
    assert not seen
    assert clean.chunks is not None
    assert clean.rio.crs == array.rio.crs
    assert clean.rio.transform() == array.rio.transform()
    computed = clean.compute(scheduler="threads")
    assert sum(seen) == 12
    process_scene(scene, tmp_path / "clean.tif", restorer=smooth)
    np.testing.assert_array_equal(computed.values, pixels_of(tmp_path / "clean.tif"))


def test_an_array_with_alpha_is_restored_as_its_file_is(tmp_path):
    scene = with_alpha(tmp_path)
    process_scene(scene, tmp_path / "clean.tif", restorer=smooth)
    lazily = restore(open_scene(scene), restorer=smooth).values
    np.testing.assert_array_equal(lazily, pixels_of(tmp_path / "clean.tif"))
    np.testing.assert_array_equal(lazily[3], pixels_of(scene)[3])


def test_outside_the_mask_every_bit_is_the_inputs_and_clear_tiles_are_not_sampled(tmp_path):
    image = draw((777, 1000), 2, "uint16")
    scene = write(tmp_path / "scene.tif", image)
    cloud = np.zeros((1, 777, 1000), np.uint8)
    cloud[:, 300:360, 500:560] = 1
    mask = write(tmp_path / "mask.tif", cloud)
    seen = []

    def counting(tiles, noise):
        seen.append(len(tiles))
        return to_zero(tiles, noise)

    report = process_scene(scene, tmp_path / "clean.tif", restorer=counting, mask=str(mask), scale=(0, 6000))
    clean = pixels_of(tmp_path / "clean.tif")
    far = np.ones((777, 1000), bool)
    far[260:400, 460:600] = False
    np.testing.assert_array_equal(clean[:, far], image[:, far])
    np.testing.assert_array_equal(clean[:, 300:360, 500:560], 3000)
    assert sum(seen) == report.tiles["restored"] < report.tiles["total"]


def test_the_cells_that_a_mask_touches_are_those_where_it_is_not_zero(tmp_path):
    scene = write(tmp_path / "scene.tif", draw((500, 700), 1, "uint8"))
    rng = np.random.default_rng(3)
    cloud = rng.random((1, 500, 700)) < 2e-5
    mask = MaskFile(str(write(tmp_path / "mask.tif", cloud.astype(np.uint8))), RasterioScene.open(scene))
    grid = TileGrid((500, 700), overlap=80)
    whole = mask.soft(Span(0, 0, 500, 700))
    expected = [[whole[slice(*row), slice(*col)].any() for col in grid.cells[1]] for row in grid.cells[0]]
    np.testing.assert_array_equal(mask.touched_cells(grid), expected)
    assert 0 < np.mean(expected) < 1


def test_rows_without_cloud_are_copied_while_the_model_works(tmp_path, monkeypatch):
    scene = write(tmp_path / "scene.tif", draw((1200, 300), 1, "uint8"))
    cloud = np.zeros((1, 1200, 300), np.uint8)
    cloud[:, :50] = 1
    mask = write(tmp_path / "mask.tif", cloud)
    copied, seen = Event(), []
    write_window = WritersTogether.write

    def noting(self, span, *pixels):
        write_window(self, span, *pixels)
        if span.row >= 512:
            copied.set()

    def waiting(tiles, noise):
        seen.append(copied.wait(60))
        return tiles

    monkeypatch.setattr(WritersTogether, "write", noting)
    process_scene(scene, tmp_path / "clean.tif", restorer=waiting, mask=str(mask))
    assert set(seen) == {True}
    assert_same_pixels(scene, tmp_path / "clean.tif")


def test_a_mask_of_another_grid_is_laid_over_the_scene(tmp_path):
    scene = write(tmp_path / "scene.tif", draw((400, 400), 1, "uint16"))
    with rasterio.open(scene) as source:
        coarse = source.transform @ source.transform.scale(10) @ source.transform.translation(-5, -5)
        crs = source.crs
    cloud = np.zeros((1, 60, 60), np.float32)
    cloud[:, 15:20, 25:30] = 0.9  # pixels 100 to 150 down, 200 to 250 across
    mask = write(tmp_path / "mask.tif", cloud, transform=coarse, crs=crs)
    process_scene(scene, tmp_path / "clean.tif", restorer=to_zero, mask=str(mask), scale=(0, 8000))
    changed = (pixels_of(tmp_path / "clean.tif") != pixels_of(scene))[0]
    assert changed[100:150, 200:250].mean() > 0.99
    assert not changed[:60].any()
    assert not changed[:, :160].any()


@pytest.mark.parametrize("where", [{}, {"crs": None, "transform": None}])
def test_nodata_and_transparent_pixels_of_a_mask_are_no_cloud(where, tmp_path):
    scene = RasterioScene.open(plain(tmp_path / "scene.tif", (90, 80), 1))
    cloud = np.zeros((1, 90, 80), np.uint8)
    cloud[0, 40:60, 10:40] = 1
    cloud[0, :20] = 255
    alpha = np.where(cloud == 255, 0, 255).astype(np.uint8)
    masks = [
        write(tmp_path / "nodata.tif", cloud, nodata=255, **where),
        write(tmp_path / "alpha.tif", np.concatenate([cloud, alpha]), alpha="yes", **where),
    ]
    for mask in masks:
        found = MaskFile(str(mask), scene).cloud(Span(0, 0, 90, 80))
        np.testing.assert_array_equal(found, cloud[0] == 1)


def test_a_mask_that_cannot_be_laid_over_the_scene_is_refused(tmp_path):
    scene = write(tmp_path / "scene.tif", draw((400, 400), 1, "uint16"), crs=None, transform=None)
    mask = write(tmp_path / "mask.tif", np.ones((1, 40, 40), np.uint8))
    with pytest.raises(MaskError, match="georeference"):
        process_scene(scene, tmp_path / "clean.tif", restorer=to_zero, mask=str(mask))
    with pytest.raises(MaskError, match="cannot be read"):
        process_scene(scene, tmp_path / "clean.tif", restorer=to_zero, mask=str(tmp_path / "no.tif"))
    assert not (tmp_path / "clean.tif").exists()


def test_near_infrared_that_the_file_calls_alpha_is_no_mask(tmp_path):
    image = draw((60, 70), 4, "uint8")
    image[3, :30] = 0
    scene = write(tmp_path / "scene.tif", image)  # rasterio calls the fourth band of uint8 alpha
    process_scene(scene, tmp_path / "clean.tif", restorer=to_zero, bands="r,g,b,n")
    clean = pixels_of(tmp_path / "clean.tif")
    assert (np.abs(clean[:, :30] - 127.5) <= 0.5).all()


def taken(change):
    """What of a change of a whole scene is applied."""
    whole = Span(0, 0, *change.shape[1:])
    return change * change_share(change, whole, whole)


def test_what_a_model_hardly_changes_keeps_its_bits():
    noise = np.random.default_rng(0).normal(0, 0.03, (2, 200, 600)).astype(np.float32)
    cloud = np.zeros((2, 200, 600), np.float32)
    cloud[:, :, 400:] = -0.4
    kept = taken(noise + cloud)
    assert not kept[:, :, :300].any()
    np.testing.assert_array_equal(kept[:, :, 410:], (noise + cloud)[:, :, 410:])
    veil = np.full((2, 200, 300), -0.07, np.float32)
    assert np.all(taken(veil) < -0.02)
