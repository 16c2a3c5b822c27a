"""Which workers compute, on what, and that a picture is made in one way only."""

import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import torch
from raster_cases import plain

from decr_scene.models.devices import Computing
from decr_scene.pipeline.engine import cluster, worker_setup
from decr_scene.pipeline.engine.cluster import (
    check_dashboard,
    check_workers,
    connect,
    dashboard_at,
    places_of,
    threads_each,
)
from decr_scene.pipeline.engine.workers import check_code, settled
from decr_scene.pipeline.errors import ClusterError, OptionError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.system.version import code_here

SPEC = RestorerSpec("default", bands=("red",))
H100 = Computing("cuda", "H100", "bf16", "2.13.0")


class StandIn:
    """A client whose workers answer so."""

    def __init__(self, *answers):
        self.answers = {f"tcp://{number}": answer for number, answer in enumerate(answers)}

    def scheduler_info(self, n_workers):
        return {"workers": {"tcp://none": {}, **{name: {"resources": {"GPU": 1}} for name in self.answers}}}

    def run(self, function, *args, workers, on_error):
        assert workers == list(self.answers), "only those that may hold a model are asked"
        return self.answers


def test_how_is_computed_is_asked_of_the_workers():
    assert settled(StandIn(H100, H100), SPEC).computing == H100
    assert settled(StandIn(), RestorerSpec("identity")).computing is None


def test_workers_with_another_state_of_the_program_are_refused():
    check_code(StandIn(code_here(), code_here()))
    with pytest.raises(
        ClusterError, match=r"worker tcp://1 runs another decr-scene \(0\.1\.0, code 7e\) than this"
    ):
        check_code(StandIn(code_here(), "0.1.0, code 7e"))
    with pytest.raises(ClusterError, match=r"tcp://0 .* \(ModuleNotFoundError: decr_scene\)"):
        check_code(StandIn(ModuleNotFoundError("decr_scene")))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Computing("cpu", None, "fp32", "2.13.0"), r"cuda \(H100\) in bf16 .* cpu in fp32"),
        (Computing("cuda", "A100", "bf16", "2.13.0"), "A100"),
        (Computing("cuda", "H100", "fp32", "2.13.0"), "in fp32"),
        (Computing("cuda", "H100", "bf16", "2.9.1"), "torch 2.9.1"),
    ],
)
def test_workers_of_two_kinds_are_refused(other, told):
    with pytest.raises(ClusterError, match=f"worker tcp://0 .*{told}.* start workers of one kind"):
        settled(StandIn(H100, other), SPEC)


def test_a_worker_without_the_device_is_named():
    with pytest.raises(OptionError, match="worker tcp://1: device cuda asked for, no GPU found"):
        settled(StandIn(H100, ValueError("device cuda asked for, no GPU found")), SPEC)
    with pytest.raises(ClusterError, match="worker tcp://0 cannot compute: ImportError: no torch"):
        settled(StandIn(ImportError("no torch")), SPEC)


def test_workers_take_gpus_in_turns_and_share_the_cores(monkeypatch):
    found = [place["CUDA_VISIBLE_DEVICES"] for place in places_of(3, ["0", "GPU-5f"])]
    assert found == ["0", "GPU-5f", "0"]
    assert places_of(2, []) == [{}, {}]
    monkeypatch.setattr("decr_scene.pipeline.engine.cluster.CPU_COUNT", 16)
    assert [threads_each(workers) for workers in (1, 2, 5, 99)] == [16, 8, 3, 1]


def test_several_workers_on_one_named_gpu_are_refused():
    check_workers(1, None, "cuda:1")
    with pytest.raises(OptionError, match="cuda:1 is one GPU, got --workers 2: take --device cuda"):
        check_workers(2, None, "cuda:1")


