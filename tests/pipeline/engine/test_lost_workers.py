"""Workers and schedulers that die, and that whoever computes makes the same file."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError
from fault_cases import OPTIONS, Deadly, Smooth, assert_same_file, under_way, wait_until
from places import TESTS
from test_run import assert_same_pixels

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine.workers import RestorerPlugin, at_every_worker
from decr_scene.pipeline.errors import ClusterError
from decr_scene.pipeline.restoration.open_restorers import _open_model


@pytest.mark.slow
def test_a_worker_may_be_killed(long_scene, whole, log, tmp_path):
    out, victims = tmp_path / "clean.tif", []

    def kill_one():
        wait_until(lambda: under_way(out, 2))
        victims.append(int(next(log.glob("*.tiles")).stem))
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    process_scene(long_scene, out, restorer=Smooth(log, 0.1), workers=2, **OPTIONS)
    killer.join()
    assert victims
    assert victims[0] != os.getpid()
    assert_same_file(out, whole)


@pytest.mark.slow
def test_workers_that_always_die_are_one_clear_error(long_scene, whole, log, tmp_path):
    out = tmp_path / "clean.tif"
    with pytest.raises(ClusterError, match=r"4 workers died of the task restore-.*batch-size"):
        process_scene(long_scene, out, restorer=Deadly(log), workers=2, **OPTIONS)
    assert not out.exists()
    process_scene(long_scene, out, restorer=Smooth(log), **OPTIONS)
    assert_same_file(out, whole)


@pytest.mark.slow
def test_the_workers_of_a_killed_process_die_with_it_and_say_nothing(long_scene, log, tmp_path):
    out = tmp_path / "clean.tif"
    code = (
        "from pathlib import Path; from decr_scene.pipeline import process_scene; from fault_cases import *\n"
        "if __name__ == '__main__':\n"
        f"    restorer = Smooth(Path({str(log)!r}), 0.2)\n"
        f"    process_scene({str(long_scene)!r}, {str(out)!r}, restorer=restorer, workers=2, **OPTIONS)"
    )
    (tmp_path / "main.py").write_text(code)
    path = os.pathsep.join([str(TESTS / "pipeline"), *filter(None, [os.environ.get("PYTHONPATH")])])
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
def cluster(folder, workers=2):
    """A scheduler and its workers as processes, as they run on machines of their own."""
    address = folder / "scheduler.json"
    address.unlink(missing_ok=True)
    path = os.pathsep.join([str(TESTS / "pipeline"), *filter(None, [os.environ.get("PYTHONPATH")])])
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
def test_a_scheduler_that_is_lost(long_scene, whole, log, tmp_path):
    out = tmp_path / "clean.tif"
    with cluster(tmp_path) as (address, scheduler):
        killer = threading.Thread(target=lambda: (wait_until(lambda: under_way(out, 2)), scheduler.kill()))
        killer.start()
        with pytest.raises(ClusterError, match=r"scheduler at tcp://127.* is gone: start it"):
            process_scene(long_scene, out, restorer=Smooth(log, 0.1), scheduler=address, **OPTIONS)
        killer.join()
    assert not out.exists()
    with cluster(tmp_path) as (address, _):
        report = process_scene(long_scene, out, restorer=Smooth(log), scheduler=address, **OPTIONS)
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
def test_however_it_is_done_it_is_the_same_file(long_scene, whole, log, tmp_path):
    ways = [{"batch_size": 1}, {"batch_size": 5}, {"batch_size": 16}, {"workers": 3}]
    for number, way in enumerate(ways):
        out = tmp_path / f"{number}.tif"
        process_scene(long_scene, out, restorer=Smooth(log), **{**OPTIONS, **way})
        assert_same_file(out, whole)


@pytest.mark.slow
def test_a_worker_loads_a_model_once(long_scene, log, tmp_path):
    with LocalCluster(
        n_workers=2, threads_per_worker=3, resources={"GPU": 1}, dashboard_address=":0"
    ) as local:
        address = local.scheduler_address
        process_scene(long_scene, tmp_path / "own.tif", model="identity", scheduler=address, **OPTIONS)
        process_scene(long_scene, tmp_path / "their.tif", restorer=Smooth(log), scheduler=address, **OPTIONS)
        with Client(address) as client:
            loads = client.run(lambda: _open_model.cache_info().misses)
    assert sorted(loads.values()) == [1, 1]
    copies = [file.read_text().count("copy") for file in log.glob("*.copies")]
    assert copies
    assert max(copies) == 1
    assert_same_pixels(long_scene, tmp_path / "own.tif")


def test_a_model_is_never_called_twice_at_a_time(long_scene, log, tmp_path):
    calls = []

    def napping(tiles, noise):
        begin = time.monotonic()
        time.sleep(0.15)
        calls.append((begin, time.monotonic()))
        return tiles

    process_scene(long_scene, tmp_path / "clean.tif", restorer=napping, **OPTIONS)
    calls.sort()
    ends = np.array([end for _, end in calls])
    begins = np.array([begin for begin, _ in calls])
    assert (begins[1:] >= ends[:-1]).all()
