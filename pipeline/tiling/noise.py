"""Draw noise by place: a pure function of (seed, step, band, row, col of the scene).

Overlapping tiles have the same noise, so batch size, tile order, workers, gating and resume cannot change a
result, and feathering does not wash the texture out. The scene is cut into cells; each cell of each band has
a Philox stream of its own, keyed by seed, step, band and the cell's place (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"). Its raw bits, which numpy promises never to change, become normal
numbers by Box and Muller's formula.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.tiling.grid import Span

CELL = 64
"""Side of a cell, px; part of the definition: another value gives another noise."""

CELLS_KEPT = 4096
"""Number of cached cells of 16 KiB: those of a row of tiles of four bands, 16384 px wide."""


def place_noise(seed: int, step: int, bands: int, span: Span) -> Float:
    """Draw standard normal noise for a window of the scene.

    Args:
        seed: Of the run.
        step: Number of the diffusion step that the noise is for (0: the start).
        bands: Number of bands.
        span: The window; it may reach beyond the scene to the right and below.

    Returns:
        ``(bands, span.height, span.width)`` float32.
    """
    noise = np.empty((bands, span.height, span.width), np.float32)
    for row in range(span.row // CELL * CELL, span.bottom, CELL):
        for col in range(span.col // CELL * CELL, span.right, CELL):
            cell = Span(row, col, CELL, CELL)
            common = cell & span
            for band in range(bands):
                values = _cell(seed, step, band, row // CELL, col // CELL)
                noise[(band, *common.inside(span))] = values[common.inside(cell)]
    return noise


@lru_cache(maxsize=CELLS_KEPT)
def _cell(seed: int, step: int, band: int, row: int, col: int) -> Float:
    """Draw normal numbers ``(CELL, CELL)``, read-only: ``sqrt(-2 ln u) (cos, sin)(2 pi v)``."""
    key = np.array([seed & _WORD, (step & 0xFFFFFFFF) << 32 | (band & 0xFFFFFFFF)], np.uint64)
    counter = np.array([0, 0, row & _WORD, col & _WORD], np.uint64)
    bits = np.random.Philox(counter=counter, key=key).random_raw(CELL * CELL // 2)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(0xFFFFFFFF)) * (2 * np.pi * 2.0**-32)
    normal = np.empty((2, CELL * CELL // 2), np.float32)
    np.multiply(radius, np.cos(angle), out=normal[0], casting="same_kind")
    np.multiply(radius, np.sin(angle), out=normal[1], casting="same_kind")
    normal.flags.writeable = False
    return normal.reshape(CELL, CELL)


_WORD = 0xFFFFFFFFFFFFFFFF