@pytest.mark.slow
def test_every_worker_has_a_gpu_of_its_own_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("decr_scene.pipeline.engine.cluster.CPU_COUNT", 6)
    with connect(None, 2, SPEC, 3_000_000_000) as client:
        limits = [nanny.memory_manager for nanny in client.cluster.workers.values()]
        assert [limit.memory_limit for limit in limits] == [3_000_000_000] * 2
        assert [limit.memory_terminate_fraction for limit in limits] == [1.0] * 2
        found = client.run(lambda: [os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")])
        every = client.run(lambda dask_worker: dask_worker.periodic_callbacks["tick"].callback_time)
    assert sorted(found.values()) == [["3", "3"], ["5", "3"]]
    assert list(every.values()) == [1000] * 2, "ms between two looks of a worker at itself"
    assert "OMP_NUM_THREADS" not in os.environ, "this process is left as it was"


def test_a_dashboard_that_cannot_be_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    check_dashboard(False, "tcp://host:8786")
    with pytest.raises(
        OptionError, match=r"bokeh, which is not installed: pip install 'decr-scene\[dashboard\]'"
    ):
        check_dashboard(True, None)
    with pytest.raises(OptionError, match="has a dashboard of its own"):
        check_dashboard(True, "tcp://host:8786")


def test_a_cluster_here_serves_its_state_where_asked():
    counts = []
    for dashboard in (True, False):
        with connect(None, dashboard=dashboard) as client, suppress(HTTPError):
            page = urlopen(dashboard_at(client).replace("/status", "/json/counts.json"), timeout=20)
            counts.append(json.load(page)["workers"])
    assert counts == [1], "and not where it is not asked"


def test_while_a_run_lasts_dask_tells_nothing_itself():
    """``distributed.client`` has a level and a handler of its own: of a scheduler that dies, a traceback."""
    names = ("distributed", "distributed.client", "distributed.worker", "distributed.comm.tcp")
    before = [logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names]
    with connect(None):
        assert not any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names)
    assert [logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names] == before


def test_a_worker_of_ours_tells_nothing_itself():
    """What goes wrong there reaches the process that started it."""
    logger = logging.getLogger("distributed.worker")
    level = logging.getLogger("distributed").level
    try:
        worker_setup.dask_setup(None)
        assert not logger.isEnabledFor(logging.ERROR)
    finally:
        logging.getLogger("distributed").setLevel(level)


class Late:
    """A cluster that does not do what it is told in time."""

    def __init__(self, what):
        self.what = what
        self.late("made")

    def late(self, now):
        if self.what == now:
            raise TimeoutError

    def __enter__(self):
        self.late("started")
        return self

    def __exit__(self, *_):
        self.late("ended")


@pytest.mark.parametrize("what", ["made", "started"])
def test_workers_that_do_not_start_in_time_are_told(what):
    with pytest.raises(ClusterError, match="did not start in time"), cluster._in_time(lambda: Late(what)):
        pass


def test_workers_that_do_not_end_in_time_have_done_their_work():
    with cluster._in_time(lambda: Late("ended")):
        done = True
    assert done


def test_the_time_out_of_a_task_is_its_own():
    with pytest.raises(TimeoutError, match="mine"), cluster._in_time(lambda: Late("")):
        raise TimeoutError("mine")


def test_a_worker_that_joins_later_with_another_state_of_the_program_gets_no_task_done(tmp_path):
    with RasterioScene.open(plain(tmp_path / "scene.tif", (40, 50), 1)) as scene:
        plan = plan_scene(scene, Options(model="identity")).plan
    plan.check_files()
    replace(plan, code=code_here()).check_files()
    with pytest.raises(
        ClusterError, match=r"a worker has joined that runs another decr-scene .* \(0\.1\.0, code 7e\)"
    ):
        replace(plan, code="0.1.0, code 7e").check_files()


def test_a_script_that_its_workers_would_run_again_is_told_so(tmp_path):
    scene, script = plain(tmp_path / "scene.tif", (300, 280)), tmp_path / "script.py"
    call = f"process_scene({str(scene)!r}, {str(tmp_path / 'out.tif')!r}, model='identity', workers=2)"
    script.write_text(f"from decr_scene.pipeline import process_scene\n{call}\n")
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    lines = found.stderr.splitlines()
    assert found.returncode == 1
    assert sum('put what calls decr_scene below if __name__ == "__main__":' in line for line in lines) == 2
    assert lines[-1].endswith("take --workers 1, or run again")
    assert len(lines) < 30
    assert set(os.listdir(tmp_path)) == {"scene.tif", "script.py"}
