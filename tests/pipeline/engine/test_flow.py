"""How much of a scene is under way, and what its models are given meanwhile."""

import threading
import time

import numpy as np
import pytest
import rasterio
from distributed import Client, LocalCluster
from raster_cases import plain

from decr_scene.pipeline import Progress, process_scene
from decr_scene.pipeline.engine import flow as module
from decr_scene.pipeline.engine import under_way
from decr_scene.pipeline.engine.flow import Flow
from decr_scene.pipeline.engine.under_way import CHUNK_COLS, WINDOWS_UNDER_WAY
from decr_scene.pipeline.engine.workers import HOLDS_MODEL, count_threads
from decr_scene.pipeline.errors import RunCancelledError
from decr_scene.pipeline.restoration import blending
from decr_scene.pipeline.writing.together import WritersTogether


def test_of_a_wide_scene_no_more_windows_are_under_way(tmp_path, monkeypatch):
    """A row of it has more windows than that; one more is being written."""
    under_way, most, rows = set(), 0, 3
    blend, write = Flow._blend, WritersTogether.write

    def submit(flow, span):
        nonlocal most
        under_way.add(span)
        most = max(most, len(under_way))
        return blend(flow, span)

    def put(writers, span, *pixels):
        write(writers, span, *pixels)
        under_way.remove(span)

    monkeypatch.setattr(Flow, "_blend", submit)
    monkeypatch.setattr(WritersTogether, "write", put)
    scene = plain(tmp_path / "wide.tif", (512 * rows, (WINDOWS_UNDER_WAY + 2) * CHUNK_COLS), 1)
    report = process_scene(scene, tmp_path / "out.tif", model="identity", blocksize=512)
    assert all(report.checks.values())
    assert not under_way
    assert 2 < most <= WINDOWS_UNDER_WAY + 1


class Slow:
    """Takes its time, and counts its batches."""

    needs_noise = False

    def __init__(self, seconds):
        self.seconds, self.ends = seconds, []

    def __call__(self, tiles, noise):
        time.sleep(self.seconds)
        self.ends.append(time.monotonic())
        return np.maximum(tiles - 0.1, -1)


def test_models_are_given_batches_while_a_window_is_blended(tmp_path, monkeypatch):
    """Beyond the 15 tiles that the windows under way need, as many as may be ahead."""
    scene, restorer, own = plain(tmp_path / "scene.tif", (2048, 1024), 1), Slow(0.01), blending.tiles_over
    expected, done = 15 + 2 * under_way.TASKS_AHEAD, []
    monkeypatch.setattr(under_way, "BATCHES_A_TASK", 1)

    def slowly(*arguments):
        if not done:
            patience = time.monotonic() + 20
            while len(restorer.ends) < expected and time.monotonic() < patience:
                time.sleep(0.01)
            time.sleep(0.5)  # for those that are too many
            done.append(len(restorer.ends))
        return own(*arguments)

    monkeypatch.setattr(blending, "tiles_over", slowly)
    options = {"scale": (0, 6000), "batch_size": 1, "blocksize": 256}
    process_scene(scene, tmp_path / "out.tif", restorer=restorer, **options)
    assert done[0] == expected


@pytest.mark.parametrize(("seconds", "largest"), [(0.001, under_way.BATCHES_A_TASK), (0.3, 1)])
def test_batches_of_a_quick_model_share_tasks(seconds, largest, tmp_path, monkeypatch):
    """It is called for each of them as before, and gives the same picture."""
    scene, restorer = plain(tmp_path / "scene.tif", (1800, 900), 1), Slow(seconds)
    tasks, submit = [], Client.submit

    def note(client, task, *arguments, **options):
        if task is module.restore_batches:
            tasks.append([len(tiles) for tiles in arguments[2]])
        return submit(client, task, *arguments, **options)

    monkeypatch.setattr(Client, "submit", note)
    options = {"restorer": restorer, "scale": (0, 6000), "batch_size": 2, "overwrite": True}
    report = process_scene(scene, tmp_path / "out.tif", **options)
    assert [size for sizes in tasks for size in sizes] == [2] * (report.tiles["total"] // 2)
    assert len(restorer.ends) == report.tiles["total"] // 2
    assert max(map(len, tasks)) <= largest
    assert (len(tasks) < len(restorer.ends)) == (largest > 1)
    with rasterio.open(tmp_path / "out.tif") as out:
        pixels = out.read()
    monkeypatch.setattr(under_way, "BATCHES_A_TASK", 1)
    process_scene(scene, tmp_path / "out.tif", **{**options, "restorer": Slow(0.001)})
    with rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_array_equal(out.read(), pixels)


def test_batches_whose_callback_came_as_their_worker_died_are_counted(tmp_path, monkeypatch):
    class Lost:
        status = "lost"

    own, calls = Flow._take, []

    def take(flow, numbers, done):
        calls.append(numbers)
        own(flow, numbers, Lost if len(calls) == 2 else done)

    monkeypatch.setattr(Flow, "_take", take)
    scene = plain(tmp_path / "scene.tif", (600, 600), 1)
    report = process_scene(scene, tmp_path / "out.tif", restorer=Slow(0.01), scale=(0, 6000), batch_size=1)
    assert len(calls) > 2
    assert report.tiles["restored"] == report.tiles["total"]


def test_a_cancel_is_seen_between_batches(tmp_path):
    """Not only when the first window is done, which takes seconds here."""
    scene, restorer, cancel = plain(tmp_path / "scene.tif", (2048, 4096), 1), Slow(0.1), threading.Event()

    class Impatient(Progress):
        def tiles(self, done, total):
            if done:
                cancel.set()

    with pytest.raises(RunCancelledError):
        process_scene(
            scene,
            tmp_path / "out.tif",
            restorer=restorer,
            scale=(0, 6000),
            batch_size=1,
            cancel=cancel,
            progress=Impatient(),
        )
    assert len(restorer.ends) <= 12


@pytest.mark.parametrize("threads", [1, 3])
def test_blending_comes_last_where_a_thread_is_left_for_it(threads, tmp_path, monkeypatch):
    scene, priorities, submit = plain(tmp_path / "scene.tif", (600, 300), 1), set(), Client.submit

    def note(client, task, *arguments, **options):
        if task is module.blend_tiles:
            priorities.add(options["priority"])
        return submit(client, task, *arguments, **options)

    monkeypatch.setattr(Client, "submit", note)
    with LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        resources=HOLDS_MODEL,
        dashboard_address=":0",
    ) as cluster:
        with Client(cluster) as client:
            assert count_threads(client) == [threads]
        process_scene(scene, tmp_path / "out.tif", restorer=Slow(0), scheduler=cluster.scheduler_address)
    assert priorities == ({module._LAST} if threads > 2 else {0})
