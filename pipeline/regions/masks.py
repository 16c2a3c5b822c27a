"""Soften and buffer cloud masks, the user's or a detector's.

Outside the soft mask every pixel is the input's, bit for bit; tiles that it does not touch are not sampled.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.raster.handles import message_in, row_by_row
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import ELSEWHERE, lies_elsewhere, misfit, read_on_grid
from decr_scene.pipeline.regions.conventions import rule_of
from decr_scene.pipeline.regions.fields import ArrayField, Field, interpolate
from decr_scene.pipeline.regions.mask_scan import scan
from decr_scene.pipeline.regions.mask_values import OWN, Rule
from decr_scene.pipeline.tiling.grid import Span, TileGrid


class Rim(NamedTuple):
    """What is restored around cloud.

    Args:
        buffer: Distance from cloud up to which all is restored fully, px.
        falloff: Width over which the restoration then fades out, px.
    """

    buffer: int
    falloff: int

    @property
    def reach(self) -> int:
        """Return the distance from cloud up to which pixels may change, px."""
        return self.buffer + self.falloff

    @classmethod
    def parse(cls, text: str | None) -> Rim:
        """Read the tag of a mask; `WIDE_RIM` if there is none, or something else."""
        match = _RIM.fullmatch(text or "")
        return cls(int(match[1]), int(match[2])) if match else WIDE_RIM

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.buffer},{self.falloff}"


_RIM = re.compile(r"(\d{1,3}),([1-9]\d{0,2})", re.ASCII)

WIDE_RIM = Rim(12, 20)
"""Around cloud whose mask is tight, as most are: it has thin rims."""

CLOSE_RIM = Rim(2, 6)
"""Around what a detector finds that hardly any cloud escapes, rims included; for the tone of clear ground
what is as near as `WIDE_RIM` still does not count."""

RIM_TAG = "DECR_SCENE_RIM"
"""Tag of a mask that `decr-scene mask` has written: the rim that a run of its own would take."""

OVERLOOKED, DENSE = 255, 254
"""Probability of shadow, of 0 to 255, where a cloud with an inside is dense: of what a detector
overlooked, and of what it saw. That of cloud is 255 there, beside which no other place has any shadow.
"""

BARE = 3
"""Number of the band of a detector's answers that tells how bare the ground is, as `bare_told` writes it."""

BARE_SIGMA = 16.0
"""Standard deviation of the Gaussian by which that is smoothed, px."""

_PIECE = 128
"""Side of the squares that a window is worked in, px: distances are measured only at the rim of cloud."""


@dataclass(frozen=True)
class Mask(ABC):
    """A raster mask of cloud, read on the grid of a scene.

    Args:
        path: The raster; every worker opens its own handle.
        scene: The scene.
        rim: What is restored around cloud.
    """

    path: str
    scene: RasterioScene
    rim: Rim = WIDE_RIM

    def soft(self, span: Span) -> Float:
        """Return weights of the restoration: 1 in and around cloud, 0 away from it, ``(height, width)``."""
        reach, (height, width) = self.rim.reach, self.scene.shape
        row, col = max(0, span.row - reach), max(0, span.col - reach)
        bottom, right = min(height, span.bottom + reach), min(width, span.right + reach)
        wide = Span(row, col, bottom - row, right - col)
        return _soft_inside(self.cloud(wide), span.inside(wide), self.rim)

    def touched_cells(self, grid: TileGrid) -> Bool:
        """Mark the cells of a grid that the soft mask touches, of the shape of `TileGrid.cells`."""
        rows, cols = grid.cells
        reach, (height, width) = self.rim.reach, grid.shape
        touched = np.zeros((len(rows), len(cols)), bool)
        for top, bottom in pairwise((*grid.rows, height)):
            above = max(0, top - reach)
            cloud = self.cloud(Span(above, 0, min(height, bottom + reach) - above, width))
            if not cloud.any():
                continue
            for index, (first, end) in enumerate(rows):
                if top <= first < bottom:
                    across = slice(first - above, end - above)
                    touched[index] = [_touches(cloud, across, slice(*col), self.rim) for col in cols]
        return touched

    @abstractmethod
    def cloud(self, span: Span) -> Bool:
        """Return where cloud is in a window of the scene, ``(height, width)``."""


