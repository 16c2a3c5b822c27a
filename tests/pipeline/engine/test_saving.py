"""Finished tiles are saved as they come, however quick the restorer and wherever its workers are."""

import numpy as np
import pytest
from raster_cases import plain, write

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import RunCancelledError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.system.progress import Progress

SHAPE = (1536, 2048)
"""Of 3 x 4 blocks and 88 tiles, px."""


class Ending(Progress):
    """Ends a run once so many tiles are restored, and remembers how many were."""

    def __init__(self, last):
        self.last, self.done, self.first = last, 0, None

    def tiles(self, done, total):
        self.first = done if self.first is None else self.first
        self.done = max(self.done, done)
        if done >= self.last:
            raise RunCancelledError("enough")


@pytest.fixture(scope="module")
def clouded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouded")
    mask = write(folder / "mask.tif", np.ones((1, *SHAPE), "uint8"))
    return plain(folder / "scene.tif", SHAPE), {"model": "fill", "mask": str(mask)}


@pytest.mark.parametrize("workers", [1, 2])
def test_nearly_all_tiles_of_the_quickest_model_are_kept(workers, clouded, tmp_path):
    scene, options = clouded
    for last in (20, 45, 65):
        out = tmp_path / f"clean-{last}.tif"
        ending = Ending(last)
        with pytest.raises(RunCancelledError):
            process_scene(scene, out, workers=workers, progress=ending, **options)
        going_on = Ending(1000)
        report = process_scene(scene, out, workers=workers, progress=going_on, **options)
        assert ending.done - going_on.first <= 0.05 * report.tiles["total"]
        assert report.tiles["kept"] == going_on.first


def test_the_batches_of_all_models_together_are_a_small_part_of_the_tiles(tmp_path):
    shape = (3400, 5800)
    mask = write(tmp_path / "mask.tif", np.ones((1, *shape), "uint8"))
    with RasterioScene.open(plain(tmp_path / "scene.tif", shape, 1)) as scene:
        planned = plan_scene(scene, Options(model="fill", mask=str(mask)))
    assert planned.tiles_to_restore == 540
    for workers, size in {1: 8, 2: 5, 4: 2, 1000: 1}.items():
        assert planned.batches(None, workers).largest == size
        assert planned.batches(3, workers).largest == 3, "a size that is asked for is kept"
