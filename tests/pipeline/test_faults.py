"""What goes wrong under a run, done for real: killed processes, and input that is damaged or replaced."""

import json
import os
import random
import signal

import pytest
import rasterio
from fault_cases import (
    OPTIONS,
    SHAPE,
    Filling,
    Smooth,
    assert_same_file,
    forget,
    left_in,
    places,
    run,
    run_and_die,
    seen,
    wait_until,
)
from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import ResumeError, SceneReadError
from decr_scene.pipeline.files import journal_path
from decr_scene.pipeline.tiling.grid import Span, TileGrid

KILLS = 10
PAUSE = 0.1
"""Seconds a batch, so that most of a run is restoring and kills fall into it."""


def unfinished_tiles(out):
    """Numbers of the tiles that some window needs which is not finished in output and provenance."""
    done = None
    for path in (out, out.with_name(f"{out.stem}_provenance.tif")):
        journal = journal_path(path)
        lines = journal.read_text().split("\n")[1:-1] if journal.exists() else []
        notes = [json.loads(line) for line in lines]
        spans = {Span(*note["window"]) for note in notes if "window" in note}
        done = spans if done is None else done & spans
    grid, size = TileGrid(SHAPE), OPTIONS["blocksize"]
    rows = (Span(row, 0, min(size, SHAPE[0] - row), SHAPE[1]) for row in range(0, SHAPE[0], size))
    return {tile.number for span in rows if span not in done for tile in grid.touching(span)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_may_be_killed_at_any_moment(long_scene, whole, log, tmp_path, processes):
    out, numbers, rng = tmp_path / "clean.tif", places(SHAPE, 1), random.Random(1)
    kills = resumed = beyond = 0
    while kills < KILLS:
        forget(log)
        needed = unfinished_tiles(out)
        process = processes.Process(target=run, args=(long_scene, out, log, PAUSE))
        process.start()
        at_least = rng.randint(0, len(needed))
        wait_until(lambda process=process, n=at_least: len(seen(log)) >= n or not process.is_alive())
        process.join(rng.uniform(0, 3 * PAUSE))
        killed = process.is_alive()
        process.kill()
        process.join()
        redone = [numbers[tile] for tile in seen(log)]
        assert len(redone) == len(set(redone))
        beyond = max(beyond, len(set(redone) - needed))
        resumed += len(needed) < len(numbers) and bool(redone)
        kills += killed
        if out.exists():
            assert_same_file(out, whole)
            for path in tmp_path.glob("clean*"):
                path.unlink()
        else:
            assert killed
    if not out.exists():
        run(long_scene, out, log)
    assert_same_file(out, whole)
    assert not left_in(tmp_path)
    assert resumed >= 3, "kills came too early or too late to show anything"
    assert beyond <= 0.05 * len(numbers)


def test_a_kill_costs_what_is_in_the_model(log, tmp_path, processes):
    """In 5 x 5 tiles of 2 x 2 blocks no block is finished when the first kills come."""
    shape = (900, 900)
    scene, out = plain(tmp_path / "scene.tif", shape, 1), tmp_path / "clean.tif"
    process_scene(scene, tmp_path / "whole.tif", restorer=Smooth(log))
    tiles = sorted(seen(log))
    forget(log)
    for batch in (5, 9, 8):
        process = processes.Process(target=run_and_die, args=(scene, out, log, batch))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    report = process_scene(scene, out, restorer=Smooth(log))
    assert sorted(set(seen(log))) == tiles
    assert len(seen(log)) - len(tiles) <= 0.05 * len(tiles)
    assert report.tiles["restored"] < len(tiles) / 4
    assert_same_file(out, tmp_path / "whole.tif")
    assert not left_in(tmp_path)


def test_a_window_that_cannot_be_read(log, tmp_path):
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    scene, out = plain(tmp_path / "scene.tif", SHAPE, 1, **profile), tmp_path / "clean.tif"
    with rasterio.open(scene) as dataset:
        place, size = (
            int(dataset.get_tag_item(f"BLOCK_{w}_2_3", "TIFF", bidx=1)) for w in ("OFFSET", "SIZE")
        )
    with scene.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * size)
    with pytest.raises(
        SceneReadError, match=r"scene\.tif: cannot read rows \d+ to \d+, cols \d+ to \d+ .*dam"
    ):
        process_scene(scene, out, restorer=Smooth(log), **OPTIONS)
    assert not out.exists()
    assert list(tmp_path.glob("clean*")) == []


def test_an_input_that_is_cut_short(long_scene, log, tmp_path):
    os.truncate(long_scene, long_scene.stat().st_size * 2 // 3)
    with pytest.raises(SceneReadError, match=r"scene\.tif: cannot read rows .*(damaged|incomplete)"):
        process_scene(long_scene, tmp_path / "clean.tif", restorer=Smooth(log), **OPTIONS)
    assert not (tmp_path / "clean.tif").exists()


def test_an_input_that_was_replaced_between_two_runs(long_scene, log, tmp_path):
    def fail():
        raise OSError("the machine is on fire")

    out = tmp_path / "clean.tif"
    with pytest.raises(OSError, match="fire"):
        process_scene(long_scene, out, restorer=Filling(log, 14, fail), **OPTIONS)
    other = plain(tmp_path / "other.tif", SHAPE, 1, "int16")
    os.replace(other, long_scene)
    with pytest.raises(ResumeError, match=r"input.* differ.*--no-resume"):
        process_scene(long_scene, out, restorer=Smooth(log), **OPTIONS)
    forget(log)
    process_scene(long_scene, out, restorer=Smooth(log), resume=False, **OPTIONS)
    assert len(seen(log)) == len(TileGrid(SHAPE))
    assert not left_in(tmp_path)
