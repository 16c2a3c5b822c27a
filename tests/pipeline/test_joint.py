"""``--blend joint``: neighbouring tiles are one picture at every diffusion step."""

import numpy as np
import pytest
import rioxarray
from sample_cases import LANDSAT, part_of_landsat, pixels

from decr_scene.pipeline import process_scene, restore
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.restoration.tasks import guess_tiles, restore_tiles

FROM_NOISE = {"model": "rice2", "mask": "none", "device": "cpu", "start": 1000, "steps": 2, "weight_floor": 0}


def assert_same(found, expected):
    """Or by 1 DN in 1 of 10 000 pixels: two workers give a network a thread each, which add up otherwise."""
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4


def disagreement(scene, blend):
    """Greatest and mean difference of two neighbours where they overlap, before they are feathered."""
    with RasterioScene.open(scene) as opened:
        plan = plan_scene(opened, Options(blend=blend, **FROM_NOISE)).plan
    source, tiles = FileSource(str(scene)), list(plan.grid)
    changes = restore_tiles(plan, source, tiles, guess_tiles(plan, source, tiles))
    left, right = (changes[tile.number] for tile in tiles)
    overlap = plan.grid.size - tiles[1].col
    difference = np.abs(left[:, :, -overlap:] - right[:, :, :overlap])
    return difference.max(), difference.mean()


def test_tiles_that_are_denoised_together_agree(tmp_path):
    scene = part_of_landsat(tmp_path / "scene.tif", 256, 448)
    apart, together = disagreement(scene, "feather"), disagreement(scene, "joint")
    print(f"disagreement in the overlap: apart {apart}, together {together}, of 2")
    assert apart[1] > 1e-3
    assert together[0] < 1e-6


def test_of_a_single_tile_it_is_the_same(tmp_path):
    scene = part_of_landsat(tmp_path / "scene.tif", 200, 256)
    for blend in ("feather", "joint"):
        process_scene(scene, tmp_path / f"{blend}.tif", blend=blend, **FROM_NOISE)
    np.testing.assert_array_equal(pixels(tmp_path / "joint.tif"), pixels(tmp_path / "feather.tif"))


@pytest.mark.slow
def test_neither_batches_nor_workers_nor_a_dataarray_change_the_picture(tmp_path):
    scene = part_of_landsat(tmp_path / "scene.tif", 256, 640)
    options = {**FROM_NOISE, "blend": "joint"}
    process_scene(scene, tmp_path / "one.tif", batch_size=1, **options)
    process_scene(scene, tmp_path / "two.tif", workers=2, **options)
    lazy = restore(rioxarray.open_rasterio(scene), **options).to_numpy()
    for other in (pixels(tmp_path / "two.tif"), lazy):
        assert_same(other, pixels(tmp_path / "one.tif"))


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(tmp_path):
    with RasterioScene.open(LANDSAT) as scene:
        plans = [plan_scene(scene, Options(blend=blend, **FROM_NOISE)) for blend in ("feather", "joint")]
        guards = [run_guard(scene, planned, "deflate", 512) for planned in plans]
    assert guards[0] != guards[1]


def test_what_has_no_steps_cannot_be_asked_to(scene, tmp_path):
    with pytest.raises(OptionError, match="blend feather, or a model"):
        process_scene(scene, tmp_path / "out.tif", restorer=lambda tiles, noise: tiles, blend="joint")
    with pytest.raises(OptionError, match="blend must be feather or joint, got mean"):
        process_scene(scene, tmp_path / "out.tif", blend="mean")
    assert not (tmp_path / "out.tif").exists()
    process_scene(scene, tmp_path / "out.tif", model="identity", blend="joint")
    np.testing.assert_array_equal(pixels(tmp_path / "out.tif"), pixels(scene))
