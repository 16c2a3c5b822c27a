"""Bring the clear image of a pair into the tone of its cloudy one.

The two images of a real pair are of two dates: their clear ground differs in brightness by more than most
clouds do. A network trained on them as they are learns that difference and repaints the whole scene. So the
clear image is fitted, band by band and linearly, to the cloudy one over the ground that is clear in both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Float

GAIN_RANGE = (0.5, 2.0)
"""Gains beyond this are fits gone wrong, not seasons."""


class Tone(NamedTuple):
    """One gain and offset a band: ``matched = gain * clear + offset``, each ``(C, 1, 1)``."""

    gain: Float
    offset: Float

    def apply(self, clear: Float) -> Float:
        """Return ``(C, H, W)`` in the tone of the cloudy image, not clipped."""
        return self.gain * clear + self.offset


class Regions(NamedTuple):
    """Boolean ``(H, W)`` maps made from the difference of a pair in one tone."""

    cloud: NDArray[np.bool_]
    clear: NDArray[np.bool_]


def fit_tone(cloudy: Float, clear: Float, rounds: int = 8, keep: float = 0.5) -> Tone:
    """Fit clear to cloudy over the ``keep`` share of pixels with the smallest residual, again and again.

    Args:
        cloudy: ``(C, H, W)``.
        clear: ``(C, H, W)``, same units.
        rounds: Times the fit and the choice of pixels are repeated.
        keep: Share of the pixels that is taken for clear in both.

    Returns:
        The fit, with gains held inside `GAIN_RANGE`.
    """
    gain = np.ones(len(cloudy), np.float32)
    offset = np.median((cloudy - clear).reshape(len(cloudy), -1), axis=1).astype(np.float32)
    for _ in range(rounds):
        chosen = _smallest(_residual(cloudy, _apply(gain, offset, clear)), keep)
        for band in range(len(cloudy)):
            gain[band], offset[band] = _line(clear[band][chosen], cloudy[band][chosen])
    return Tone(gain[:, None, None], offset[:, None, None])


def regions(cloudy: Float, matched: Float, cloud_share: float = 0.4, clear_share: float = 0.3) -> Regions:
    """Split a pair ``(C, H, W)`` in one tone: large residuals are "under cloud", small ones "clear"."""
    residual = _residual(cloudy, matched)
    return Regions(~_smallest(residual, 1 - cloud_share), _smallest(residual, clear_share))


def _residual(cloudy: Float, matched: Float) -> Float:
    difference: Float = np.abs(cloudy - matched).mean(axis=0)
    return difference


def _smallest(residual: Float, share: float) -> NDArray[np.bool_]:
    return np.asarray(residual <= np.quantile(residual, share))


def _apply(gain: Float, offset: Float, clear: Float) -> Float:
    return gain[:, None, None] * clear + offset[:, None, None]


def _line(x: Float, y: Float) -> tuple[float, float]:
    """Fit ``y = g x + o`` by least squares, with the gain held in `GAIN_RANGE`."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    variance = float(((x - mean_x) ** 2).mean())
    covariance = float(((x - mean_x) * (y - mean_y)).mean())
    gain = float(np.clip(covariance / variance, *GAIN_RANGE)) if variance > 0 else 1.0
    return gain, mean_y - gain * mean_x
