"""What a run sets in its process is gone after it, and a caller's exception or token ends it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import pytest
from raster_cases import plain
from test_run import smooth

from decr_scene.pipeline import Progress, process_directory, process_scene
from decr_scene.pipeline.errors import RunCancelledError
from decr_scene.pipeline.files import journal_path

FORK = """
import multiprocessing, sys
from decr_scene.pipeline import open_scene, process_scene
from decr_scene.pipeline.inspection.summary import inspect_scene

def work(name):
    try:
        return len(process_scene(sys.argv[1], sys.argv[2] + name, model="identity").checks)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    FIRST
    with fork.Pool(1) as pool:
        print(pool.map_async(work, ["b.tif"]).get(30))
"""

RUN = 'process_scene(sys.argv[1], sys.argv[2] + "a.tif", model="identity")'
LOOK = 'inspect_scene(sys.argv[1], bands="blue,green,red,nir")'
OPEN = "open_scene(sys.argv[1])"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return plain(tmp_path / "scene.tif", (300, 280))


@pytest.mark.parametrize(("first", "refused"), [(RUN, True), (LOOK, True), (OPEN, False)])
def test_a_fork_after_a_run_is_refused_and_none_hangs(
    first: str, refused: bool, scene: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORK.replace("FIRST", first))
    done = subprocess.run(
        [sys.executable, program, scene, f"{tmp_path}/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = done.stdout.strip()
    assert ("spawn" in told and "ForkError" in told) if refused else told.strip("[]").isdigit()


def state() -> list[object]:
    keys = ("distributed.worker.memory", "distributed.scheduler.http.routes", "distributed.worker.profile")
    found: list[object] = [repr(dask.config.get(key)) for key in keys]
    found.append(dask.config.get("scheduler", None))
    return [*found, logging.getLogger("distributed").level, dict(os.environ)]


@pytest.mark.parametrize("fails", [False, True])
def test_settings_are_as_before_from_threads_too(fails: bool, scene: Path, tmp_path: Path) -> None:
    def restorer(tiles, noise):
        if fails:
            raise OSError("the machine is on fire")
        return tiles

    def work(name: str) -> None:
        time.sleep({"a": 0, "b": 0.2, "c": 0.5}[name])
        process_scene(scene, tmp_path / f"{name}.tif", restorer=restorer)

    before = state()
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(work, name) for name in "abc"]
    assert [future.exception() is not None for future in futures] == [fails] * 3
    assert state() == before


class WishError(Exception):
    """Of a program that uses us."""


@pytest.mark.parametrize("tiles", [1, 4])
def test_an_exception_of_progress_ends_the_run_and_it_can_go_on(tiles: int, tmp_path: Path) -> None:
    scene, out = plain(tmp_path / "scene.tif", (300, 280)), tmp_path / "o.tif"

    class Ending(Progress):
        def tiles(self, done: int, total: int) -> None:
            if done >= tiles:
                raise WishError

    with pytest.raises(WishError):
        process_scene(scene, out, restorer=smooth, batch_size=1, progress=Ending())
    assert not out.exists()
    assert process_scene(scene, out, restorer=smooth, batch_size=1).checks["crs"]


class Ending(Progress):
    """Raises where a stage begins."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def stage(self, text: str) -> None:
        if text.startswith(self._stage):
            raise WishError


def test_an_exception_where_the_file_is_written_ends_it_too(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(WishError):
        process_scene(scene, tmp_path / "o.tif", restorer=smooth, progress=Ending("writing"))
    assert not (tmp_path / "o.tif").exists()
    assert journal_path(tmp_path / "o.tif").exists()


def test_a_token_ends_a_run_whose_model_is_busy(scene: Path, tmp_path: Path) -> None:
    cancel, began = threading.Event(), threading.Event()

    def busy(tiles, noise):
        began.set()
        time.sleep(3)
        return tiles

    def press() -> None:
        began.wait()
        cancel.set()

    threading.Thread(target=press).start()
    start = time.monotonic()
    with pytest.raises(RunCancelledError):
        process_scene(scene, tmp_path / "o.tif", restorer=busy, cancel=cancel)
    assert time.monotonic() - start < 10


def test_a_token_that_is_set_begins_nothing_and_ends_a_folder(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    (tmp_path / "in").mkdir()
    scene = plain(tmp_path / "in" / "scene.tif", (60, 60))
    with pytest.raises(RunCancelledError):
        process_scene(scene, tmp_path / "o.tif", model="identity", cancel=cancel)
    with pytest.raises(RunCancelledError):
        process_directory(tmp_path / "in", tmp_path / "out", model="identity", cancel=cancel)
