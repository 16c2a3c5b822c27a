"""The first guess of a tile sees beyond it, as far as the model says."""

import numpy as np
import pytest
import rioxarray
import torch
from model_cases import tiny_model
from sample_cases import part_of_landsat, pixels

from decr_scene.models.checkpoints.model_file import SamplingConfig
from decr_scene.models.model import load_model
from decr_scene.pipeline import process_scene, restore
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.restoration.guard import run_guard
from decr_scene.pipeline.restoration.options import Options
from decr_scene.pipeline.restoration.plan import plan_scene
from decr_scene.pipeline.restoration.tasks import guess_tiles


@pytest.fixture
def model(tmp_path):
    """It sees 24 px beyond its tiles."""
    return tiny_model(tmp_path / "halo.safetensors", halo=24)


def test_a_first_guess_is_the_middle_of_what_the_network_says_of_a_larger_window(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 200, 448)
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), device="cpu")).plan
    guesses = guess_tiles(plan, FileSource(str(path)), list(plan.grid))
    image = pixels(path).astype(np.float32) / 127.5 - 1
    reference = load_model(str(model), device="cpu").reference
    views = {0: (slice(0, 304), slice(0, 256)), 1: (slice(144, 448), slice(48, 304))}
    assert len(plan.grid) == len(views)
    for tile in plan.grid:
        view, part = views[tile.number]
        seen = np.pad(image[:, :, view], ((0, 0), (0, 56), (0, 0)), mode="symmetric")
        expected = reference(torch.from_numpy(seen[None]))[0].numpy()[:, :200, part]
        np.testing.assert_allclose(guesses[tile.number], expected, atol=1e-5)
        plain = reference(torch.from_numpy(np.ascontiguousarray(seen[..., part])[None]))[0].numpy()[:, :200]
        assert np.abs(plain - expected).max() > 1e-3


def test_who_calls_may_say_how_far_it_sees(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 256, 448)
    image = pixels(path).astype(np.float32) / 127.5 - 1
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), halo=0, device="cpu")).plan
    guesses = guess_tiles(plan, FileSource(str(path)), list(plan.grid))
    alone = load_model(str(model), device="cpu").reference(torch.from_numpy(image[None, :, :, :256].copy()))
    np.testing.assert_allclose(guesses[0], alone[0].numpy(), atol=1e-5)


def test_a_run_that_sees_otherwise_is_another_run(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 200, 256)
    with RasterioScene.open(path) as scene:
        guards = [
            run_guard(scene, plan_scene(scene, Options(model=str(model), halo=halo)), "deflate", 512)
            for halo in (None, 24, 25)
        ]
    assert guards[0] == guards[1]
    assert guards[0] != guards[2]


def test_batches_and_a_dataarray_give_the_same_file(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 300, 460)
    options = {"model": str(model), "mask": "none", "device": "cpu"}
    for size in (1, 4):
        process_scene(path, tmp_path / f"{size}.tif", batch_size=size, **options)
    np.testing.assert_array_equal(pixels(tmp_path / "1.tif"), pixels(tmp_path / "4.tif"))
    array = rioxarray.open_rasterio(path, chunks={"x": 128, "y": 128})
    np.testing.assert_array_equal(restore(array, **options).values, pixels(tmp_path / "1.tif"))


def test_a_model_that_says_nothing_of_it_sees_its_tile_alone():
    assert SamplingConfig().halo == 0
