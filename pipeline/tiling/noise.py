"""Draw noise by place: a pure function of (seed, step, band, row, col of the scene).

Overlapping tiles have the same noise, so batch size, tile order, workers, gating and resume cannot change a
result, and feathering does not wash the texture out. The scene is cut into cells; each cell of each band has
a Philox stream of its own, keyed by seed, step, band and the cell's place (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"). Its raw bits, which numpy promises never to change, become normal
numbers by Box and Muller's formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.normal import Words, normal_numbers

if TYPE_CHECKING:
    import torch

CELL = 64
"""Side of a cell, px; part of the definition: another value gives another noise."""

SIDE = 4
"""Cells a side of a block, which is made and cached at a time.

numpy lets other threads in between two operations, and threads that take turns at small ones get no further
than one alone: of two that draw blocks of 2 cells a side none gains anything, of 4 both go on.
"""

BLOCK = SIDE * CELL
"""Side of a block, px."""

BLOCKS_KEPT = 256
"""Number of cached blocks of 256 KiB: those of two rows of tiles of four bands, 8192 px wide."""


def place_noise(seed: int, step: int, bands: int, span: Span, out: Float | None = None) -> Float:
    """Draw standard normal noise for a window of the scene.

    Args:
        seed: Of the run.
        step: Number of the diffusion step that the noise is for (0: the start).
        bands: Number of bands.
        span: The window; it may reach beyond the scene to the right and below.
        out: Where to put it; ``None``: into an array of its own.

    Returns:
        ``(bands, span.height, span.width)`` float32.
    """
    noise = np.empty((bands, span.height, span.width), np.float32) if out is None else out
    for row in range(span.row // BLOCK * BLOCK, span.bottom, BLOCK):
        for col in range(span.col // BLOCK * BLOCK, span.right, BLOCK):
            block = Span(row, col, BLOCK, BLOCK)
            common = block & span
            here, there = common.inside(span), common.inside(block)
            for band in range(bands):
                noise[(band, *here)] = _block(seed, step, band, row // BLOCK, col // BLOCK)[there]
    return noise


@dataclass(frozen=True)
class TileNoise:
    """The noise of windows of one size, drawn when it is wanted, here or where a model computes.

    Args:
        seed: Of the run.
        bands: Number of bands.
        spans: The windows.
    """

    seed: int
    bands: int
    spans: Sequence[Span]

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, part: slice) -> TileNoise:
        return replace(self, spans=self.spans[part])

    def filled_up(self, size: int) -> TileNoise:
        """Extend it to ``size`` windows by its last one."""
        return replace(self, spans=[*self.spans, *[self.spans[-1]] * (size - len(self))])

    def drawn(self) -> Float:
        """Draw it, ``(N, bands, height, width)``."""
        noise = np.empty((len(self), self.bands, *self.spans[0][2:]), np.float32)
        for own, span in zip(noise, self.spans, strict=True):
            place_noise(self.seed, 0, self.bands, span, own)
        return noise

    def drawn_on(self, device: torch.device) -> torch.Tensor:
        """Draw the same on a device."""
        from decr_scene.pipeline.tiling.noise_on_device import place_noise_on

        return place_noise_on(device, self.seed, 0, self.bands, self.spans)


@lru_cache(maxsize=BLOCKS_KEPT)
def _block(seed: int, step: int, band: int, row: int, col: int) -> Float:
    """Draw the normal numbers of a block of cells ``(BLOCK, BLOCK)``, read-only."""
    key = stream_key(seed, step, band)
    bits = np.concatenate([_row_of_cells(key, SIDE * row + number, SIDE * col) for number in range(SIDE)])
    normal = np.empty((SIDE, 2, CELL // 2, SIDE, CELL), np.float32)  # a cell's upper half is of cosines
    for half, numbers in enumerate(normal_numbers(bits)):
        normal[:, half] = numbers.reshape(SIDE, SIDE, CELL // 2, CELL).swapaxes(1, 2)
    normal.flags.writeable = False
    return normal.reshape(BLOCK, BLOCK)


def stream_key(seed: int, step: int, band: int) -> Words:
    """Make the key of a band's streams, two words."""
    return np.array([int(seed) & _WORD, (step & 0xFFFFFFFF) << 32 | (band & 0xFFFFFFFF)], np.uint64)


def _row_of_cells(key: Words, row: int, col: int) -> Words:
    """Draw the bits of ``SIDE`` cells, each 64 for two pixels."""
    stream = np.random.Philox(counter=np.array([0, 0, row & _WORD, col & _WORD], np.uint64), key=key)
    cells = []
    for _ in range(SIDE):
        cells.append(stream.random_raw(CELL * CELL // 2))
        stream.advance(_NEXT_COL)
    return np.concatenate(cells)


_WORD = 0xFFFFFFFFFFFFFFFF
_NEXT_COL = (1 << 192) - CELL * CELL // 8
"""From the counter after a cell, four words a count, to that of the next: the column is the last word."""
