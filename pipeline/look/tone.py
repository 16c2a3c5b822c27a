"""Hold a first guess to the tone of a scene's clear ground.

A network that sees one tile alone finds a tone of its own under a large cloud, and another in the next tile;
one that sees the ground, too, lifts haze beside which the ground that is kept is lighter.
The clear ground of the scene tells which tones there are: what lies further from that around than clear
ground varies by itself is brought back so far. Only what is smooth over a tile is changed; detail stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.regions.clear_ground import CELL, cell_means
from decr_scene.pipeline.regions.fields import ArrayField, interpolate

SIGMA = 64.0
"""Standard deviation of the low pass that leaves the tone alone, px."""


def in_tone(guess: Float, tone: Float, seen: Float, spread: Sequence[float]) -> Float:
    """Bring the tone of a guess back to that of the ground, up to what clear ground varies by.

    With ``low`` a low pass, ``d = low(seen (tone - guess)) / low(seen)`` of a band, and the answer is
    ``guess + seen sign(d) max(|d| - spread, 0)``.

    Args:
        guess: First guess, ``(C, h, w)`` in [-1, 1].
        tone: Tone of the clear ground around, same shape.
        seen: How surely a pixel needs restoring, ``(h, w)`` in [0, 1].
        spread: Standard deviation of the tone of clear ground, one a band.

    Returns:
        The guess, ``(C, h, w)``; the very same where nothing is seen.
    """
    off = low_pass(tone - guess, seen)
    least = np.asarray(spread, np.float32)[:, None, None]
    beyond = np.sign(off) * np.maximum(np.abs(off) - least, 0)
    return np.where(seen > 0, guess + seen * on_pixels(beyond, seen.shape), guess).astype(np.float32)


def low_pass(values: Float, weights: Float) -> Float:
    """Average ``(C, h, w)`` around each square of `CELL` px, ``(C, rows, cols)``, with nothing beyond.

    Each pixel counts by its weight, ``(h, w)``; where none does the average is 0.
    """
    from scipy.ndimage import gaussian_filter

    sigma = SIGMA / CELL
    sums, total = (
        np.asarray(gaussian_filter(cell_means(part), (0, sigma, sigma), mode="constant"), np.float32)
        for part in (values * weights, weights[None])
    )
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)


def on_pixels(cells: Float, shape: tuple[int, ...]) -> Float:
    """Interpolate values of squares, ``(C, rows, cols)``, on the pixels of an image of ``shape``."""
    rows, cols = ((np.arange(side) + 0.5) / CELL for side in shape)
    return interpolate(ArrayField(cells), rows, cols)
