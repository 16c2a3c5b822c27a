"""Average a scene to coarse pixels, a few rows at a time: memory follows its width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.tiling.grid import Span

ROWS = 64
"""Number of rows of the scene read at a time, about."""


class Sight(Protocol):
    """Input of a detector at full resolution, before it is averaged."""

    def __call__(self, span: Span, pixels: Pixels, valid: Bool) -> tuple[Float, Bool]:
        """Convert all bands' digital numbers to ``(D, h, w)``, with a mask of the valid ones, same shape."""
        ...


@dataclass(frozen=True)
class Coarse:
    """Some rows of coarse pixels over the whole width.

    Args:
        image: The restorer's bands in [-1, 1], ``(C, h, w)``, on pixels ``split`` times finer; means of valid
            ones.
        share: Share of each of these that is valid in all bands, ``(1, h, w)``.
        sight: Input of the detector, ``(D, h, w)``.
        valid: Where any pixel of that is valid, ``(D, h, w)``.
        split: Fine pixels a side of a coarse one.
    """

    image: Float
    share: Float
    sight: Float
    valid: Bool
    split: int = 1

    def rows(self, first: int, end: int) -> Coarse:
        """Return some of the rows."""
        fine, own = slice(first * self.split, end * self.split), slice(first, end)
        return Coarse(
            self.image[:, fine], self.share[:, fine], self.sight[:, own], self.valid[:, own], self.split
        )


@dataclass(frozen=True)
class CoarseReader:
    """Average a scene.

    Args:
        shape: Of the scene, px.
        source: Its pixels.
        indexes: The restorer's bands.
        radiometry: Their scaling.
        factor: Pixels a side of a coarse one.
        sight: Input of the detector; ``None``: the restorer's bands in [-1, 1].
        split: How many times finer the restorer's bands are averaged; a divisor of ``factor``.
    """

    shape: tuple[int, int]
    source: Source
    indexes: tuple[int, ...]
    radiometry: Radiometry
    factor: int
    sight: Sight | None = None
    split: int = 1

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Return ``(height, width)`` in coarse pixels.

        The last ones may be cut.
        """
        return -(-self.shape[0] // self.factor), -(-self.shape[1] // self.factor)

    def read(self, rows: range) -> Coarse:
        """Return rows of coarse pixels."""
        row, factor = rows.start * self.factor, self.factor
        span = Span(row, 0, min(self.shape[0], rows.stop * factor) - row, self.shape[1])
        pixels = self.source.read(span)
        valid, bands = self.source.valid(span, pixels), list(self.indexes)
        scaled = self.radiometry.to_model(pixels[bands])
        image, _ = _means(scaled, valid[bands], span, factor // self.split)
        everywhere = np.asarray(valid[bands].all(axis=0, keepdims=True), np.float32)
        share, _ = _means(everywhere, np.ones(everywhere.shape, bool), span, factor // self.split)
        sight = (scaled, valid[bands]) if self.sight is None else self.sight(span, pixels, valid)
        return Coarse(image, share, *_means(*sight, span, factor), self.split)

    def strips(self, own: int, reach: int) -> Iterator[tuple[range, range, Coarse]]:
        """Yield strips of ``own`` rows, the rows within ``reach`` of them, and the content of the latter."""
        height = self.coarse_shape[0]
        chunk = max(1, ROWS // self.factor)
        parts: list[Coarse] = []
        first = last = 0
        for top in range(0, height, own):
            mine = range(top, min(height, top + own))
            near = range(max(0, top - reach), min(height, mine.stop + reach))
            while last < near.stop:
                rows = range(last, min(last + chunk, height))
                parts.append(self.read(rows))
                last = rows.stop
            whole = joined(parts).rows(near.start - first, last - first)
            parts, first = [whole], near.start
            yield mine, near, whole.rows(0, len(near))


@dataclass(frozen=True)
class ReadAlready(CoarseReader):
    """Serve rows that are averaged already.

    Args:
        parts: All of the scene, from top to bottom.
    """

    parts: tuple[Coarse, ...] = ()

    def read(self, rows: range) -> Coarse:
        """Return rows of coarse pixels."""
        return self._whole.rows(rows.start, rows.stop)

    @cached_property
    def _whole(self) -> Coarse:
        return joined(list(self.parts))


def joined(parts: list[Coarse]) -> Coarse:
    """Join rows of several parts, from top to bottom."""
    image, share, sight, valid = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("image", "share", "sight", "valid")
    )
    return Coarse(image, share, sight, valid, parts[0].split)


def _means(image: Float, valid: Bool, span: Span, factor: int) -> tuple[Float, Bool]:
    """Return means of valid pixels of ``(C, H, W)``, and where there are any, ``(C, h, w)`` each."""
    counts = _block_counts(span, factor)
    if valid.all():
        means = _block_sums(image, factor) / counts
        return np.asarray(means, np.float32), np.ones(means.shape, bool)
    valid_counts = _block_sums(valid.astype(np.float32), factor)
    sums = _block_sums(np.where(valid, image, np.float32(0)), factor)
    return np.asarray(sums / np.maximum(valid_counts, 1), np.float32), valid_counts > 0


def _block_sums(image: Float, factor: int) -> Float:
    """Sum over ``factor`` x ``factor`` pixels of ``(C, H, W)``.

    The last ones of a side may have fewer.
    """
    bands, height, width = image.shape
    padding = [(0, 0), (0, -height % factor), (0, -width % factor)]
    if any(after for _, after in padding):
        image = np.pad(image, padding)
    rows: Float = image.reshape(bands, -1, factor, image.shape[2]).sum(axis=2, dtype=np.float32)
    sums: Float = rows[..., ::factor].copy()
    for offset in range(1, factor):
        sums += rows[..., offset::factor]
    return sums


def _block_counts(span: Span, factor: int) -> Float:
    """Count the pixels in each block of a window that begins at one, ``(h, w)``."""
    down, across = (
        np.minimum(factor, side - factor * np.arange(-(-side // factor)))
        for side in (span.height, span.width)
    )
    return (down[:, None] * across[None, :]).astype(np.float32)
