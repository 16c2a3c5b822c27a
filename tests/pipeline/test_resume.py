"""What is finished survives a kill, a fault and Ctrl-C, and only the same run goes on from it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from fault_cases import wait_until
from places import TESTS
from raster_cases import draw, plain, write
from resume_cases import hidden, large, little
from test_run import assert_same_pixels, pixels_of, smooth

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine import flow
from decr_scene.pipeline.errors import ResumeError
from decr_scene.pipeline.files import journal_path, tiles_path
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.restorers import Fill
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing import writer
from decr_scene.pipeline.writing.journal import Entry, Journal
from decr_scene.pipeline.writing.statistics import BandStatistics
from decr_scene.pipeline.writing.tile_store import TileStore

HELPERS = [str(TESTS / "pipeline"), str(TESTS)]
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not hear Ctrl-C
from decr_scene.pipeline import process_scene
sys.path[:0] = {path!r}
from test_run import smooth

def slow_smooth(tiles, noise):
    time.sleep(0.4)
    return smooth(tiles, noise)

slow_smooth.__name__ = "smooth"
process_scene({scene!r}, {out!r}, restorer=slow_smooth, batch_size=2, blocksize=128)
"""

TILE_BYTES = 256 * 256 * 4
"""Of the change of a tile of one band."""


@pytest.fixture
def scene(tmp_path):
    return large(tmp_path)


@pytest.fixture
def whole(whole_of):
    return whole_of(large)


def failing_after(count, until=lambda: True):
    """A restorer that fails once ``count`` tiles are done and ``until`` holds; the tiles that it has seen."""
    seen = []

    def smooth_for_a_while(tiles, noise):
        if sum(seen) >= count:
            deadline = time.monotonic() + 60
            while not until() and time.monotonic() < deadline:  # others save tiles meanwhile
                time.sleep(0.01)
            raise OSError("the machine is on fire")
        seen.append(len(tiles))
        return smooth(tiles, noise)

    smooth_for_a_while.__name__ = "smooth"
    return smooth_for_a_while, seen


def burn(scene, out):
    """Process a scene until 22 tiles are done and the restorer fails."""
    failing, _ = failing_after(22)
    with pytest.raises(OSError, match="fire"):
        process_scene(scene, out, restorer=failing, batch_size=2)


@pytest.fixture(scope="module")
def fire(tmp_path_factory):
    """A scene, and the folder in which the restorer's failure has left its output; to be copied."""
    scene, left = large(tmp_path_factory.mktemp("fire")), tmp_path_factory.mktemp("left")
    burn(scene, left / "clean.tif")
    return scene, left


@pytest.fixture
def burnt(fire, tmp_path):
    """That scene, which must not change, with the unfinished output in a folder of the test's own."""
    scene, left = fire
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    return scene


def test_a_run_goes_on_where_it_failed(scene, whole, tmp_path):
    burn(scene, tmp_path / "clean.tif")
    assert not (tmp_path / "clean.tif").exists()
    assert hidden(tmp_path)
    going_on, second = failing_after(1000)
    report = process_scene(scene, tmp_path / "clean.tif", restorer=going_on, batch_size=2)
    assert report.tiles["windows_resumed"] >= 1
    assert sum(second) == report.tiles["total"] - report.tiles["kept"] < report.tiles["total"]
    assert not hidden(tmp_path)
    assert whole.read_bytes() == (tmp_path / "clean.tif").read_bytes()


def test_without_resume_everything_is_done_again(burnt, tmp_path):
    again, seen = failing_after(1000)
    report = process_scene(burnt, tmp_path / "clean.tif", restorer=again, batch_size=2, resume=False)
    assert sum(seen) == report.tiles["total"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"overlap": 32}, {"scale": (0, 9)}, {"blocksize": 256}])
def test_another_run_does_not_go_on(change, burnt, tmp_path):
    with pytest.raises(ResumeError, match="--no-resume"):
        process_scene(burnt, tmp_path / "clean.tif", restorer=smooth, **change)
    assert journal_path(tmp_path / "clean.tif").exists()


@pytest.mark.parametrize(("name", "what"), [("scene.tif", "input"), ("scene.vrt", "files of the input")])
def test_another_input_does_not_go_on(name, what, scene, tmp_path):
    if name != scene.name:
        rasterio.shutil.copy(scene, tmp_path / name, driver="VRT")
    burn(tmp_path / name, tmp_path / "clean.tif")
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(np.full((1, 5, 5), 9, np.uint16), window=((0, 5), (0, 5)))
    with pytest.raises(ResumeError, match=what):
        process_scene(tmp_path / name, tmp_path / "clean.tif", restorer=smooth)


