"""What goes wrong under a run, done for real: killed processes, full disks, broken files, lost clusters."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError
from fault_cases import (
    OPTIONS,
    Deadly,
    Filling,
    Smooth,
    places,
    run,
    run_and_die,
    run_with_small_files,
    seen,
)
from raster_cases import plain
from test_run import assert_same_pixels

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine.workers import RestorerPlugin, at_every_worker
from decr_scene.pipeline.errors import ClusterError, OutputError, ResumeError, SceneReadError
from decr_scene.pipeline.files import journal_path
from decr_scene.pipeline.restoration.restorers import _open_model
from decr_scene.pipeline.tiling.grid import Span, TileGrid

HERE = Path(__file__).parent
SHAPE = (1500, 1100)
KILLS = 10
PAUSE = 0.1
"""Seconds a batch, so that most of a run is restoring and kills fall into it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A scene, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    scene, whole = plain(folder / "scene.tif", SHAPE, 1), folder / "whole.tif"
    process_scene(scene, whole, restorer=Smooth(folder), **OPTIONS)
    return scene, whole


@pytest.fixture
def scene(undisturbed, tmp_path):
    """A copy of the scene, which may be damaged."""
    return Path(shutil.copy(undisturbed[0], tmp_path))


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def whole(undisturbed):
    return undisturbed[1]


