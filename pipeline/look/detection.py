"""One look over a whole scene before it is tiled: where cloud and shadow are, and what the ground looks like.

The scene is read once, a few rows at a time, averaged to the detector's coarse pixels, and looked at in
windows that overlap by as far as the detector sees, so that they join without a seam. The answer is two small
rasters beside the output: probabilities, which take the same road as a mask of the user's, and the ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.files import write_whole
from decr_scene.pipeline.look.coarse import Coarse, CoarseReader, joined
from decr_scene.pipeline.look.detectors import CLOUD, RESTORE, Lookout
from decr_scene.pipeline.look.ground import Ground, GroundSums, ground_side
from decr_scene.pipeline.raster.fields import ArrayField, FileField
from decr_scene.pipeline.raster.scene import RasterioScene

Bytes = NDArray[np.uint8]

_LOST = "the raster of the look at the scene"


class Places(NamedTuple):
    """Where the two rasters of a look lie: probabilities, and the ground."""

    cloud: Path
    ground: Path

    def remove(self) -> None:
        """Remove both."""
        for path in self:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Coverage:
    """How cloudy a scene is, over its valid pixels.

    Args:
        cloud: Mean probability of cloud or thin cloud: the paper's cloud coverage probability.
        restore: Share that is taken to need restoring, for cloud or shadow.
        valid: Share of the scene that is valid.
    """

    cloud: float
    restore: float
    valid: float


class Strip(NamedTuple):
    """Some rows of an answer: which, and ``(C, h, w)`` image, valid share, answers and where they count."""

    rows: range
    image: Float
    share: Float
    found: Bytes
    usable: Bool


@contextmanager
def look_kept(places: Places, journal: Path) -> Iterator[None]:
    """Remove the rasters in the end, unless there is a journal to go on from, which they go with."""
    try:
        yield
    finally:
        if not journal.exists():
            places.remove()


def look_at(lookout: Lookout, reader: CoarseReader) -> Iterator[Strip]:
    """Look at a scene from top to bottom; answers are probabilities of 0 to 255, 0 where nothing is valid.

    Windows overlap by twice the detector's reach. A detector whose answers depend on no more than what is in
    reach is cut in the middle; those of one that sees its whole window are blended.
    """
    height, width = reader.coarse_shape
    own = lookout.whole if max(height, width) <= lookout.whole else lookout.own
    total, weight, waiting = np.zeros((3, 0, width)), np.zeros((0, width)), None
    first = 0
    for mine, near, coarse in reader.strips(own, lookout.reach):
        new = near.stop - first - len(weight)
        total = np.pad(total, ((0, 0), (0, new), (0, 0)))
        weight = np.pad(weight, ((0, new), (0, 0)))
        fresh = coarse.rows(len(near) - new, len(near))
        waiting = fresh if waiting is None else joined([waiting, fresh])
        gone = max(0, first - near.start)
        rows = slice(near.start + gone - first, near.stop - first)
        for cols, answer, counts in _answers(lookout, coarse, mine, near, own):
            total[:, rows, cols] += (answer * counts)[:, gone:]
            weight[rows, cols] += counts[gone:]
        end = height if mine.stop == height else mine.stop - (lookout.reach if lookout.blends else 0)
        done = end - first
        probability = total[:, :done] / np.where(weight[:done] > 0, weight[:done], 1)
        ready = waiting.rows(0, done)
        usable = np.asarray(ready.known.any(axis=0))
        levels = np.rint(probability * 255).astype(np.uint8) * usable
        yield Strip(range(first, end), ready.image, ready.share, levels, usable)
        total, weight, first = total[:, done:], weight[done:], end
        waiting = waiting.rows(done, done + len(weight))


def _answers(
    lookout: Lookout, coarse: Coarse, mine: range, near: range, own: int
) -> Iterator[tuple[slice, Float, Float]]:
    """Columns, answers and their weights of the windows of a strip that have a valid pixel."""
    width = coarse.known.shape[2]
    windows = []
    for left in range(0, width, own):
        right = min(width, left + own)
        beside = slice(max(0, left - lookout.reach), min(width, right + lookout.reach))
        if coarse.known[..., beside].any():
            windows.append((range(left, right), range(beside.start, beside.stop), beside))
    answers = lookout.answers([(coarse.seen[..., cols], coarse.known[..., cols]) for *_, cols in windows])
    weigh = _ramp if lookout.blends else _inside
    for (across, seen, place), answer in zip(windows, answers, strict=True):
        down = weigh(mine, near, lookout.reach)[:, None]
        yield place, answer, np.asarray(down * weigh(across, seen, lookout.reach), np.float32)


def _inside(own: range, near: range, reach: int) -> Double:
    """1 in what a window answers for, else 0."""
    places = np.asarray(near)
    return ((places >= own.start) & (places < own.stop)).astype(np.float64)


def _ramp(own: range, near: range, reach: int) -> Double:
    """Up and down again in what overlaps with the windows beside; where there is none, it ends there."""
    place = np.arange(len(near)) + 0.5
    return np.minimum(1, np.minimum(place, len(near) - place) / (2 * reach))


class Tally:
    """Adds up, strip by strip, how cloudy a scene is and what its ground looks like."""

    def __init__(self, reader: CoarseReader, threshold: float) -> None:
        self._least = round(255 * threshold)
        self._pixels = reader.coarse_shape[0] * reader.coarse_shape[1]
        self._count, self._cloud, self._restore = 0, 0.0, 0
        _, step = ground_side(reader.shape, reader.factor)
        side = reader.factor // reader.split
        self.ground = GroundSums(len(reader.indexes), reader.shape, side, step, reader.split)

    def add(self, strip: Strip) -> None:
        """Add a strip."""
        self._count += int(strip.usable.sum())
        self._cloud += float(strip.found[CLOUD][strip.usable].sum(dtype=np.int64)) / 255
        self._restore += int((strip.found[RESTORE] >= self._least).sum())
        probability = strip.found.astype(np.float32) / np.float32(255)
        self.ground.add(strip.rows, strip.image, strip.share, probability)

    @property
    def coverage(self) -> Coverage:
        """Of what was added."""
        total = max(1, self._count)
        return Coverage(self._cloud / total, self._restore / total, self._count / self._pixels)


class Found(NamedTuple):
    """A look in memory: probabilities as `write_look` writes them, the ground, and how cloudy it is."""

    cloud: ArrayField
    ground: Ground
    coverage: Coverage


def look_in_memory(lookout: Lookout, reader: CoarseReader, threshold: float) -> Found:
    """As `write_look`, with nothing on disk: for images, and for arrays that Dask hands in."""
    tally, rows = Tally(reader, threshold), []
    for strip in look_at(lookout, reader):
        tally.add(strip)
        rows.append(strip.found)
    context = tally.ground.context()
    ground = Ground(ArrayField(context), tally.ground.side, bool(context[-1].any()))
    return Found(ArrayField(np.concatenate(rows, axis=1)), ground, tally.coverage)


def write_look(
    lookout: Lookout, scene: RasterioScene, reader: CoarseReader, threshold: float, places: Places
) -> Coverage:
    """Look at a whole scene and write what was found, under its names only when it is whole.

    Args:
        lookout: Who looks.
        scene: The scene.
        reader: It on the detector's pixels.
        threshold: Probability from which on a pixel is taken to need restoring.
        places: The rasters: uint8 probabilities, 0 to 255, of needing restoration, of cloud and of shadow,
            0 where no pixel is valid; and the ground, as `GroundSums.context`.
    """
    tally = Tally(reader, threshold)
    try:
        with write_whole(places.cloud) as partial:
            profile = _profile(scene, "uint8", 3, reader.coarse_shape, reader.factor)
            with rasterio.open(partial, "w", **profile) as target:
                for strip in look_at(lookout, reader):
                    height, width = strip.found.shape[1:]
                    window = Window(col_off=0, row_off=strip.rows.start, width=width, height=height)
                    target.write(strip.found, window=window)
                    tally.add(strip)
                target.update_tags(**{k.upper(): repr(v) for k, v in vars(tally.coverage).items()})
            _write_ground(tally, scene, reader, places.ground)
    except RasterioError as error:
        raise OutputError(f"{_LOST} {places.cloud} cannot be written ({error}): is the disk full?") from error
    return tally.coverage


def _write_ground(tally: Tally, scene: RasterioScene, reader: CoarseReader, path: Path) -> None:
    context = tally.ground.context()
    side = tally.ground.side
    with write_whole(path) as partial:
        profile = _profile(scene, "float32", len(context), context.shape[1:], side)
        with rasterio.open(partial, "w", **profile) as target:
            target.write(context)
            target.update_tags(SIDE=repr(side), KNOWN=repr(int(context[-1].any())))


def _profile(
    scene: RasterioScene, dtype: str, count: int, shape: tuple[int, ...], factor: int
) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "dtype": dtype,
        "count": count,
        "height": shape[0],
        "width": shape[1],
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "crs": scene.crs,
        "transform": scene.transform @ Affine.scale(factor),
    }


def read_coverage(path: Path) -> Coverage | None:
    """What the tags of a raster that is there say; ``None``: there is none, or it is damaged."""
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
        return Coverage(*(float(tags[name]) for name in ("CLOUD", "RESTORE", "VALID")))
    except (RasterioError, LookupError, ValueError):
        return None


def read_ground(path: Path) -> Ground | None:
    """The ground that is there; ``None``: there is none, or it is damaged."""
    try:
        with rasterio.open(path) as source:
            tags, shape = source.tags(), source.shape
        return Ground(FileField(str(path.resolve()), shape), int(tags["SIDE"]), tags["KNOWN"] == "1")
    except (RasterioError, LookupError, ValueError):
        return None
