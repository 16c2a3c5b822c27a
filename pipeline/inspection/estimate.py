"""How long a scene will take and what it needs, from a short trial on this machine: nothing is looked up.

Some batches of its own tiles go through the model at a worker, as in a run, some of its own pixels go through
the writer; the rest is counting. Reading and writing overlap with the model, the copy into the finished file
follows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import rasterio
from distributed import Client, Future, wait

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.engine.cluster import connect
from decr_scene.pipeline.engine.needs import bytes_under_way
from decr_scene.pipeline.engine.under_way import CHUNK_COLS, room_for_tiles
from decr_scene.pipeline.engine.workers import MODEL, TASKS_A_MODEL
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource, Source
from decr_scene.pipeline.restoration.blending import blend_tiles
from decr_scene.pipeline.restoration.open_restorers import forget_plugin, register_plugin
from decr_scene.pipeline.restoration.plan import Plan, Planned, chosen_tiles, guessed_together
from decr_scene.pipeline.restoration.tasks import guess_tiles, restore_tiles
from decr_scene.pipeline.restoration.tile_results import Results
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, Tile
from decr_scene.pipeline.tiling.windows import share_of_work
from decr_scene.pipeline.writing.origin import CopyOf
from decr_scene.pipeline.writing.writer import SceneWriter

TRIAL_SECONDS = 10.0
"""As many batches are tried as take no longer, or a single tile."""

TRIAL_TILES = 16
"""More are tried only where a run has larger batches."""

_KEY = "estimate"


@dataclass(frozen=True)
class Estimate:
    """Time in seconds of the wall clock and space in bytes of a run with one worker on this machine."""

    seconds: float
    memory: int
    scratch: int
    output: int


@dataclass(frozen=True)
class _Tile:
    """Seconds of the first guess of a tile, made by itself, and of all else."""

    guess: float = 0.0
    rest: float = 0.0

    @property
    def seconds(self) -> float:
        """Return both together."""
        return self.guess + self.rest


@dataclass(frozen=True)
class _Pace:
    """Seconds and bytes of a trial of writing some pixels."""

    pixels: int
    writing: float
    finishing: float
    scratch: int
    output: int


def estimate(scene: RasterioScene, planned: Planned, options: Options, planning: float) -> Estimate:
    """Estimate a run.

    Args:
        scene: The scene.
        planned: Its plan.
        options: Those of the plan.
        planning: Time that planning took, s, which a run takes as well.

    Raises:
        DecrSceneError: The scene cannot be read, or the model cannot be loaded.
    """
    source = FileSource(scene.path, options.bands)
    plan = planned.plan
    if options.restorer is not None:
        register_plugin(_KEY, options.restorer)
        plan = replace(plan, spec=replace(plan.spec, plugin_key=_KEY))
    try:
        began = time.perf_counter()
        with connect(None) as client:
            connected = time.perf_counter()
            sampled = _sampled(planned)
            loading, trial, changes = _try_model(client, plan, source, sampled.batches(options.batch_size))
            # under veils all tiles get a first guess, and those over cloud alone are sampled
            guess = trial.guess * _share_of_guesses(planned)
            seconds = planned.tiles_to_restore * guess + sampled.tiles_to_restore * trial.rest
            trial_seconds = time.perf_counter() - connected
        starting = time.perf_counter() - began - trial_seconds
    finally:
        forget_plugin(_KEY)
    before = _memory()
    blending, small, large = _try_writing(scene, plan, source, changes)
    pixels = scene.shape[0] * scene.shape[1]
    with_classes = 1 + 1 / (scene.count * scene.dtype.itemsize)  # the classes: a byte a pixel
    streaming = max(seconds, pixels * (blending + large.writing / large.pixels))
    return Estimate(
        seconds=planning + starting + loading + streaming + with_classes * _finishing(small, large, pixels),
        memory=max(before, _memory()) + bytes_under_way(scene, planned, options.batch_size, BLOCKSIZE),
        scratch=round(with_classes * 4 / 3 * pixels * large.scratch / large.pixels)
        + _saved_tiles(planned, options),
        output=round(with_classes * pixels * large.output / large.pixels),
    )


def _memory() -> int:
    """Return the memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)


def _sampled(planned: Planned) -> Planned:
    """Return the plan of those tiles that are sampled: under veils those over cloud, if there are any."""
    if planned.plan.veils and (over_cloud := chosen_tiles(replace(planned.plan, veils=False))):
        return replace(planned, chosen=over_cloud)
    return planned