@pytest.fixture(scope="module")
def processes():
    """Processes that have everything imported when they start, so that killing them takes no patience."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decr_scene.pipeline.run", "scipy.ndimage"])
    return context


def forget(log):
    for file in log.iterdir():
        file.unlink()


def assert_same_file(one, other):
    assert one.read_bytes() == other.read_bytes()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def under_way(out, at_least):
    """Whether so many windows are finished."""
    return journal_path(out).exists() and journal_path(out).read_text().count("\n") > at_least


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


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
def test_a_process_may_be_killed_at_any_moment(scene, whole, log, tmp_path, processes):
    out, numbers, rng = tmp_path / "clean.tif", places(SHAPE, 1), random.Random(1)
    began = time.monotonic()
    process = processes.Process(target=run, args=(scene, tmp_path / "timed.tif", log, PAUSE))
    process.start()
    process.join()
    assert process.exitcode == 0
    lasts = time.monotonic() - began
    kills = resumed = beyond = finished = 0
    while kills < KILLS:
        forget(log)
        needed = unfinished_tiles(out)
        process = processes.Process(target=run, args=(scene, out, log, PAUSE))
        process.start()
        process.join(rng.uniform(0, 1.1 * lasts))
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
            finished += 1
            for path in tmp_path.glob("clean*"):
                path.unlink()
        else:
            assert killed
    if not out.exists():
        run(scene, out, log)
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


@pytest.mark.slow
def test_a_worker_may_be_killed(scene, whole, log, tmp_path):
    out, victims = tmp_path / "clean.tif", []

    def kill_one():
        wait_until(lambda: under_way(out, 2))
        victims.append(int(next(log.glob("*.tiles")).stem))
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    process_scene(scene, out, restorer=Smooth(log, 0.1), workers=2, **OPTIONS)
    killer.join()
    assert victims
    assert victims[0] != os.getpid()
    assert_same_file(out, whole)


@pytest.mark.slow
def test_workers_that_always_die_are_one_clear_error(scene, whole, log, tmp_path):
    out = tmp_path / "clean.tif"
    with pytest.raises(ClusterError, match=r"4 workers died of the task restore-.*batch-size"):
        process_scene(scene, out, restorer=Deadly(log), workers=2, **OPTIONS)
    assert not out.exists()
    process_scene(scene, out, restorer=Smooth(log), **OPTIONS)
    assert_same_file(out, whole)


@pytest.mark.slow
def test_the_workers_of_a_killed_process_die_with_it_and_say_nothing(scene, log, tmp_path):
    out = tmp_path / "clean.tif"
    code = (
        "from pathlib import Path; from decr_scene.pipeline import process_scene; from fault_cases import *\n"
        "if __name__ == '__main__':\n"
        f"    restorer = Smooth(Path({str(log)!r}), 0.2)\n"
        f"    process_scene({str(scene)!r}, {str(out)!r}, restorer=restorer, workers=2, **OPTIONS)"
    )
    (tmp_path / "main.py").write_text(code)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, str(tmp_path / "main.py")]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(command, stderr=said, env=environment)
    wait_until(lambda: under_way(out, 1))
    process.kill()
    process.wait()
    workers = [int(file.stem) for file in log.glob("*.tiles")]
    assert workers
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 60)
    assert "semaphore" not in (tmp_path / "said").read_text()


@contextmanager
def small_disk(folder, megabytes):
    """A file system of its own."""
    folder.mkdir()
    options = f"size={megabytes}m"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("NO FULL DISK HERE: mounting a small file system is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("batch", [14, 23])
def test_a_disk_that_fills_up(batch, scene, whole, log, tmp_path):
    with small_disk(tmp_path / "small", 48) as disk:
        filler, out = disk / "filler", disk / "clean.tif"

        def fill_up():
            with contextlib.suppress(OSError):  # the run itself writes meanwhile: then it is full sooner
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))

        with pytest.raises(OutputError, match=r"clean.*free\): check the disk"):
            process_scene(scene, out, restorer=Filling(log, batch, fill_up), **OPTIONS)
        assert not out.exists()
        filler.unlink()
        report = process_scene(scene, out, restorer=Smooth(log), **OPTIONS)
        assert report.tiles["windows_resumed"] > 0
        assert_same_file(out, whole)
        assert not left_in(disk)


def test_files_that_may_not_grow(scene, whole, log, tmp_path, processes):
    out = tmp_path / "clean.tif"
    process = processes.Process(target=run_with_small_files, args=(scene, out, log, 2_000_000))
    process.start()
    process.join()
    assert "File too large" in (log / "error").read_text()
    assert not out.exists()
    report = process_scene(scene, out, restorer=Smooth(log), **OPTIONS)
    assert report.tiles["windows_resumed"] > 0, "tiles had no room, their blocks had"
    assert_same_file(out, whole)


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


def test_an_input_that_is_cut_short(scene, log, tmp_path):
    os.truncate(scene, scene.stat().st_size * 2 // 3)
    with pytest.raises(SceneReadError, match=r"scene\.tif: cannot read rows .*(damaged|incomplete)"):
        process_scene(scene, tmp_path / "clean.tif", restorer=Smooth(log), **OPTIONS)
    assert not (tmp_path / "clean.tif").exists()


def test_an_input_that_was_replaced_between_two_runs(scene, log, tmp_path):
    def fail():
        raise OSError("the machine is on fire")

    out = tmp_path / "clean.tif"
    with pytest.raises(OSError, match="fire"):
        process_scene(scene, out, restorer=Filling(log, 14, fail), **OPTIONS)
    other = plain(tmp_path / "other.tif", SHAPE, 1, "int16")
    os.replace(other, scene)
    with pytest.raises(ResumeError, match=r"input.* differ.*--no-resume"):
        process_scene(scene, out, restorer=Smooth(log), **OPTIONS)
    forget(log)
    process_scene(scene, out, restorer=Smooth(log), resume=False, **OPTIONS)
    assert len(seen(log)) == len(TileGrid(SHAPE))
    assert not left_in(tmp_path)


def test_a_folder_that_may_not_be_written_to(scene, tmp_path):
    unable = []
    if os.geteuid() == 0:  # to whom permissions mean nothing, unless it is without its capabilities
        unable = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        if shutil.which(unable[0]) is None:
            pytest.skip("NO READ-ONLY FOLDER HERE: root writes anywhere, and there is no setpriv")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    call = ["process", str(scene), "--out", str(folder / "clean.tif"), "--model", "identity"]
    command = [*unable, sys.executable, "-m", "decr_scene.pipeline", *call]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "locked is not writable: choose another folder" in result.stderr


def test_a_gpu_that_is_too_small_does_with_smaller_batches(scene, whole, log, tmp_path):
    sizes = []

    class Small(Smooth):
        def __call__(self, tiles, noise):
            sizes.append(len(tiles))
            if len(tiles) > 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return super().__call__(tiles, noise)

    out = tmp_path / "clean.tif"
    process_scene(scene, out, restorer=Small(log), blocksize=128, batch_size=11)
    assert sizes[:3] == [11, 6, 3]
    assert max(sizes[3:]) == 3, "what suffices is remembered"
    assert_same_file(out, whole)


@contextmanager
def cluster(folder, workers=2):
    """A scheduler and its workers as processes, as they run on machines of their own."""
    address = folder / "scheduler.json"
    address.unlink(missing_ok=True)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    options = ["--scheduler-file", str(address), "--dashboard-address", "127.0.0.1:0"]
    scheduling = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    working = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "2", "--resources", "GPU=1"]
    started = [subprocess.Popen([*scheduling, *options], **quiet)]
    try:
        wait_until(lambda: address.exists() and address.stat().st_size)
        started += [subprocess.Popen([*working, *options, "--no-nanny"], **quiet) for _ in range(workers)]
        with Client(scheduler_file=str(address)) as client:
            client.wait_for_workers(workers, timeout=120)
            where = client.scheduler.address
        yield where, started[0]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_scheduler_that_is_lost(scene, whole, log, tmp_path):
    out = tmp_path / "clean.tif"
    with cluster(tmp_path) as (address, scheduler):
        killer = threading.Thread(target=lambda: (wait_until(lambda: under_way(out, 2)), scheduler.kill()))
        killer.start()
        with pytest.raises(ClusterError, match=r"scheduler at tcp://127.* is gone: start it"):
            process_scene(scene, out, restorer=Smooth(log, 0.1), scheduler=address, **OPTIONS)
        killer.join()
    assert not out.exists()
    with cluster(tmp_path) as (address, _):
        report = process_scene(scene, out, restorer=Smooth(log), scheduler=address, **OPTIONS)
    assert report.tiles["windows_resumed"] >= 2
    assert_same_file(out, whole)


def test_a_scheduler_that_is_lost_while_things_are_put_away_hides_no_error():
    class Unaware:
        """A client that has not noticed yet."""

        status = "running"

        def register_plugin(self, plugin):
            pass

        def unregister_worker_plugin(self, name):
            raise CommClosedError(f"{name}: connection refused")

    with pytest.raises(ClusterError, match="gone"), at_every_worker(Unaware(), RestorerPlugin("key", len)):
        raise ClusterError("gone")


@pytest.mark.slow
def test_however_it_is_done_it_is_the_same_file(scene, whole, log, tmp_path):
    ways = [{"batch_size": 1}, {"batch_size": 5}, {"batch_size": 16}, {"workers": 2}, {"workers": 4}]
    for number, way in enumerate(ways):
        out = tmp_path / f"{number}.tif"
        process_scene(scene, out, restorer=Smooth(log), **{**OPTIONS, **way})
        assert_same_file(out, whole)


@pytest.mark.slow
def test_a_worker_loads_a_model_once(scene, log, tmp_path):
    with LocalCluster(
        n_workers=2, threads_per_worker=3, resources={"GPU": 1}, dashboard_address=":0"
    ) as local:
        address = local.scheduler_address
        process_scene(scene, tmp_path / "own.tif", model="identity", scheduler=address, **OPTIONS)
        process_scene(scene, tmp_path / "their.tif", restorer=Smooth(log), scheduler=address, **OPTIONS)
        with Client(address) as client:
            loads = client.run(lambda: _open_model.cache_info().misses)
    assert sorted(loads.values()) == [1, 1]
    copies = [file.read_text().count("copy") for file in log.glob("*.copies")]
    assert copies
    assert max(copies) == 1
    assert_same_pixels(scene, tmp_path / "own.tif")


def test_a_model_is_never_called_twice_at_a_time(scene, log, tmp_path):
    calls = []

    def napping(tiles, noise):
        begin = time.monotonic()
        time.sleep(0.15)
        calls.append((begin, time.monotonic()))
        return tiles

    process_scene(scene, tmp_path / "clean.tif", restorer=napping, **OPTIONS)
    calls.sort()
    ends = np.array([end for _, end in calls])
    begins = np.array([begin for begin, _ in calls])
    assert (begins[1:] >= ends[:-1]).all()
