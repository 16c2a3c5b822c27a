"""The rasters of one run, side by side: whoever is refused touches nothing of the run that is there."""

from contextlib import suppress

import numpy as np
import pytest
import raster_cases as cases

from decr_scene.pipeline.errors import ResumeError
from decr_scene.pipeline.files import UNFINISHED, part_path, tiles_path
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.writing.origin import CopyOf
from decr_scene.pipeline.writing.tile_store import TileStore
from decr_scene.pipeline.writing.together import WritersTogether
from decr_scene.pipeline.writing.writer import SceneWriter

TILE = np.ones((1, 8, 8), np.float32)


def run(scene, out, seed):
    guard = {"seed": seed}
    tiles = TileStore(tiles_path(out), guard, TILE.nbytes, 4)
    return WritersTogether([SceneWriter(CopyOf(scene), out, guard=guard)], tiles=tiles)


def interrupted(scene, out, meanwhile):
    """A run that does something and is then interrupted."""
    with suppress(KeyboardInterrupt), run(scene, out, 0) as writers:
        meanwhile(writers.tiles)
        raise KeyboardInterrupt


def test_a_run_that_is_refused_takes_nothing_from_the_one_that_is_at_it_or_was_interrupted(tmp_path):
    scene = RasterioScene.open(cases.plain(tmp_path / "scene.tif", (40, 50), 1))
    out = tmp_path / "out.tif"
    made, found = part_path(out, UNFINISHED, "cog"), []

    def be_disturbed(tiles):
        tiles.save([3], {3: TILE})
        made.touch()
        with pytest.raises(ResumeError, match="in use"):
            run(scene, out, 0).__enter__()
        found.extend([made.exists(), tiles_path(out).exists()])

    interrupted(scene, out, be_disturbed)
    assert found == [True, True]
    with pytest.raises(ResumeError, match="seed differ"):
        run(scene, out, 1).__enter__()
    interrupted(scene, out, lambda tiles: found.append(3 in tiles))
    assert found == [True, True, True]
