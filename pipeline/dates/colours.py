"""Bring the colours of one date into those of another, by what clear ground has on both.

Seasons change each kind of ground in its own way: a field that was green is bare. So every band is a
quadratic polynomial of all bands of the other date, fitted by regularised least squares to the ground that is
clear on both (regression across dates: Helmer and Ruefenacht 2005, by trees). Where dates have little to do
with one another, it is flat: such a date adds nothing, and does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from decr_scene.models.arrays import Double, Float

MOST = 1 << 18
"""Pixels that are fitted to, at most."""

STRIP = 1 << 16
"""Pixels that are converted at a time: a polynomial has many terms."""

REACH, BEND = 8.0, 3.0
"""Deviations from the mean at which a band of the other date is cut, and at which it no longer counts in
products: what is beyond was hardly fitted, and goes on in a straight line."""

RIDGE = 1e-3
"""Weight of the squares of the coefficients, over that of the data."""

CLOSE = 4.0
"""Residual of a pixel that counts half, over the median residual."""

LEAST_CLOSE = 1e-3
"""Least such residual, on the scale of -1 to 1."""

ENOUGH = 20
"""Least pixels that stand alone, over the terms of the polynomial: fewer are fitted by a plane."""

ROUNDS = 5
"""Times that the polynomial is fitted: a pixel counts the less, the worse it fitted the last one."""

SETTINGS = (MOST, REACH, BEND, RIDGE, CLOSE, LEAST_CLOSE, ENOUGH, ROUNDS)
"""What of this decides the pixels of an output."""


@dataclass(frozen=True)
class Colours:
    """A quadratic polynomial from the digital numbers of one date to the [-1, 1] scale of another.

    Args:
        centre: Mean DN of the ground fitted to, one a band.
        scale: Standard deviation of these, one a band.
        coefficients: ``(C, K)``, as rows: of the bands, of their products, and of 1.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def __call__(self, values: Float) -> Float:
        """Convert digital numbers ``(C, h, w)``; what is NaN becomes the mean."""
        flat, rows = values.reshape(len(values), -1), np.asarray(self.coefficients, np.float32)
        mapped = np.empty((len(rows), flat.shape[1]), np.float32)
        for first in range(0, flat.shape[1], STRIP):
            part = slice(first, first + STRIP)
            mapped[:, part] = rows @ _features(flat[:, part], self.centre, self.scale)
        return mapped.reshape(-1, *values.shape[1:])

    @property
    def terms(self) -> int:
        """Count the terms that are not 0."""
        return int(np.any(self.coefficients, axis=0).sum())

    @classmethod
    def fit(cls, ours: Float, theirs: Float, weights: Float, told: int) -> Colours:
        """Fit it to pixels ``(C, N)`` of both dates, of which each counts by its weight, ``(N,)``.

        As many pixels as are ``told`` stand alone: where these are few, the products are left out.
        """
        step = -(-len(weights) // MOST)
        ours, theirs, own = ours[:, ::step], theirs[:, ::step], np.asarray(weights[::step], np.float64)
        centre, scale = _moments(theirs, own)
        features = _features(theirs, centre, scale).astype(np.float64)
        products = slice(len(theirs), len(features) - 1)
        if told < ENOUGH * len(features):
            features[products] = 0
        target = ours.astype(np.float64)
        counted: Double = own
        for _ in range(ROUNDS):
            coefficients = _solved(features, target, counted)
            residuals = np.abs(target - coefficients @ features).mean(axis=0)
            close = max(CLOSE * _median(residuals, own), LEAST_CLOSE)
            counted = own / (1 + np.square(residuals / close))
        rows = tuple(tuple(float(value) for value in row) for row in coefficients)
        return cls(tuple(centre), tuple(scale), rows)


def _moments(values: Float, weights: Double) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each band of ``(C, N)``; 1 of one without any."""
    mean = np.average(values, axis=1, weights=weights)
    deviation = np.sqrt(np.average((values - mean[:, None]) ** 2, axis=1, weights=weights))
    return mean.tolist(), np.where(deviation > 0, deviation, 1).tolist()


def _features(
    values: Float, centre: tuple[float, ...] | list[float], scale: tuple[float, ...] | list[float]
) -> Float:
    """Return the terms of the polynomial of digital numbers ``(C, N)``, ``(K, N)``."""
    middle, spread = (np.asarray(v, np.float32)[:, None] for v in (centre, scale))
    bands = np.clip(np.nan_to_num((values.astype(np.float32) - middle) / spread, copy=False), -REACH, REACH)
    bent = np.clip(bands, -BEND, BEND)
    products = [a * b for a, b in combinations_with_replacement(bent, 2)]
    return np.concatenate([bands, products, np.ones((1, values.shape[1]), np.float32)])


def _solved(features: Double, target: Double, weights: Double) -> Double:
    """Solve the regularised least squares, ``(C, K)``; the last feature, 1, is free."""
    weighted = features * weights
    normal = weighted @ features.T
    ridge = np.full(len(normal), RIDGE * weights.sum())
    ridge[-1] = 0
    normal[np.diag_indices_from(normal)] += ridge + 1e-9
    return np.asarray(np.linalg.solve(normal, weighted @ target.T).T)


def _median(values: Double, weights: Double) -> float:
    """Return the weighted median."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
