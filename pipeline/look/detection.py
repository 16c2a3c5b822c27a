"""Detect cloud and shadow in a whole scene before it is tiled, and average the tone of its ground.

The scene is read once, a few rows at a time, averaged to the detector's coarse pixels, and detected in
windows that overlap by the detector's reach, so that they join without a seam. The result is two small
rasters beside the output: probabilities, which are used as a mask of the user's is, and the ground.
"""

from __future__ import annotations

import glob
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
from decr_scene.pipeline.files import os_faults, write_whole
from decr_scene.pipeline.look.coarse import Coarse, CoarseReader, joined
from decr_scene.pipeline.look.detectors import CLOUD, RESTORE, SHADOW, Lookout
from decr_scene.pipeline.look.ground import Ground, GroundSums, ground_side
from decr_scene.pipeline.look.insides import LIKELY
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.fields import ArrayField, FileField
from decr_scene.pipeline.regions.masks import DENSE, OVERLOOKED, is_inside

Bytes = NDArray[np.uint8]


class Places(NamedTuple):
    """Paths of the two rasters of a look: probabilities, and the ground."""

    cloud: Path
    ground: Path

    @classmethod
    def inside(cls, folder: str) -> Places:
        """Name both in a folder, which holds nothing else of these names."""
        return cls(Path(folder, "cloud.tif"), Path(folder, "ground.tif"))

    def of_date(self, number: int) -> Places:
        """Name those of a look at another date, which lie beside these; ``number`` is from 1."""
        return Places(*(path.with_name(f"{path.stem}-{number}{path.suffix}") for path in self))

    @property
    def existing(self) -> list[Path]:
        """List what is there, of other dates, too."""
        patterns = [f"{glob.escape(path.stem)}-*{path.suffix}" for path in self]
        dates = [found for path, name in zip(self, patterns, strict=True) for found in path.parent.glob(name)]
        return [path for path in (*self, *sorted(dates)) if path.exists()]

    def remove(self) -> None:
        """Remove what is there."""
        for path in self.existing:  # a disk that is read alone refuses to remove what is not there
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Coverage:
    """Cloud coverage of a scene, over its valid pixels.

    Args:
        cloud: Mean probability of cloud or thin cloud: the paper's cloud coverage probability.
        restore: Share that is to be restored, for cloud or shadow.
        valid: Share of the scene that is valid.
        insides: Share that is the dense part of clouds with an inside.
    """

    cloud: float
    restore: float
    valid: float
    insides: float = 0.0


class Strip(NamedTuple):
    """Some rows: range, image ``(C, h, w)``, valid share, answers ``(B, h, w)`` and where they count."""

    rows: range
    image: Float
    share: Float
    answers: Bytes
    usable: Bool


@contextmanager
def look_files(places: Places, journal: Path) -> Iterator[None]:
    """Remove the rasters at the end, unless there is a journal, with which the run can be continued."""
    try:
        yield
    finally:
        if not journal.exists():
            places.remove()


def look_at(lookout: Lookout, reader: CoarseReader) -> Iterator[Strip]:
    """Detect cloud from top to bottom.

    Answers are probabilities of 0 to 255, 0 where nothing is valid. Windows overlap by twice the detector's
    reach. Answers that depend on pixels in reach alone are cut in the middle of the overlap; those that
    depend on the whole window are blended.
    """
    height, width = reader.coarse_shape
    side = lookout.whole if max(height, width) <= lookout.whole else lookout.own
    total, weight, pending = np.zeros((lookout.bands, 0, width)), np.zeros((0, width)), None
    first = 0
    for own_rows, view, coarse in reader.strips(side, lookout.reach):
        new = view.stop - first - len(weight)
        total = np.pad(total, ((0, 0), (0, new), (0, 0)))
        weight = np.pad(weight, ((0, new), (0, 0)))
        fresh = coarse.rows(len(view) - new, len(view))
        pending = fresh if pending is None else joined([pending, fresh])
        skipped = max(0, first - view.start)
        rows = slice(view.start + skipped - first, view.stop - first)
        for cols, answer, counts in _answers(lookout, coarse, own_rows, view, side):
            total[:, rows, cols] += (answer * counts)[:, skipped:]
            weight[rows, cols] += counts[skipped:]
        end = height if own_rows.stop == height else own_rows.stop - (lookout.reach if lookout.blends else 0)
        finished = end - first
        probability = total[:, :finished] / np.where(weight[:finished] > 0, weight[:finished], 1)
        ready = pending.rows(0, finished)
        usable = np.asarray(ready.valid.any(axis=0))
        levels = np.rint(probability * 255).astype(np.uint8) * usable
        yield Strip(range(first, end), ready.image, ready.share, levels, usable)
        total, weight, first = total[:, finished:], weight[finished:], end
        pending = pending.rows(finished, finished + len(weight))


