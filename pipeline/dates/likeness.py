"""Compare a window of a scene with the same window of another date, square by square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.pipeline.dates.colours import Colours

PATCH = 32
"""Side of the squares, px; what is coarser is tone, which is taken from the scene."""

LEAST = 0.1
"""Least share of a square that is clear on both dates for it to tell how much one explains of the other."""

ALIKE = 0.7
"""Correlation from which on a square shows the same ground on both dates, and no cloud that hides it."""

SETTINGS = (PATCH, LEAST, ALIKE)
"""What of this decides the pixels of an output."""


@dataclass(frozen=True)
class Window:
    """A window of both dates.

    Args:
        ours: Of the scene, ``(C, h, w)`` on the [-1, 1] scale.
        theirs: Digital numbers of the other date, same shape; of any value where their weight is 0.
        weights: How surely ground is clear on both, ``(h, w)``; 0 where one has no value.
    """

    ours: Float
    theirs: Float
    weights: Float

    def alike(self) -> Bool:
        """Mark the squares in which both dates show the same ground, ``(h, w)``.

        The bands' correlations in them are `ALIKE` in the mean: so no cloud hides the ground on either date.
        """
        ours, theirs, weights = (_squares(values) for values in (self.ours, self.theirs, self.weights[None]))
        whole = np.asarray((weights > 0).all(axis=-1))[0]
        found = correlations(ours, theirs)
        alike = whole & (found.mean(axis=0) >= ALIKE) & (found != 0).all(axis=0)
        wide = np.repeat(np.repeat(alike, PATCH, axis=0), PATCH, axis=1)
        height, width = self.weights.shape
        return np.asarray(wide[:height, :width])

    def variances(self, colours: Colours) -> tuple[Double, Double]:
        """Return the variance in squares of what the date leaves of the scene, and of the scene.

        Each is ``(C, n)``, of n squares with some clear ground; the first is that of the scene less the date
        in the scene's colours. Both are sums over the clear ground of a square.
        """
        counts = _squares(self.weights[None]).sum(axis=-1)[0]
        left, own = (_variances(v, self.weights) for v in (self.ours - colours(self.theirs), self.ours))
        enough = counts >= LEAST * PATCH**2
        return left[:, enough], own[:, enough]


def _squares(values: Float) -> Double:
    """Cut ``(C, h, w)`` into squares, ``(C, rows, cols, PATCH ** 2)``, filled up with zeros."""
    bands, height, width = values.shape
    filled = np.pad(values, [(0, 0), (0, -height % PATCH), (0, -width % PATCH)]).astype(np.float64)
    cut = filled.reshape(bands, -(-height // PATCH), PATCH, -(-width // PATCH), PATCH)
    return np.asarray(cut.transpose(0, 1, 3, 2, 4).reshape(bands, cut.shape[1], cut.shape[3], -1))


def _variances(values: Float, weights: Float) -> Double:
    """Sum the weighted squares of ``(C, h, w)`` about the mean of each square, ``(C, rows, cols)``."""
    count, (cut, first) = _squares(weights[None]), (_squares(values * part) for part in (1, weights))
    means = first.sum(axis=-1) / np.maximum(count.sum(axis=-1), 1e-9)
    return np.asarray((count * (cut - means[..., None]) ** 2).sum(axis=-1))


def correlations(ours: Double, theirs: Double) -> Double:
    """Correlate bands ``(C, .., n)`` over their last axis, ``(C, ..)``; 0 without contrast."""
    apart = [values - values.mean(axis=-1, keepdims=True) for values in (ours, theirs)]
    both = (apart[0] * apart[1]).sum(axis=-1)
    own = np.sqrt((apart[0] ** 2).sum(axis=-1) * (apart[1] ** 2).sum(axis=-1))
    return np.asarray(np.divide(both, own, out=np.zeros_like(both), where=own > 0))