def test_pixels_that_did_not_reach_the_disk_are_made_again(burnt, whole, tmp_path):
    (scratch,) = tmp_path.glob(".clean.tif.*.scratch.partial.tif")
    with rasterio.open(scratch, "r+") as dataset:
        dataset.write(np.zeros((1, 100, 100), np.uint16), window=((0, 100), (0, 100)))
    process_scene(burnt, tmp_path / "clean.tif", restorer=smooth)
    assert_same_pixels(whole, tmp_path / "clean.tif")


def test_a_journal_line_that_was_cut_short_does_not_count(burnt, whole, tmp_path):
    journal = journal_path(tmp_path / "clean.tif")
    journal.write_text(journal.read_text()[:-7])
    process_scene(burnt, tmp_path / "clean.tif", restorer=smooth)
    assert_same_pixels(whole, tmp_path / "clean.tif")


@pytest.mark.parametrize("line", [0, 1])
def test_a_journal_that_a_power_cut_has_damaged_costs_what_it_has_lost(line, burnt, whole, tmp_path):
    journal = journal_path(tmp_path / "clean.tif")
    lines = journal.read_bytes().split(b"\n")
    lines[line] = b"\0\xff" * (len(lines[line]) // 2)
    journal.write_bytes(b"\n".join(lines))
    process_scene(burnt, tmp_path / "clean.tif", restorer=smooth)
    assert_same_pixels(whole, tmp_path / "clean.tif")
    assert not hidden(tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.7])
def test_scratch_files_that_a_power_cut_has_cut_short_cost_what_they_have_lost(share, burnt, whole, tmp_path):
    for path in tmp_path.glob(".*.scratch.partial.tif"):
        os.truncate(path, int(path.stat().st_size * share))
    report = process_scene(burnt, tmp_path / "clean.tif", restorer=smooth)
    assert report.tiles["windows_resumed"] == 0
    assert_same_pixels(whole, tmp_path / "clean.tif")
    assert_same_pixels(whole.with_name("whole_provenance.tif"), tmp_path / "clean_provenance.tif")
    assert not hidden(tmp_path)


def test_a_damaged_tile_is_restored_again(scene, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "SAVING_SHARE", 1e9)  # every tile is saved, however quick the restorer is
    store = tiles_path(tmp_path / "clean.tif")
    failing, first = failing_after(8, until=lambda: store.stat().st_size > 4 * TILE_BYTES)
    with pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", restorer=failing, batch_size=2)
    with store.open("r+b") as file:
        file.seek(9000)
        file.write(b"damaged")
    going_on, second = failing_after(1000)
    report = process_scene(scene, tmp_path / "clean.tif", restorer=going_on, batch_size=2)
    assert 0 < report.tiles["tiles_resumed"] < sum(first)
    assert sum(second) == report.tiles["total"] - report.tiles["tiles_resumed"]
    assert whole.read_bytes() == (tmp_path / "clean.tif").read_bytes()


@pytest.mark.parametrize(("share", "saved"), [(1e9, True), (-1, False)])
def test_tiles_of_a_restorer_that_is_quicker_than_saving_are_not_saved(
    share, saved, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(flow, "SAVING_SHARE", share)
    failing, _ = failing_after(3)
    with pytest.raises(OSError, match="fire"):
        process_scene(small, tmp_path / "clean.tif", restorer=failing, batch_size=1)
    report = process_scene(small, tmp_path / "clean.tif", restorer=smooth, batch_size=1)
    assert (report.tiles["tiles_resumed"] > 0) == saved


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'"window"', b'"widow"'),
        lambda line: line.replace(b"[[", b"[[1", 1),
        lambda line: b"{}",
        lambda line: b"7",
    ],
)
def test_a_line_that_is_no_longer_what_it_was_means_that_part_again(damage, tmp_path, caplog):
    path, statistics = tmp_path / "journal", (BandStatistics.of(np.arange(4)),)
    journal = Journal(path, {"seed": 1})
    for row in (0, 128):
        journal.add(Span(row, 0, 128, 128), Entry(5, statistics))
    journal.close()
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage(lines[1])
    path.write_bytes(b"\n".join(lines))
    again = Journal(path, {"seed": 1})
    again.close()
    assert again.finished == {Span(128, 0, 128, 128): Entry(5, statistics)}
    assert [record.getMessage().count("1 of 2 lines") for record in caplog.records] == [1]