def _answers(
    lookout: Lookout, coarse: Coarse, own_rows: range, rows_in_view: range, side: int
) -> Iterator[tuple[slice, Float, Float]]:
    """Yield columns, answers and their weights of the windows of a strip with a valid pixel."""
    width = coarse.valid.shape[2]
    windows = []
    for left in range(0, width, side):
        right = min(width, left + side)
        view_cols = slice(max(0, left - lookout.reach), min(width, right + lookout.reach))
        if coarse.valid[..., view_cols].any():
            windows.append((range(left, right), range(view_cols.start, view_cols.stop), view_cols))
    answers = lookout.answers([(coarse.sight[..., cols], coarse.valid[..., cols]) for *_, cols in windows])
    weigh = _ramp if lookout.blends else _inside
    for (across, sight, place), answer in zip(windows, answers, strict=True):
        down = weigh(own_rows, rows_in_view, lookout.reach)[:, None]
        yield place, answer, np.asarray(down * weigh(across, sight, lookout.reach), np.float32)


def _inside(own: range, view: range, reach: int) -> Double:
    """Weigh the pixels that a window answers for 1, others 0, ``(n,)``."""
    places = np.asarray(view)
    return ((places >= own.start) & (places < own.stop)).astype(np.float64)


def _ramp(own: range, view: range, reach: int) -> Double:
    """Weigh the pixels of a window with a ramp over its overlaps, ``(n,)``.

    At the scene's border it ends.
    """
    place = np.arange(len(view)) + 0.5
    return np.minimum(1, np.minimum(place, len(view) - place) / (2 * reach))


class Tally:
    """Add up coverage and ground of a scene, strip by strip."""

    def __init__(self, reader: CoarseReader, threshold: float) -> None:
        self._least = round(255 * threshold)
        self._pixels = reader.coarse_shape[0] * reader.coarse_shape[1]
        self._count, self._cloud, self._restore, self._inside = 0, 0.0, 0, 0
        _, step = ground_side(reader.shape, reader.factor)
        side = reader.factor // reader.split
        self.ground = GroundSums(len(reader.indexes), reader.shape, side, step, reader.split)

    def add(self, strip: Strip) -> None:
        """Add a strip."""
        self._count += int(strip.usable.sum())
        self._count_answers(strip.answers, 1)
        probability = strip.answers.astype(np.float32) / np.float32(255)
        self.ground.add(strip.rows, strip.image, strip.share, probability)

    def insides(self, factor: int) -> Insides | None:
        """Find the insides of clouds, and count them as cloud; ``None``: there are none.

        Args:
            factor: Side of a pixel of the answers, px of the scene.
        """
        found = self.ground.insides()
        return Insides(found, factor, self.ground.side, self) if found.any() else None

    def correct(self, before: Bytes, after: Bytes) -> None:
        """Count answers in the place of others, ``(B, h, w)``."""
        self._count_answers(before, -1)
        self._count_answers(after, 1)
        self._inside += int(is_inside(after).sum())

    def _count_answers(self, answers: Bytes, times: int) -> None:
        self._cloud += times * float(answers[CLOUD].sum(dtype=np.int64)) / 255
        self._restore += times * int((answers[RESTORE] >= self._least).sum())

    @property
    def coverage(self) -> Coverage:
        """Return the coverage of the strips added."""
        total = max(1, self._count)
        shares = (self._cloud / total, self._restore / total, self._count / self._pixels)
        return Coverage(*shares, self._inside / total)


@dataclass(frozen=True)
class Insides:
    """Insides of clouds, which are entered in answers.

    Args:
        found: Where they are, on pixels of the ground, ``(h, w)``.
        factor: Side of a pixel of the answers, px of the scene.
        side: Side of a pixel of the ground, px of the scene.
        tally: What is told of the answers that change.
    """

    found: Bool
    factor: int
    side: int
    tally: Tally

    def enter(self, answers: Bytes, row: int = 0, col: int = 0) -> Bytes:
        """Return answers ``(B, h, w)`` that begin at a row and a column, with what of them is inside."""
        rows, cols = (
            np.minimum((first + np.arange(extent) + 0.5) * self.factor / self.side, last).astype(np.intp)
            for first, extent, last in (
                (row, answers.shape[1], self.found.shape[0] - 1),
                (col, answers.shape[2], self.found.shape[1] - 1),
            )
        )
        inside = self.found[np.ix_(rows, cols)]
        if not inside.any():
            return answers
        entered = answers.copy()
        entered[RESTORE, inside] = entered[CLOUD, inside] = 255
        entered[SHADOW, inside] = np.where(answers[CLOUD, inside] >= 255 * LIKELY, DENSE, OVERLOOKED)
        self.tally.correct(answers, entered)
        return entered


