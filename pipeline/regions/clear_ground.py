"""Find clear ground by how little the model changes it, so that it keeps its bits.

The decision is made on the smoothed change: a rule for single pixels would draw contours along its limits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.clouds.types import VISIBLE
from decr_scene.pipeline.regions.fields import ArrayField, interpolate
from decr_scene.pipeline.tiling.grid import Span

CLEAR_CHANGE = 2 * 5 / 255
"""A change of 5 of 255 DN is the model's own unsteadiness on clear ground, not cloud."""

CLOUDY_CHANGE = 2 * 15 / 255
"""A change of 15 of 255 DN is cloud or shadow."""

CELL = 8
"""Side of the squares, px, anchored at the scene's origin, over which a change is averaged first."""

WIDE, WIDE_LIMITS = 2.0, (2 * 4 / 255, 2 * 10 / 255)
"""Low pass for veils: its standard deviation, cells; the changes that are clear ground and cloud after it."""

NARROW, NARROW_LIMITS = 0.7, (2 * 10 / 255, 2 * 24 / 255)
"""The same for small clouds."""

DARKER_LIMITS = (2 * 12 / 255, 2 * 30 / 255)
"""By how much a change darkens what is ground, and what is cloud, in the mean of the visible bands."""

TRUNCATE = 3.0
"""Where the low passes end, standard deviations."""

MARGIN = 64
"""Distance up to which the change decides on a pixel, px; a multiple of `CELL`."""

REACH = MARGIN + CELL
"""Greatest distance by which `around` grows a window, px."""


def around(span: Span, shape: tuple[int, int]) -> Span:
    """Return the window of the change that `change_share` of ``span`` needs, within a scene of ``shape``."""
    row, col = (max(0, first - MARGIN) // CELL * CELL for first in (span.row, span.col))
    bottom, right = (
        min(extent, -(-(end + MARGIN) // CELL) * CELL)
        for end, extent in zip((span.bottom, span.right), shape, strict=True)
    )
    return Span(row, col, bottom - row, right - col)


def change_share(change: Float, change_span: Span, span: Span) -> Float:
    """Return the share of a change that is applied: 0 on clear ground, 1 in cloud, ``(h, w)`` of ``span``.

    Args:
        change: ``(C, H, W)`` on the [-1, 1] scale.
        change_span: Its window: `around` of ``span``, so that the share is that of the whole scene.
        span: The window of the share.
    """
    from scipy.ndimage import gaussian_filter

    cells = cell_means(change)
    share = np.zeros(cells.shape[1:], np.float32)
    for sigma, (clear, cloudy) in ((WIDE, WIDE_LIMITS), (NARROW, NARROW_LIMITS)):
        smooth = gaussian_filter(cells, (0, sigma, sigma), mode="nearest", truncate=TRUNCATE)
        share = np.maximum(share, smooth_rise(np.abs(smooth).max(axis=0), clear, cloudy))
    return _on_pixels(share, change_span, span)


def believed_share(change: Float, outside: Bool, change_span: Span, span: Span) -> Float:
    """Return the share of a change that may be of cloud where a detector sees clear ground, ``(h, w)``.

    Cloud that the detector overlooks is lighter than the ground: a change that darkens little is the model's
    mistake.

    Args:
        change: ``(H, W)`` on the [-1, 1] scale: of the mean of the visible bands.
        outside: What is valid and outside the mask, ``(H, W)``: cloud that is seen is darkened, too, and has
            no say beside it.
        change_span: As `change_share`.
        span: As `change_share`.
    """
    from scipy.ndimage import gaussian_filter

    weight, darkening = (
        gaussian_filter(cells, WIDE, mode="nearest", truncate=TRUNCATE)
        for cells in cell_means(np.stack([outside, np.where(outside, -change, 0)]))
    )
    darker = smooth_rise(darkening / np.maximum(weight, np.float32(1e-6)), *DARKER_LIMITS)
    return _on_pixels(darker, change_span, span)


def visible_bands(bands: Sequence[str], count: int) -> list[int]:
    """List the numbers of the visible ones among named bands; if there is none, of all."""
    return [number for number, band in enumerate(bands) if band in VISIBLE] or list(range(count))


def _on_pixels(cells: Float, cells_span: Span, span: Span) -> Float:
    """Interpolate values of the squares of a window, ``(rows, cols)``, on the pixels of another one."""
    rows = (span.row - cells_span.row + np.arange(span.height) + 0.5) / CELL
    cols = (span.col - cells_span.col + np.arange(span.width) + 0.5) / CELL
    return interpolate(ArrayField(cells[None]), rows, cols)[0]


def cloudy_share(change: Float) -> Float:
    """Return the share pixel by pixel, ``(H, W)``, of a change ``(C, H, W)``, to be smoothed afterwards."""
    return smooth_rise(np.abs(change).max(axis=0), CLEAR_CHANGE, CLOUDY_CHANGE)


def smooth_rise(size: Float, clear: float, cloudy: float) -> Float:
    """Rise from 0 at ``clear`` and below to 1 at ``cloudy`` and above, level at both, element by element."""
    rise = np.clip((size - clear) / (cloudy - clear), 0, 1)
    return np.asarray(rise * rise * (3 - 2 * rise), np.float32)


def cell_means(change: Float) -> Float:
    """Return means over squares, ``(C, rows, cols)``.

    Those at the lower and right border may be cut.
    """
    height, width = change.shape[1:]
    rows, cols = np.arange(0, height, CELL), np.arange(0, width, CELL)
    sums = np.add.reduceat(np.add.reduceat(change.astype(np.float64), rows, axis=1), cols, axis=2)
    counts = np.diff([*rows, height])[:, None] * np.diff([*cols, width])[None, :]
    return np.asarray(sums / counts, np.float32)
