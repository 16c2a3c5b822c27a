"""The scene as a whole: what is seen, and what is done with it."""

import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from fault_cases import fire_after
from look_cases import BGRN, VEIL, bright_is_cloud, land, pixels_of, scene_of
from model_cases import tiny_model

from decr_scene.models.model import Model
from decr_scene.pipeline import open_scene, process_scene, restore
from decr_scene.pipeline.engine.array_scene import names_of
from decr_scene.pipeline.errors import DecrSceneError, SceneError
from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import look_in_memory
from decr_scene.pipeline.look.detectors import MaskLookout
from decr_scene.pipeline.look.ground import GroundSums
from decr_scene.pipeline.look.reflectance import Reflectance, fit_reflectance
from decr_scene.pipeline.planning import detect_clouds
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import ArraySource, FileSource
from decr_scene.pipeline.regions.clear_ground import around, change_share
from decr_scene.pipeline.regions.fields import ArrayField, interpolate
from decr_scene.pipeline.regions.masks import WIDE_RIM, DetectedMask
from decr_scene.pipeline.restoration.restorers import Diffusion
from decr_scene.pipeline.tiling import windows
from decr_scene.pipeline.tiling.grid import Span, TileGrid


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


def test_what_the_raster_tells_of_its_reflectance_is_taken_if_it_can_be(tmp_path):
    image, _ = land((64, 64), cloud=(slice(0, 20), slice(0, 20)))
    told = scene_of(tmp_path / "told.tif", image, scales=(1e-4,) * 4)
    wrong = scene_of(tmp_path / "wrong.tif", image, scales=(0.01,) * 4)
    for path, known in ((told, True), (wrong, False)):
        scene = RasterioScene.open(path)
        assert fit_reflectance(scene, FileSource(str(path)), (0, 1, 2, 3), 1).known is known


def test_a_scene_without_light_has_a_reflectance_all_the_same():
    dark = Reflectance.of((0, 1), (1, 1), (0, 0), np.zeros((2, 9), np.float32))
    assert dark.gain == (1.0, 1.0)
    assert Reflectance.of((0, 1), (1, 1), (0, 0), np.zeros((2, 0), np.float32)).gain == (1.0, 1.0)


def test_ground_is_filled_from_clear_ground_and_its_windows_are_those_of_the_whole():
    image = np.full((2, 60, 80), -0.5, np.float32)
    found = np.zeros((3, 60, 80), np.float32)
    image[:, 20:40, 30:60], found[:2, 20:40, 30:60] = 0.9, 1.0
    sums = GroundSums(2, (120, 160), 2, 4)
    for rows in (range(0, 17), range(17, 60)):
        part = slice(rows.start, rows.stop)
        sums.add(rows, image[:, part], np.ones((1, len(rows), 80), np.float32), found[:, part])
    ground = sums.ground()
    context = ground.field.values
    assert context.shape == (5, 15, 20)
    np.testing.assert_allclose(context[:2], -0.5, atol=1e-4)
    assert context[2, 7, 11] == 1
    assert context[4, 7, 11] < 0.8 < context[4, 0, 0]
    assert [ground.known, ground.side] == [True, 8]
    whole, part = ground.tone(Span(0, 0, 120, 160)), ground.tone(Span(33, 41, 20, 30))
    np.testing.assert_array_equal(part, whole[:, 33:53, 41:71])
    assert ground.context(Span(0, 0, 64, 128)).shape == (5, 8, 16)


def test_the_spread_of_the_ground_is_that_of_clear_ground_alone():
    image = np.where(np.arange(256) // 8 % 2, -0.3, -0.7).astype(np.float32) * np.ones(
        (1, 256, 1), np.float32
    )
    found = np.zeros((3, 256, 256), np.float32)
    image[:, 160:, 160:], found[:2, 160:, 160:] = 0.9, 1.0
    sums = GroundSums(1, (256, 256), 1, 8)
    sums.add(range(256), image, np.ones((1, 256, 256), np.float32), found)
    np.testing.assert_allclose(sums.ground().spread, [0.2], atol=1e-3)