class LookInMemory(NamedTuple):
    """A look in memory: probabilities as `write_look` writes them, the ground, and the coverage."""

    cloud: ArrayField
    ground: Ground
    coverage: Coverage


def look_in_memory(lookout: Lookout, reader: CoarseReader, threshold: float) -> LookInMemory:
    """Detect cloud as `write_look`, in memory: for images, and for arrays of Dask."""
    tally, rows = Tally(reader, threshold), []
    for strip in look_at(lookout, reader):
        tally.add(strip)
        rows.append(strip.answers)
    answers = np.concatenate(rows, axis=1)
    if lookout.insides and (inside := tally.insides(reader.factor)) is not None:
        answers = inside.enter(answers)
    return LookInMemory(ArrayField(answers), tally.ground.ground(), tally.coverage)


def write_look(
    lookout: Lookout, scene: RasterioScene, reader: CoarseReader, threshold: float, places: Places
) -> Coverage:
    """Detect cloud in a whole scene and write the rasters, under their names only when they are whole.

    Args:
        lookout: The detector.
        scene: The scene.
        reader: The scene on the detector's pixels.
        threshold: Least probability of a pixel that is restored.
        places: The rasters: uint8 probabilities, 0 to 255, of needing restoration, of cloud, of shadow
            and, of a detector that tells it, of bare ground, 0 where no pixel is valid; and the ground, as
            `Ground.field`.
    """
    tally = Tally(reader, threshold)
    try:
        with write_whole(places.cloud) as partial:
            profile = _profile(scene, "uint8", lookout.bands, reader.coarse_shape, reader.factor)
            with rasterio.open(partial, "w", **profile) as target:
                for strip in look_at(lookout, reader):
                    height, width = strip.answers.shape[1:]
                    window = Window(col_off=0, row_off=strip.rows.start, width=width, height=height)
                    target.write(strip.answers, window=window)
                    tally.add(strip)
            with rasterio.open(partial, "r+") as target:
                if lookout.insides and (inside := tally.insides(reader.factor)) is not None:
                    _enter(inside, target)
                target.update_tags(**{k.upper(): repr(v) for k, v in vars(tally.coverage).items()})
            _write_ground(tally.ground.ground(), scene, places.ground)
    except RasterioError:
        with os_faults("cannot write what is seen of the scene", places.cloud.absolute().parent):
            raise
    return tally.coverage


def _enter(inside: Insides, target: Any) -> None:
    """Enter insides of clouds in the raster of answers, block by block."""
    for _, window in target.block_windows(1):
        before = target.read(window=window)
        after = inside.enter(before, window.row_off, window.col_off)
        if after is not before:
            target.write(after, window=window)


def _write_ground(ground: Ground, scene: RasterioScene, path: Path) -> None:
    height, width = ground.field.shape
    context = ground.field.read(slice(0, height), slice(0, width))
    with write_whole(path) as partial:
        profile = _profile(scene, "float32", len(context), (height, width), ground.side)
        with rasterio.open(partial, "w", **profile) as target:
            target.write(context)
            spread = " ".join(repr(value) for value in ground.spread)
            target.update_tags(SIDE=repr(ground.side), CLEAR=repr(ground.clear), SPREAD=spread)


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
    """Read the coverage of an existing raster from its tags, or ``None`` if it is missing or damaged."""
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
        return Coverage(*(float(tags[name]) for name in ("CLOUD", "RESTORE", "VALID", "INSIDES")))
    except (RasterioError, LookupError, ValueError):
        return None


def read_ground(path: Path) -> Ground | None:
    """Read an existing ground, or return ``None`` if it is missing or damaged."""
    try:
        with rasterio.open(path) as source:
            tags, shape = source.tags(), source.shape
        spread = tuple(float(value) for value in tags["SPREAD"].split())
        return Ground(FileField(str(path.resolve()), shape), int(tags["SIDE"]), float(tags["CLEAR"]), spread)
    except (RasterioError, LookupError, ValueError):
        return None