@dataclass(frozen=True)
class MaskFile(Mask):
    """A mask from a file, any that GDAL reads; `MaskFile.read` also chooses the rule by its values.

    Args:
        rule: Which values are cloud.
        share: Share of the scene where it has valid pixels.
        nan: Share of the scene where it is NaN or infinite and does not declare that as nodata.

    Raises:
        MaskError: It cannot be read, or its place on the scene is unknown.
    """

    rule: Rule = OWN
    share: float = 1.0
    nan: float = 0.0

    def __post_init__(self) -> None:
        with self._open() as source:
            trouble = misfit(source, self.scene)
            if lies_elsewhere(source, self.scene):
                trouble = ELSEWHERE
            if any(np.dtype(kind).kind == "c" for kind in source.dtypes):
                trouble = "has complex numbers, expected integers or probabilities: convert it"
        if trouble is not None:
            raise MaskError(f"mask {self.path} {trouble}")

    @classmethod
    def read(cls, path: str, scene: RasterioScene, values: str | None = None) -> MaskFile:
        """Open a mask of a scene, and choose which of its values are cloud.

        Args:
            path: The raster.
            scene: The scene.
            values: As ``--mask-values``; ``None``: by names and values of the mask.

        Raises:
            MaskError: As `MaskFile`; or it has no valid pixel on the scene, or its values fit no convention.
        """
        mask = cls(path, scene)
        with mask._open() as source:
            values_of = cache(lambda band: scan(source, scene, band))
            first = values_of(1)
            if not first.share:
                raise MaskError(
                    f"mask {path} says nothing of the scene {scene.path}: it does not touch it, or is nodata "
                    "or NaN there; compare their places, or choose another"
                )
            rule = rule_of(source, path, values_of, values)
            nan = max(values_of(band).nan for band in rule.bands)
            rim = Rim.parse(source.tags().get(RIM_TAG))
            return replace(mask, rim=rim, rule=rule, share=first.share, nan=nan)

    def cloud(self, span: Span) -> Bool:
        """Return where the mask has cloud, ``(height, width)``.

        Pixels without value have none; NaN and infinities are no values.
        """
        cloud = np.zeros((span.height, span.width), bool)
        with self._open() as source:
            for band in self.rule.bands:
                (values,), valid = read_on_grid(source, self.scene, span, [band], Resampling.nearest)
                known = np.isfinite(values) if values.dtype.kind == "f" else True
                cloud |= self.rule.values.hold(values) & valid & known
        return cloud

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with row_by_row(), rasterio.open(self.path) as source:
                yield source
        except DecrSceneError:
            raise  # some are a ValueError, too
        except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            if isinstance(error, UnicodeDecodeError):
                reason = message_in(error) or "the name of its CRS is no UTF-8"
            raise MaskError(f"mask {self.path} cannot be read ({reason}): check it with gdalinfo") from error