def test_a_scene_wholly_under_cloud_knows_no_ground():
    sums = GroundSums(1, (8, 8), 1, 2)
    sums.add(
        range(8),
        np.ones((1, 8, 8), np.float32),
        np.ones((1, 8, 8), np.float32),
        np.ones((3, 8, 8), np.float32),
    )
    ground = sums.ground()
    assert [ground.known, ground.spread] == [False, (0,)]
    assert not ground.field.values[[0, -1]].any()


def test_a_field_between_its_pixels_is_bilinear_and_ends_flat():
    field = ArrayField(np.array([[[0.0, 1.0, 3.0]]], np.float32))
    found = interpolate(field, np.array([0.5]), np.array([0.0, 0.5, 1.0, 1.5, 2.25, 9.0]))
    np.testing.assert_allclose(found[0, 0], [0, 0, 0.5, 1, 2.5, 3])


def test_the_soft_mask_of_coarse_pixels_has_no_steps_and_does_not_depend_on_the_window():
    values = np.zeros((1, 10, 12), np.uint8)
    values[0, 4:6, 5:8] = 255
    shape, factor = (395, 470), 40
    mask = DetectedMask(ArrayField(values), shape, factor, 128)
    whole = mask.soft(Span(0, 0, *shape))
    assert whole[160:240, 200:320].min() > 0.9
    np.testing.assert_allclose(whole[180:220, 220:300], 1)
    assert max(np.abs(np.diff(whole, axis=axis)).max() for axis in (0, 1)) < 0.05
    assert not whole[: 160 - mask.reach].any()
    np.testing.assert_array_equal(mask.soft(Span(111, 93, 80, 90)), whole[111:191, 93:183])
    grid = TileGrid(shape)
    rows, cols = grid.cells
    touched = np.array([[whole[slice(*row), slice(*col)].any() for col in cols] for row in rows])
    assert mask.touched_cells(grid)[touched].all()


def test_the_share_of_a_change_does_not_depend_on_the_window():
    shape = (301, 407)
    rng = np.random.default_rng(0)
    change = rng.normal(0, 0.05, (3, *shape)).astype(np.float32)
    change[:, 90:150, 100:260] -= 0.3
    whole = Span(0, 0, *shape)
    share = change_share(change, whole, whole)
    assert share[110:130, 150:200].min() == 1
    assert not share[250:, :50].any()
    for span in (Span(0, 0, 64, 64), Span(77, 93, 100, 130), Span(240, 300, 61, 107)):
        seen = around(span, shape)
        part = change[(slice(None), *seen.inside(whole))]
        rows, cols = span.inside(whole)
        np.testing.assert_array_equal(change_share(part, seen, span), share[rows, cols])


def test_no_rim_follows_single_pixels():
    """A ramp of change from nothing to cloud is taken smoothly, whatever the noise on it."""
    rng = np.random.default_rng(0)
    change = np.linspace(0, 0.3, 400, dtype=np.float32) + rng.normal(0, 0.03, (2, 200, 400)).astype(
        np.float32
    )
    whole = Span(0, 0, 200, 400)
    share = change_share(change, whole, whole)
    assert np.abs(np.diff(share, axis=1)).max() < 0.05
    assert np.abs(np.diff(share, axis=0)).max() < 0.05
    assert not change_share(np.full((1, 200, 400), 0.02, np.float32), whole, whole).any()


@pytest.fixture
def model(tmp_path):
    """A model of random weights, whose first guess is darker everywhere than its input."""
    return str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN, adds=-1.0))


def test_tiles_that_show_neither_cloud_nor_veil_are_not_sampled(model, tmp_path, monkeypatch):
    sampled = []
    sample = Diffusion.restore

    def counting(self, tiles, *rest):
        sampled.append(len(tiles))
        return sample(self, tiles, *rest)

    monkeypatch.setattr(Diffusion, "restore", counting)
    monkeypatch.setattr(Diffusion, "guess", lambda self, tiles, context=None, norm_side=None: tiles)
    image, _ = land((300, 900), cloud=(slice(100, 170), slice(60, 150)))
    scene = scene_of(tmp_path / "scene.tif", image)
    report = process_scene(scene, tmp_path / "clean.tif", model=model)
    assert report.tiles["restored"] == report.tiles["total"]
    assert 0 < sum(sampled) < report.tiles["total"]
    np.testing.assert_array_equal(pixels_of(tmp_path / "clean.tif")[:, :, 500:], image[:, :, 500:])


