"""What tests of faults run in processes of their own: restorers that leave traces, runs to be killed."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from decr_scene.models.arrays import Float
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine.flow import Flow
from decr_scene.pipeline.files import journal_path
from decr_scene.pipeline.tiling.grid import TileGrid
from decr_scene.pipeline.tiling.noise import place_noise
from decr_scene.pipeline.writing.tile_store import TileStore

OPTIONS = {"batch_size": 2, "blocksize": 128}
SHAPE = (1500, 1100)
"""Of the scene that several files share."""


class Smooth:
    """Looks at its surroundings and at the noise, as a network does, and notes which tiles it has seen.

    Args:
        log: Folder for one file a process: the first noise of each tile, which tells its place.
        pause: Seconds a batch.
    """

    def __init__(self, log: Path, pause: float = 0.0) -> None:
        self.log, self.pause = log, pause

    def __repr__(self) -> str:
        return "Smooth()"

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        with open(self.log / f"{os.getpid()}.copies", "a") as file:
            file.write("copy\n")

    def __call__(self, tiles, noise):
        time.sleep(self.pause)
        with open(self.log / f"{os.getpid()}.tiles", "a") as file:
            file.writelines(f"{float(own[0, 0, 0]).hex()}\n" for own in noise)
        return np.clip(0.7 * uniform_filter(tiles, (0, 0, 9, 9)) + 0.05 * noise, -1, 1)


class Dying(Smooth):
    """Kills its process in a certain batch, as ``kill -9`` does, once the tiles before it are kept.

    Args:
        log: As `Smooth`.
        batch: Number of the batch.
        kept: Numbers of tiles, each added when it is kept.
    """

    def __init__(self, log: Path, batch: int, kept: list[int]) -> None:
        super().__init__(log, 0.1)
        self.batch, self.kept, self.made = batch, kept, 0

    def __call__(self, tiles, noise):
        if self.batch == 0:
            wait_until(lambda: len(self.kept) >= self.made)
            os.kill(os.getpid(), signal.SIGKILL)
        self.batch -= 1
        self.made += len(tiles)
        return super().__call__(tiles, noise)


class Deadly(Smooth):
    """Kills whatever process runs it."""

    def __call__(self, tiles, noise):
        os._exit(1)


class Filling(Smooth):
    """Calls something before a certain batch."""

    def __init__(self, log: Path, batch: int, told) -> None:
        super().__init__(log)
        self.batch, self.told = batch, told

    def __call__(self, tiles, noise):
        if self.batch == 0:
            self.told()
        self.batch -= 1
        return super().__call__(tiles, noise)


Filling.__name__ = "Smooth"  # the same restorer, as far as a run can tell
Deadly.__name__ = "Smooth"
Dying.__name__ = "Smooth"


def seen(log: Path) -> list[str]:
    """Every tile that was restored, as often as it was."""
    return [line for file in sorted(log.glob("*.tiles")) for line in file.read_text().split()]


def places(shape: tuple[int, int], bands: int) -> dict[str, int]:
    """Number of a tile by what `seen` calls it."""
    grid = TileGrid(shape)
    first = (place_noise(0, 0, bands, grid.span(tile))[0, 0, 0] for tile in grid)
    return {float(value).hex(): number for number, value in enumerate(first)}


def run(scene: Path, out: Path, log: Path, pause: float = 0.0) -> None:
    """Process a scene; for a process that is killed."""
    process_scene(scene, out, restorer=Smooth(log, pause), **OPTIONS)


def run_and_die(scene: Path, out: Path, log: Path, batch: int) -> None:
    """Process a scene with batches of the usual size, and be killed in one of them."""
    kept: list[int] = []
    save = TileStore.save

    def saving(store: TileStore, tiles: Collection[int], changes: Mapping[int, Float]) -> None:
        save(store, tiles, changes)
        kept.extend(tiles)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TileStore, "save", saving)
        process_scene(scene, out, restorer=Dying(log, batch, kept))


def run_with_small_files(scene: Path, out: Path, log: Path, limit: int) -> None:
    """Process a scene where no file may be larger than ``limit`` bytes; note what is said about it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        run(scene, out, log)
    except DecrSceneError as error:
        (log / "error").write_text(str(error))


@contextmanager
def fire_after(windows: int) -> Iterator[None]:
    """Have every run in a ``with`` end in an error once so many windows are written."""
    stream = Flow.blocks

    def failing(flow: Flow, *args: Any) -> Iterator[Any]:
        yield from islice(stream(flow, *args), windows)
        raise OSError("the machine is on fire")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flow, "blocks", failing)
        yield


def forget(log: Path) -> None:
    """Forget which tiles were seen."""
    for file in log.iterdir():
        file.unlink()


def assert_same_file(one: Path, other: Path) -> None:
    """Hold two files against each other, bit by bit."""
    assert one.read_bytes() == other.read_bytes()


def left_in(folder: Path) -> list[str]:
    """Names of the hidden files of a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def under_way(out: Path, at_least: int) -> bool:
    """Whether so many windows are finished."""
    return journal_path(out).exists() and journal_path(out).read_text().count("\n") > at_least


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