@dataclass(frozen=True)
class DetectedMask:
    """A mask from a detector: probabilities of 0 to 255, one for each square block of the scene's pixels.

    Its place follows from the size of a block, so it needs no georeferencing. Between blocks it is
    interpolated, so that coarse ones leave no steps.

    Args:
        field: The probabilities, in its first band; in band `BARE`, if there is one, how bare the ground is.
        shape: Of the scene, px.
        factor: Side of a block, px of the scene.
        least: Lowest value of a block that is cloud.
        rim: What is restored around cloud: all neighbours of a block, and fading out over one, at the least.
        insides: Whether the second and third band tell of the insides of clouds, as of `is_inside`.
    """

    field: Field
    shape: tuple[int, int]
    factor: int
    least: int
    rim: Rim = WIDE_RIM
    insides: bool = False

    @property
    def reach(self) -> int:
        """Return the distance from a block of cloud up to which pixels may change, px."""
        return math.ceil(self._buffer + self._falloff) + self.factor

    def soft(self, span: Span) -> Float:
        """Return the weight of the restoration, as `Mask.soft`, ``(height, width)``."""
        rows, cols = self._blocks(span, -(-self.reach // self.factor) + 1)
        cloud = self._cloud(rows, cols)
        if not cloud.any():
            return np.zeros((span.height, span.width), np.float32)
        if cloud.all():
            return np.ones((span.height, span.width), np.float32)
        return self._on_pixels(self._soften(cloud), span, rows, cols)

    def cloud(self, span: Span) -> Bool:
        """Return where cloud is, as `Mask.cloud`, by whole blocks, ``(height, width)``."""
        return self._by_blocks(span, self._cloud)

    def inside(self, span: Span) -> Bool:
        """Return what larger clouds have inside, by whole blocks, ``(height, width)``."""
        if not self.insides:
            return np.zeros((span.height, span.width), np.bool_)
        return self._by_blocks(span, lambda *place: is_inside(self.field.read(*place)))

    def _by_blocks(self, span: Span, told: Callable[[slice, slice], Bool]) -> Bool:
        """Enlarge what is told of rows and columns of blocks to the pixels of a window."""
        down, across = (
            np.arange(first, end) // self.factor
            for first, end in ((span.row, span.bottom), (span.col, span.right))
        )
        blocks = told(slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1))
        return np.asarray(blocks[np.ix_(down - down[0], across - across[0])])

    def bare(self, span: Span) -> Float:
        """Return how bare the ground around is, ``(height, width)`` in [0, 1]; 0 where that is not told.

        It is averaged over what is valid and not detected as cloud or shadow.
        """
        from scipy.ndimage import gaussian_filter

        sigma = max(BARE_SIGMA / self.factor, 0.5)
        rows, cols = self._blocks(span, math.ceil(3 * sigma) + 1)
        fields = self.field.read(rows, cols)
        if len(fields) <= BARE:
            return np.zeros((span.height, span.width), np.float32)
        told = fields[BARE].astype(np.float32)
        clear = ((fields[0] < self.least) & (told > 0)).astype(np.float32)
        bare = np.maximum(told - 1, 0) * clear / np.float32(254)
        bare, clear = (
            gaussian_filter(values, sigma, mode="nearest", truncate=3.0) for values in (bare, clear)
        )
        share = np.divide(bare, clear, out=np.zeros_like(bare), where=clear > 0)
        return self._on_pixels(share, span, rows, cols)

    def touched_cells(self, grid: TileGrid) -> Bool:
        """Mark cells as `Mask.touched_cells`, by whole blocks: at a corner perhaps one cell more."""
        rows, cols = grid.cells
        reach, factor, (height, width) = self.reach, self.factor, grid.shape
        touched = np.zeros((len(rows), len(cols)), bool)
        for index, (first, end) in enumerate(rows):
            nearby = slice(max(0, first - reach) // factor, -(-min(height, end + reach) // factor))
            cloudy = np.asarray(self._cloud(nearby, slice(0, -(-width // factor))).any(axis=0))
            touched[index] = [
                cloudy[max(0, left - reach) // factor : -(-(right + reach) // factor)].any()
                for left, right in cols
            ]
        return touched

    @property
    def _buffer(self) -> float:
        """Return the distance that is restored fully, px: all blocks that touch one, at the least."""
        return max(self.rim.buffer, math.sqrt(2) * self.factor - (self.factor - 1) / 2)

    @property
    def _falloff(self) -> int:
        return max(self.rim.falloff, self.factor)

    def _blocks(self, span: Span, margin: int) -> tuple[slice, slice]:
        """Return the blocks of a window and so many around it, rows and columns."""
        rows, cols = (
            slice(max(0, first // self.factor - margin), min(extent, -(-end // self.factor) + margin))
            for first, end, extent in (
                (span.row, span.bottom, self.field.shape[0]),
                (span.col, span.right, self.field.shape[1]),
            )
        )
        return rows, cols

    def _on_pixels(self, values: Float, span: Span, rows: slice, cols: slice) -> Float:
        """Interpolate values of these blocks, ``(h, w)``, on the pixels of a window."""
        down = (span.row + np.arange(span.height) + 0.5) / self.factor - rows.start
        across = (span.col + np.arange(span.width) + 0.5) / self.factor - cols.start
        return interpolate(ArrayField(values[None]), down, across)[0]

    def _cloud(self, rows: slice, cols: slice) -> Bool:
        return np.asarray(self.field.read(rows, cols)[0] >= self.least)

    def _soften(self, cloud: Bool) -> Float:
        """Soften as `_soften`, on blocks ``(rows, cols)``: distances are those from the edge of a block."""
        from scipy.ndimage import distance_transform_edt

        distance = distance_transform_edt(~cloud) * self.factor - (self.factor - 1) / 2
        return _fade((distance - self._buffer) / self._falloff)


def is_inside(answers: Any, least: int = DENSE) -> Bool:
    """Tell of answers ``(B, h, w)`` where a cloud with an inside is dense, ``(h, w)``.

    Args:
        answers: Probabilities of 0 to 255.
        least: `DENSE` for all of it, `OVERLOOKED` for that alone.
    """
    return np.asarray((answers[1] == 255) & (answers[2] >= least))


def bare_told(bare: Float) -> Float:
    """Return how bare ground is, [0, 1], as it stands among probabilities: nothing is below 1 of 255."""
    return np.asarray((1 + 254 * bare) / 255, np.float32)


def _soft_inside(cloud: Bool, part: tuple[slice, slice], rim: Rim) -> Float:
    """Return the soft mask in a part of a window that holds all cloud in reach of it."""
    rows, cols = part
    soft = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
    for row in range(rows.start, rows.stop, _PIECE):
        for col in range(cols.start, cols.stop, _PIECE):
            bottom, right = min(rows.stop, row + _PIECE), min(cols.stop, col + _PIECE)
            piece = slice(row - rows.start, bottom - rows.start), slice(col - cols.start, right - cols.start)
            soft[piece] = _soft_piece(cloud, slice(row, bottom), slice(col, right), rim)
    return soft


def _touches(cloud: Bool, rows: slice, cols: slice, rim: Rim) -> bool:
    """Return whether the soft mask is above 0 in a part of a window."""
    return bool(cloud[rows, cols].any() or np.any(_soft_piece(cloud, rows, cols, rim)))


def _soft_piece(cloud: Bool, rows: slice, cols: slice, rim: Rim) -> Float | float:
    """Return the soft mask in a part of a window.

    Distances are only measured where they decide.
    """
    reach = rim.reach
    top, left = max(0, rows.start - reach), max(0, cols.start - reach)
    nearby = cloud[top : rows.stop + reach, left : cols.stop + reach]
    if not nearby.any():
        return 0.0
    if cloud[rows, cols].all():
        return 1.0
    return _soften(nearby, rim)[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]


def _soften(cloud: Bool, rim: Rim) -> Float:
    """Return 1 up to the buffer around cloud, then a raised cosine to 0 over the falloff, same shape."""
    from scipy.ndimage import distance_transform_edt

    return _fade((distance_transform_edt(~cloud) - rim.buffer) / rim.falloff)


def _fade(away: Double) -> Float:
    """Return a raised cosine, 1 up to 0 and 0 from 1 on, same shape."""
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(away, 0, 1))).astype(np.float32)