def test_blending_by_the_change_does_not_depend_on_blocks_and_batches(model, tmp_path):
    image, _ = land((520, 560), cloud=(slice(100, 170), slice(60, 150)))
    image[:, 300:, 200:500] += VEIL
    scene = scene_of(tmp_path / "scene.tif", image)
    for name, more in (("a", {}), ("b", {"blocksize": 128, "batch_size": 2})):
        process_scene(scene, tmp_path / f"{name}.tif", model=model, **more)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / "b.tif"))


def test_a_network_that_wants_it_is_told_what_the_scene_as_a_whole_shows(tmp_path, monkeypatch):
    told, reference = [], Model.reference

    def listening(self, cloudy, context=None, *norm_side):
        told.append((cloudy.shape, context.numpy()))
        return reference(self, cloudy, context, *norm_side)

    monkeypatch.setattr(Model, "reference", listening)
    model = str(tiny_model(tmp_path / "context.safetensors", bands=BGRN, halo=64, context=True))
    image, _ = land((300, 520))
    scene = scene_of(tmp_path / "scene.tif", image)
    process_scene(scene, tmp_path / "clean.tif", model=model, batch_size=1)
    assert told
    for shape, context in told:
        assert context.shape == (shape[0], 4 + 3, -(-shape[2] // 8), -(-shape[3] // 8))
        assert np.abs(context[:, :4]).max() <= 1
    assert max(context[0, 4].max() for _, context in told) > 0.9
    told.clear()
    process_scene(scene, tmp_path / "nobody.tif", model=model, detector="none")
    assert not any(context.any() for _, context in told)
    assert (pixels_of(tmp_path / "clean.tif") != pixels_of(tmp_path / "nobody.tif")).any()


def left_in_place(monkeypatch):
    """A model whose first guess, and answer, is its input with all its cloud."""
    monkeypatch.setattr(Diffusion, "guess", lambda self, tiles, context=None, norm_side=None: tiles)
    monkeypatch.setattr(Diffusion, "restore", lambda self, tiles, noise, field, agree=None: field)


def metres(path, side):
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = rasterio.transform.from_origin(500000, 4000000, side, side)


def test_cloud_that_a_model_leaves_gives_way_to_the_tone_of_the_ground(model, tmp_path, monkeypatch):
    left_in_place(monkeypatch)
    image, where = land()
    scene = scene_of(tmp_path / "scene.tif", image)
    process_scene(scene, tmp_path / "clean.tif", model=model)
    process_scene(scene, tmp_path / "fill.tif", model="fill")
    clean, fill = (pixels_of(tmp_path / f"{name}.tif").astype(int) for name in ("clean", "fill"))
    assert np.abs(clean - fill)[:, where].mean() < 60  # of the 5000 of the cloud
    np.testing.assert_array_equal(clean[:, :, :150], image[:, :, :150])


def test_clear_ground_beside_cloud_does_not_give_way(model, tmp_path, monkeypatch):
    """A bright field beside a cloud, inside the rim of the mask, which is as wide as that of others."""
    left_in_place(monkeypatch)
    monkeypatch.setattr("decr_scene.pipeline.look.look_plan.CLOSE_RIM", WIDE_RIM)
    image, _ = land()
    image[:3, 100:170, 302:322] = 3000
    scene = scene_of(tmp_path / "scene.tif", image)
    process_scene(scene, tmp_path / "clean.tif", model=model)
    found = pixels_of(tmp_path / "clean.tif")[:3, 110:160, 310:320]
    assert np.abs(found.astype(int) - 3000).mean() < 40  # of the 2000 that it is brighter


def test_what_gives_way_does_not_depend_on_blocks_and_batches(model, tmp_path, monkeypatch):
    left_in_place(monkeypatch)
    scene = scene_of(tmp_path / "scene.tif", land((520, 560))[0])
    process_scene(scene, tmp_path / "a.tif", model=model)
    for name, more in (("b", {"blocksize": 128, "batch_size": 2}), ("c", {"batch_size": 1})):
        process_scene(scene, tmp_path / f"{name}.tif", model=model, **more)
        np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / f"{name}.tif"))


