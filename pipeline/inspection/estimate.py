"""How long a scene will take and what it needs, from a short trial on this machine: nothing is looked up.

Two batches of its own tiles go through the model at a worker, as in a run, some of its own pixels go through
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
from distributed import Client

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.engine.cluster import connect
from decr_scene.pipeline.engine.flow import CHUNK_COLS, room_for_tiles
from decr_scene.pipeline.engine.needs import bytes_under_way
from decr_scene.pipeline.engine.workers import MODEL, TASKS_A_MODEL
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource, Source
from decr_scene.pipeline.restoration.blending import blend_tiles
from decr_scene.pipeline.restoration.open_restorers import forget_plugin, register_plugin
from decr_scene.pipeline.restoration.plan import Plan, Planned, chosen_tiles, guessed_together
from decr_scene.pipeline.restoration.tasks import guess_tiles, restore_tiles
from decr_scene.pipeline.restoration.tile_results import Results
from decr_scene.pipeline.tiling.grid import Span, Tile
from decr_scene.pipeline.tiling.windows import share_of_work
from decr_scene.pipeline.writing.origin import CopyOf
from decr_scene.pipeline.writing.writer import SceneWriter

TRIAL_SECONDS = 10.0
"""A batch that would take longer is tried with a single tile."""

_KEY = "estimate"


@dataclass(frozen=True)
class Estimate:
    """Time in seconds of the wall clock and space in bytes of a run with one worker on this machine."""

    seconds: float
    memory: int
    scratch: int
    output: int


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
            trial = time.perf_counter()
            loading, tile_seconds, changes = _try_model(client, plan, source, planned, options)
            tile_seconds, guess_seconds = _with_shared_guesses(client, plan, source, planned, tile_seconds)
            seconds = planned.tiles_to_restore * tile_seconds
            if plan.veils and (over_cloud := chosen_tiles(replace(plan, veils=False))):
                # all tiles get a first guess; those over cloud are sampled, others only under veils
                seconds = planned.tiles_to_restore * guess_seconds + len(over_cloud) * max(
                    0.0, tile_seconds - guess_seconds
                )
            trial_seconds = time.perf_counter() - trial
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


def _try_model(
    client: Client, plan: Plan, source: Source, planned: Planned, options: Options
) -> tuple[float, float, Results]:
    """Measure loading of the model and a tile of the scene's middle, s, and return the changes, too."""
    if plan.veils and (over_cloud := chosen_tiles(replace(plan, veils=False))):
        planned = replace(planned, chosen=over_cloud)
    batches = planned.batches(options.batch_size)
    if not len(batches):
        return 0.0, 0.0, {}
    middle = len(batches) // 2
    batch = batches[middle]
    first_seconds, _ = _restore(client, plan, source, [batch[:1]])
    seconds, changes = _restore(client, plan, source, [batch[:1]])
    loading = max(0.0, first_seconds - seconds)
    # apart from one another: how much of a tile is to be sampled differs from place to place
    spread = {(2 * part + 1) * len(batches) // (2 * TASKS_A_MODEL) for part in range(TASKS_A_MODEL)}
    together = [batches[number] for number in sorted(spread)]
    tiles = sum(map(len, together))
    if tiles == 1 or seconds * tiles > TRIAL_SECONDS:
        return loading, seconds, changes
    seconds, changes = _restore(client, plan, source, together)
    return loading, seconds / tiles, changes


def _with_shared_guesses(
    client: Client, plan: Plan, source: Source, planned: Planned, tile_seconds: float
) -> tuple[float, float]:
    """Estimate a tile and its first guess, s, with guesses made over windows of many tiles."""
    if not (plan.veils or plan.spec.windows) or not planned.tiles_to_restore:
        return tile_seconds, 0.0
    alone = shared = _try_guess(client, plan, source)
    if plan.spec.windows:
        groups = guessed_together(plan, planned.batches(1)).groups
        shared *= share_of_work(plan.grid, plan.spec.halo, groups)
    return max(shared, tile_seconds - alone + shared), shared


def _try_guess(client: Client, plan: Plan, source: Source) -> float:
    """Measure the first guess of a single tile with a loaded model, s."""
    began = time.perf_counter()
    tile = plan.grid[len(plan.grid) // 2]
    client.submit(guess_tiles, plan, source, [tile], resources=MODEL, pure=False).result()
    return time.perf_counter() - began


def _restore(client: Client, plan: Plan, source: Source, batches: list[list[Tile]]) -> tuple[float, Results]:
    """Measure some batches as in a run, s: at a worker, one computes while another one reads."""
    began, changes = time.perf_counter(), []
    for tiles in batches:
        options = {"resources": MODEL, "pure": False}
        needs_guess = plan.spec.bands is not None
        parts = [[tile] for tile in tiles] if plan.spec.windows else [tiles]
        guesses = [client.submit(guess_tiles, plan, source, part, **options) for part in parts if needs_guess]
        changes.append(client.submit(restore_tiles, plan, source, tiles, *guesses, **options))
    results = [future.result() for future in changes]
    return time.perf_counter() - began, results[0]


def _try_writing(
    scene: RasterioScene, plan: Plan, source: Source, changes: Results
) -> tuple[float, _Pace, _Pace]:
    """Measure blending of a pixel, s, and writing of a block and of a row of blocks."""
    height, width = min(BLOCKSIZE, scene.shape[0]), min(CHUNK_COLS, scene.shape[1])
    places = [plan.grid.span(plan.grid[number]).row for number in changes] or [scene.shape[0] // 2]
    span = Span(min(places[0], scene.shape[0] - height), 0, height, width)
    began = time.perf_counter()
    pixels = blend_tiles(plan, source, span, changes).pixels
    blending = (time.perf_counter() - began) / pixels[0].size
    with TemporaryDirectory() as folder:
        small = _write(scene, pixels[:, :, :BLOCKSIZE], Path(folder) / "small.tif")
        return blending, small, _write(scene, pixels, Path(folder) / "large.tif")


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
