"""Whether an answer is less sure of itself where it is wrong: the spread of samples against their error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.measures.covers import Covers
from decr_scene.pipeline.measures.texture import LEAST_PIXELS, Row

DECILES = 10

PIXELS = 10_000
"""Of each image, chosen at random, that the deciles are made of."""

DN = 127.5
"""Digital numbers of 255 in 1 on the scale of [-1, 1]."""


@dataclass(frozen=True)
class Foretold:
    """How well the spread of samples foretells their error.

    Args:
        ranks: Of each image, Spearman's correlation of the two, ``uncertainty_rank``, and by region.
        deciles: From the surest tenth of the pixels of all images to the least sure, ``stated_dn`` and
            ``error_dn``: root mean squares of the spread and of the error, DN of 255.
    """

    ranks: tuple[Row, ...]
    deciles: tuple[Row, ...]


class Uncertainty:
    """Holds the spread of samples, as `process --samples` writes it, against the error of the first."""

    def __init__(self) -> None:
        self._ranks: list[Row] = []
        self._pixels: list[Float] = []

    def add(self, samples: Sequence[Float], truth: Float, covers: Covers) -> None:
        """Add an image.

        Args:
            samples: Two at least, ``(C, H, W)`` in [-1, 1]; the first is the answer.
            truth: The clear image in the tone of the cloudy one.
            covers: The regions.
        """
        stated = np.sqrt(np.var(samples, axis=0, ddof=1).mean(axis=0))
        error = np.sqrt(((samples[0] - truth) ** 2).mean(axis=0))
        row = {"uncertainty_rank": _rank(stated, error, np.ones(error.shape, np.bool_))}
        for region, where in covers._asdict().items():
            row[f"uncertainty_rank_{region}"] = _rank(stated, error, where)
        self._ranks.append(row)
        both = np.stack([stated.ravel(), error.ravel()])
        chosen = np.random.default_rng(len(self._pixels)).permutation(both.shape[1])[:PIXELS]
        self._pixels.append(both[:, chosen])

    def found(self) -> Foretold:
        """What all images say."""
        both = np.concatenate(self._pixels, axis=1)
        tenths = np.array_split(both[:, np.argsort(both[0], kind="stable")], DECILES, axis=1)
        deciles = [np.sqrt((tenth.astype(np.float64) ** 2).mean(axis=1)) * DN for tenth in tenths]
        return Foretold(
            tuple(self._ranks),
            tuple({"stated_dn": float(stated), "error_dn": float(error)} for stated, error in deciles),
        )


def _rank(stated: Float, error: Float, where: Bool) -> float:
    """Spearman's correlation inside a region; NaN where it is small, or one of the two never varies."""
    if where.sum() < LEAST_PIXELS or np.ptp(stated[where]) == 0 or np.ptp(error[where]) == 0:
        return np.nan
    return float(spearmanr(stated[where], error[where]).statistic)