def test_another_mask_beside_the_input_does_not_go_on(scene, tmp_path):
    mask = plain(tmp_path / "scene.tif.msk", (1500, 700), 1, "uint8")
    with rasterio.open(mask, "r+") as dataset:
        dataset.update_tags(INTERNAL_MASK_FLAGS_1="2")
    burn(scene, tmp_path / "clean.tif")
    with rasterio.open(mask, "r+") as dataset:
        dataset.write(np.zeros((1, 500, 700), np.uint8), window=((0, 500), (0, 700)))
    with pytest.raises(ResumeError, match="files of the input"):
        process_scene(scene, tmp_path / "clean.tif", restorer=smooth)


def test_bands_of_other_names_are_another_run(tmp_path):
    image = draw((90, 80), 4, "uint8")
    path = write(tmp_path / "scene.tif", image, photometric="RGB", alpha="yes")
    guards = []
    for bands in (None, "red,green,blue,nir"):
        scene = RasterioScene.open(path, bands)
        planned = plan_scene(scene, Options(model="rice2", bands=bands))
        guards.append(run_guard(scene, planned, "auto", 512))
    assert guards[0] != guards[1], "what is alpha to the one is no alpha to the other"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_nothing_but_what_it_needs_to_go_on(how, scene, whole_of, tmp_path):
    out = tmp_path / "clean.tif"
    code = SLOW.format(path=HELPERS, scene=str(scene), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    last = journal_path(tmp_path / "clean_provenance.tif")  # a window is finished when it stands there too
    while not (last.exists() and last.read_text().count("\n") >= 4):
        assert process.poll() is None, "it finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait(60) != 0
    assert not out.exists()
    report = process_scene(scene, out, restorer=smooth, batch_size=2, blocksize=128)
    assert report.tiles["windows_resumed"] >= 3
    whole = whole_of(large, 128)
    np.testing.assert_array_equal(pixels_of(out), pixels_of(whole))
    assert out.read_bytes() == whole.read_bytes()
    assert not hidden(tmp_path)


@pytest.mark.slow
def test_two_runs_at_one_output_do_not_meet(scene, tmp_path):
    out = tmp_path / "clean.tif"
    code = SLOW.format(path=HELPERS, scene=str(scene), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        while not (journal_path(out).exists() and journal_path(out).read_text().count("\n") >= 2):
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(ResumeError, match="in use"):
            process_scene(scene, out, restorer=smooth, batch_size=2, blocksize=128)
        assert process.wait(120) == 0
        assert out.exists()
    finally:
        process.kill()


def test_tiles_of_the_fill_are_kept_too(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "SAVING_SHARE", 1e9)
    scene, mask = little(tmp_path), write(tmp_path / "mask.tif", np.ones((1, 300, 280), "uint8"))
    same = {"model": "fill", "mask": str(mask), "batch_size": 1}
    restore, seen = Fill.restore, []
    kept = tiles_path(tmp_path / "clean.tif")

    def failing(*args, **options):
        if len(seen) == 3:
            wait_until(lambda: kept.exists() and kept.stat().st_size > 0)  # tiles are saved beside the work
            raise OSError("the machine is on fire")
        seen.append(1)
        return restore(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Fill, "restore", failing)
        with pytest.raises(OSError, match="fire"):
            process_scene(scene, tmp_path / "clean.tif", **same)
    report = process_scene(scene, tmp_path / "clean.tif", **same)
    assert report.tiles["tiles_resumed"] > 0
    process_scene(scene, tmp_path / "whole.tif", **same)
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "clean.tif").read_bytes()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_whoever_stops_while_it_is_checked_what_is_finished_loses_nothing(
    fault, scene, tmp_path, monkeypatch
):
    burn(scene, tmp_path / "clean.tif")
    left = hidden(tmp_path)

    def stop(*_):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_is_whole", stop)
        with pytest.raises(fault):
            process_scene(scene, tmp_path / "clean.tif", restorer=smooth, batch_size=2)
    assert hidden(tmp_path) == left
    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "_tile_at", stop)
        with pytest.raises(fault):
            process_scene(scene, tmp_path / "clean.tif", restorer=smooth, batch_size=2)
    assert hidden(tmp_path) == left
    report = process_scene(scene, tmp_path / "clean.tif", restorer=smooth, batch_size=2)
    assert report.tiles["windows_resumed"] >= 1
    assert report.tiles["tiles_resumed"] >= 1
