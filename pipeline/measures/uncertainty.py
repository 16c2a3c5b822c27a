"""Compare an uncertainty, a standard deviation at every pixel, with the error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.measures.cloud_classes import CloudClasses
from decr_scene.pipeline.measures.texture import LEAST_PIXELS, Row

DECILES = 10

PIXELS = 10_000
"""Random pixels of each image that the deciles are computed from."""

DN = 127.5
"""Digital numbers of 255 per unit of the [-1, 1] scale."""


@dataclass(frozen=True)
class Calibration:
    """Agreement of the standard deviation with the error.

    Args:
        correlations: Of each image, Spearman's rank correlation of the two, ``uncertainty_rank``, and by
            region.
        pooled: The same of the pixels of all images together.
        deciles: Of the pixels of all images by rising standard deviation, ``std_dn`` and ``error_dn``: root
            mean squares of the two, DN of 255.
    """

    correlations: tuple[Row, ...]
    pooled: float
    deciles: tuple[Row, ...]


class Uncertainty:
    """Collect standard deviation and error, image by image."""

    def __init__(self) -> None:
        self._correlations: list[Row] = []
        self._pixels: list[Float] = []

    def add(self, deviation: Float, error: Float, classes: CloudClasses) -> None:
        """Add an image.

        Args:
            deviation: The standard deviation that is claimed, ``(H, W)`` on the [-1, 1] scale.
            error: `error_of` the answer, same shape.
            classes: The regions.
        """
        row = {"uncertainty_rank": _rank_correlation(deviation, error, np.ones(error.shape, np.bool_))}
        for name, region in classes._asdict().items():
            row[f"uncertainty_rank_{name}"] = _rank_correlation(deviation, error, region)
        self._correlations.append(row)
        both = np.stack([deviation.ravel(), error.ravel()])
        chosen = np.random.default_rng(len(self._pixels)).permutation(both.shape[1])[:PIXELS]
        self._pixels.append(both[:, chosen])

    def calibration(self) -> Calibration:
        """Compute the calibration over all images added."""
        both = np.concatenate(self._pixels, axis=1)
        groups = np.array_split(both[:, np.argsort(both[0], kind="stable")], DECILES, axis=1)
        deciles = [np.sqrt((group.astype(np.float64) ** 2).mean(axis=1)) * DN for group in groups]
        return Calibration(
            tuple(self._correlations),
            _rank_correlation(both[0], both[1], np.ones(both.shape[1], np.bool_)),
            tuple({"std_dn": float(deviation), "error_dn": float(error)} for deviation, error in deciles),
        )


def spread_of(samples: Sequence[Float]) -> Float:
    """Return the standard deviation over samples ``(C, H, W)``, root mean square of the bands, ``(H, W)``."""
    return np.asarray(np.sqrt(np.var(samples, axis=0, ddof=1).mean(axis=0)), np.float32)


def error_of(answer: Float, truth: Float) -> Float:
    """Return the root mean square over the bands of the difference of two images, ``(H, W)``."""
    return np.asarray(np.sqrt(((answer - truth) ** 2).mean(axis=0)), np.float32)


def _rank_correlation(deviation: Float, error: Float, region: Bool) -> float:
    """Correlate ranks inside a region, NaN if it is small or one of the two is constant there."""
    if region.sum() < LEAST_PIXELS or np.ptp(deviation[region]) == 0 or np.ptp(error[region]) == 0:
        return np.nan
    return float(spearmanr(deviation[region], error[region]).statistic)