def _try_model(client: Client, plan: Plan, source: Source, batches: Batches) -> tuple[float, _Tile, Results]:
    """Measure loading of the model, s, and tiles of the whole scene, and return changes of some of them."""
    if not len(batches):
        return 0.0, _Tile(), {}
    one = batches[len(batches) // 2][:1]
    first, _ = _restore(client, plan, source, [one])
    tile, changes = _restore(client, plan, source, [one])
    loading = max(0.0, first.seconds - tile.seconds)
    # apart from one another: how much of a tile is to be sampled differs from place to place
    size = len(batches[0])
    most = int(TRIAL_SECONDS / (tile.seconds * size))
    number = min(len(batches), max(TASKS_A_MODEL, TRIAL_TILES // size), most - most % TASKS_A_MODEL)
    together = [batches[(2 * part + 1) * len(batches) // (2 * number)] for part in range(number)]
    if sum(map(len, together)) > 1:
        tile, changes = _restore(client, plan, source, together)
    return loading, tile, changes


def _share_of_guesses(planned: Planned) -> float:
    """Return what first guesses over windows of many tiles cost of such over single tiles."""
    plan = planned.plan
    if not plan.spec.windows or not planned.tiles_to_restore:
        return 1.0
    return share_of_work(plan.grid, plan.spec.halo, guessed_together(plan, planned.batches(1)).groups)


def _restore(client: Client, plan: Plan, source: Source, batches: list[list[Tile]]) -> tuple[_Tile, Results]:
    """Measure some batches as in a run: at a worker, one computes while another one reads."""
    options = {"resources": MODEL, "pure": False}
    began = time.perf_counter()
    guesses: list[list[Future]] = [[] for _ in batches]
    if plan.spec.bands is not None:
        for tiles, futures in zip(batches, guesses, strict=True):
            parts = [[tile] for tile in tiles] if plan.spec.windows else [tiles]
            futures += [client.submit(guess_tiles, plan, source, part, **options) for part in parts]
    wait([future for futures in guesses for future in futures])
    guessed = time.perf_counter()
    changes = [
        client.submit(restore_tiles, plan, source, tiles, *futures, **options)
        for tiles, futures in zip(batches, guesses, strict=True)
    ]
    results = [future.result() for future in changes]
    number = sum(map(len, batches))
    return _Tile((guessed - began) / number, (time.perf_counter() - guessed) / number), results[0]


def _try_writing(
    scene: RasterioScene, plan: Plan, source: Source, changes: Results
) -> tuple[float, _Pace, _Pace]:
    """Measure blending of a pixel, s, and writing of a row of blocks and of two.

    A part a block wide would do as the smaller one, had it as many squares for the trial of a compression.
    """
    height, width = min(2 * BLOCKSIZE, scene.shape[0]), min(CHUNK_COLS, scene.shape[1])
    places = [plan.grid.span(plan.grid[number]).row for number in changes] or [scene.shape[0] // 2]
    span = Span(min(places[0], scene.shape[0] - height), 0, height, width)
    began = time.perf_counter()
    pixels = blend_tiles(plan, source, span, changes).pixels
    blending = (time.perf_counter() - began) / pixels[0].size
    large = _quicker_of_two(scene, pixels)
    small = large if height <= BLOCKSIZE else _quicker_of_two(scene, pixels[:, :BLOCKSIZE])
    return blending, small, large


def _quicker_of_two(scene: RasterioScene, pixels: Pixels) -> _Pace:
    """Measure writing twice: what else the machine does for a moment would count for the whole scene."""
    with TemporaryDirectory() as folder:
        paces = [_write(scene, pixels, Path(folder) / f"{number}.tif") for number in range(2)]
    return min(paces, key=lambda pace: pace.finishing)


def _write(scene: RasterioScene, pixels: Pixels, path: Path) -> _Pace:
    """Measure writing of some pixels as a scene of their own."""
    shape = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2]}
    part, out = path.with_name(f"part_{path.name}"), path
    profile = {"driver": "GTiff", "crs": scene.crs, "transform": scene.transform}
    with rasterio.open(part, "w", **profile, **shape, dtype=pixels.dtype) as dataset:
        dataset.write(pixels)
    with RasterioScene.open(part) as opened:
        began = time.perf_counter()
        with SceneWriter(CopyOf(opened), out, "deflate", BLOCKSIZE) as writer:
            writer.write(Span(0, 0, *opened.shape), pixels)
            written = time.perf_counter()
            scratch = sum(file.stat().st_size for file in path.parent.glob(f".{out.name}*scratch*"))
        ended = time.perf_counter()
    return _Pace(pixels[0].size, written - began, ended - written, scratch, out.stat().st_size)


def _finishing(small: _Pace, large: _Pace, pixels: int) -> float:
    """Estimate the time for the finished file, s: a constant part, and one that grows with it."""
    if large.pixels == small.pixels:
        return large.finishing * max(1.0, pixels / large.pixels)
    slope = max(0.0, (large.finishing - small.finishing) / (large.pixels - small.pixels))
    return max(0.0, small.finishing - slope * small.pixels) + slope * pixels


def _saved_tiles(planned: Planned, options: Options) -> int:
    """Estimate the bytes of finished tiles that a run keeps on disk until their blocks are written."""
    if planned.plan.spec.name == "identity":
        return 0
    tile, number = room_for_tiles(planned.plan, planned.batches(options.batch_size), BLOCKSIZE)
    return tile * min(number, planned.tiles_to_restore)