@pytest.mark.parametrize("case", ["half a metre", "nobody looks", "everything may change"])
def test_nothing_gives_way_where_the_detector_cannot_tell(case, model, tmp_path, monkeypatch):
    left_in_place(monkeypatch)
    image, _ = land()
    scene = scene_of(tmp_path / "scene.tif", image)
    if case == "half a metre":
        metres(scene, 0.5)
    options = {
        "half a metre": {},
        "nobody looks": {"detector": "none"},
        "everything may change": {"mask": "none"},
    }
    process_scene(scene, tmp_path / "clean.tif", model=model, **options[case])
    np.testing.assert_array_equal(pixels_of(tmp_path / "clean.tif"), image)


def test_evaluation_tells_a_network_the_same(tmp_path, monkeypatch):
    told, reference = [], Model.reference

    def listening(self, cloudy, context=None, *norm_side):
        told.append(context)
        return reference(self, cloudy, context, *norm_side)

    monkeypatch.setattr(Model, "reference", listening)
    model = str(tiny_model(tmp_path / "context.safetensors", bands=BGRN, context=True))
    for name, cloud in (("cloudy", slice(60, 120)), ("clear", slice(0, 0))):
        (tmp_path / name).mkdir()
        image, _ = land((96, 128), cloud=(cloud, cloud))
        scene_of(tmp_path / name / "a.tif", np.clip(image // 40, 0, 255).astype(np.uint8))
    for mask in ("none", "auto"):
        evaluate_pairs(model, tmp_path, mask=mask)
    assert [context.shape for context in told] == [(1, 7, 12, 16)] * 2
    assert told[0][0, 4].max() > 0.9


@pytest.mark.parametrize(("dtype", "divisor"), [(np.uint16, 1), (np.uint8, 40)])
def test_restore_looks_at_an_array_as_at_a_file(dtype, divisor, model, tmp_path):
    image = (land((300, 420))[0] // divisor).astype(dtype)
    scene = scene_of(tmp_path / "scene.tif", image)
    array = xr.DataArray(
        da.from_array(image, chunks=(4, 100, 200)), dims=("band", "y", "x"), attrs={"long_name": BGRN}
    )
    array = array.rio.write_crs(rasterio.open(scene).crs).rio.write_transform(rasterio.open(scene).transform)
    told = str(tiny_model(tmp_path / "told.safetensors", bands=BGRN, context=True))  # scaled by a curve
    for name, options in (
        ("fill", {"model": "fill"}),
        ("model", {"model": model}),
        ("told", {"model": told}),
    ):
        process_scene(scene, tmp_path / f"{name}.tif", **options)
        lazy = restore(array, **options).compute(scheduler="synchronous")
        np.testing.assert_array_equal(lazy.values, pixels_of(tmp_path / f"{name}.tif"))
    cloud = scene_of(tmp_path / "mask.tif", (image[:1] > 4000 // divisor).astype(np.uint8), ("cloud",))
    process_scene(scene, tmp_path / "masked.tif", model="fill", mask=str(cloud))
    lazy = restore(array, model="fill", mask=str(cloud)).compute(scheduler="synchronous")
    np.testing.assert_array_equal(lazy.values, pixels_of(tmp_path / "masked.tif"))


def test_restore_blends_an_array_of_several_blocks_as_a_file(model, tmp_path):
    """What lies around a block has a say in whether a change is of a veil."""
    image, _ = land((600, 700))
    image[:, :200, -200:] += VEIL
    scene = scene_of(tmp_path / "scene.tif", image)
    process_scene(scene, tmp_path / "clean.tif", model=model)
    lazy = restore(rioxarray.open_rasterio(scene), model=model).compute(scheduler="synchronous")
    np.testing.assert_array_equal(lazy.values, pixels_of(tmp_path / "clean.tif"))
    clear = np.s_[:, :40, -40:]
    assert (lazy.values[clear] != image[clear]).any(), "a veil is seen far from the cloud"


def test_restore_guesses_the_tiles_of_an_array_that_a_file_has_guessed(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "SIDE", 640)
    image, _ = land((256, 1000), (slice(100, 170), slice(560, 600)))
    scene = scene_of(tmp_path / "scene.tif", image)
    model = tiny_model(tmp_path / "model.safetensors", bands=BGRN, halo=24)
    options = {"model": str(model), "detector": "ukis", "device": "cpu"}
    report = process_scene(scene, tmp_path / "clean.tif", **options)
    assert report.tiles["restored"] == 2
    lazy = restore(rioxarray.open_rasterio(scene), **options).compute(scheduler="synchronous")
    np.testing.assert_array_equal(lazy.values, pixels_of(tmp_path / "clean.tif"))


def test_a_mask_in_the_place_of_a_detector_is_averaged():
    cloud = np.zeros((20, 20), bool)
    cloud[:10] = True
    source = ArraySource(Span(0, 0, 20, 20), np.ones((1, 20, 20), np.uint8))
    lookout = MaskLookout(lambda span: cloud[span.inside(Span(0, 0, 20, 20))], (0,))
    reader = CoarseReader((20, 20), source, (0,), Radiometry((0,), (255,)), 4, lookout.sight)
    found = look_in_memory(lookout, reader, 0.5)
    assert found.coverage.cloud == pytest.approx(0.5, abs=0.01)
    assert found.cloud.values[:, :2].min(axis=(1, 2)).tolist() == [255, 255, 0]


def test_an_interrupted_run_goes_on_with_what_it_has_seen(tmp_path, monkeypatch):
    image, _ = land((300, 420))
    scene = scene_of(tmp_path / "scene.tif", image)
    process_scene(scene, tmp_path / "whole.tif", model="fill", blocksize=128)
    with fire_after(2), pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", model="fill", blocksize=128)
    with pytest.raises(DecrSceneError, match="look"):
        process_scene(
            scene, tmp_path / "clean.tif", model="fill", detector="ukis", mask="none", blocksize=128
        )
    monkeypatch.setattr(detect_clouds, "write_look", lambda *given: pytest.fail("it has looked already"))
    report = process_scene(scene, tmp_path / "clean.tif", model="fill", blocksize=128)
    assert report.tiles["windows_resumed"] >= 1
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "clean.tif").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_array_that_knows_its_scale_is_looked_at_as_its_file_is(tmp_path, monkeypatch):
    bright_is_cloud(monkeypatch)
    image, _ = land()
    path = scene_of(tmp_path / "scene.tif", image, scales=(1e-4,) * 4)
    seen = []
    real = Reflectance.of.__func__

    def of(cls, *args):
        seen.append(real(cls, *args))
        return seen[-1]

    monkeypatch.setattr(Reflectance, "of", classmethod(of))
    process_scene(path, tmp_path / "clean.tif", model="fill")
    lazy = restore(open_scene(path), model="fill").compute(scheduler="synchronous").values
    np.testing.assert_array_equal(lazy, pixels_of(tmp_path / "clean.tif"))
    assert all(found.known for found in seen)


def test_bands_that_are_taken_out_of_an_array_keep_their_names(tmp_path):
    array = open_scene(scene_of(tmp_path / "scene.tif", land()[0]))
    for numbers in ([1, 2, 3], [3, 2, 1], [4, 1]):
        some = array.sel(band=numbers)
        assert names_of(some) == tuple(BGRN[number - 1] for number in numbers)
    assert names_of(array.sel(band=[1, 2, 3]).assign_coords(band=[0, 2, 3])) == ("blue", "red", "nir")
    assert names_of(array.sel(band=[1, 2, 3]).assign_coords(band=[7, 8, 9])) == ("", "", "")


def test_bands_in_another_order_than_their_names_are_refused(tmp_path):
    array = open_scene(scene_of(tmp_path / "scene.tif", land()[0]))
    turned = array.isel(band=[3, 2, 1, 0])
    with pytest.raises(SceneError, match=r"in the order 4, 3, 2, 1, its long_name .* give bands="):
        restore(turned, model="fill")
    named = array.assign_coords(band=list(BGRN))
    expected = restore(named, model="fill").sel(band=list(BGRN[::-1])).values
    np.testing.assert_array_equal(restore(named.sel(band=list(BGRN[::-1])), model="fill").values, expected)
    names = turned.assign_coords(band=[1, 2, 3, 4]).assign_attrs(long_name=BGRN[::-1])
    assert restore(names, model="fill").shape == array.shape
    assert restore(turned, model="fill", bands=",".join(BGRN[::-1])).shape == array.shape
