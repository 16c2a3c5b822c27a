"""How answers look, pair by pair and as a set, to the encoder of `ukis-csmask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.measures.covers import Covers
from decr_scene.pipeline.measures.features import Encoder, distance, pooled, shares, tiles
from decr_scene.pipeline.measures.texture import LEAST_PIXELS, Row

CROP = 64
"""Side of the crops that a set is made of, px."""

LEAST_CROPS = 32
"""A set of fewer tells nothing."""

_TRUTH = ""
"""Whose features are the clear images'."""


class Perception:
    """Tells of each answer how far it looks from the clear image, and keeps crops of all for the whole set.

    Args:
        bands: Of the images.

    Raises:
        OptionError: As `Encoder`.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self._encoder = Encoder(bands)
        self._crops: dict[str, list[Float]] = {}
        self._inside: dict[str, list[Float]] = {}

    def of(self, cloudy: Float, truth: Float, covers: Covers, answers: Mapping[str, Float]) -> Row:
        """Distances of every answer to the clear image, ``who/ukis_distance`` and by region; keep its crops.

        Args:
            cloudy: ``(C, H, W)`` in [-1, 1].
            truth: The clear image in its tone.
            covers: The regions.
            answers: By name.
        """
        scaling = self._encoder.scaling(cloudy)
        maps = {"": np.ones(cloudy.shape[1:], np.bool_)}
        maps |= {f"_{name}": where for name, where in covers._asdict().items()}
        for name, where in maps.items():
            inside = [shares(tile, ukis.SIDE // CROP).ravel() for tile in tiles(where, "constant")]
            self._inside.setdefault(name, []).extend(inside)
        own, row = self._encoder(truth, scaling), {}
        self._keep(_TRUTH, pooled(own, ukis.SIDE // CROP))
        for who, image in answers.items():
            seen = self._encoder(image, scaling)
            self._keep(who, pooled(seen, ukis.SIDE // CROP))
            for name, where in maps.items():
                told = where.sum() >= LEAST_PIXELS
                row[f"{who}/ukis_distance{name}"] = distance(seen, own, where) if told else np.nan
        return row

    def sets(self) -> dict[str, Row]:
        """Frechet distance of all crops of each answer to those of the clear images, and by region.

        Of the whole are the crops that lie inside the images, of a region those of which half is in it.
        """
        crops = {who: np.concatenate(found) for who, found in self._crops.items()}
        truth = crops.pop(_TRUTH)
        rows: dict[str, Row] = {who: {} for who in crops}
        for name, inside in self._inside.items():
            chosen = np.concatenate(inside) >= (0.5 if name else 1)
            for who, found in crops.items():
                told = chosen.sum() >= LEAST_CROPS
                rows[who][f"ukis_frechet{name}"] = frechet(found[chosen], truth[chosen]) if told else np.nan
        return rows

    def _keep(self, who: str, crops: Float) -> None:
        self._crops.setdefault(who, []).append(crops)


def frechet(one: Float, other: Float) -> float:
    """Frechet distance of two sets of features ``(N, d)``, each taken for normally distributed.

    ``|m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2))`` of means and covariances (Dowson and Landau 1982). A
    covariance of few samples is too wide in some directions and flat in others, so both are shrunk towards a
    ball of the same total variance, by ``d / (N + d)``: distances of sets of other sizes do not compare.
    """
    (mean, spread), (mean_other, spread_other) = _moments(one), _moments(other)
    values, vectors = np.linalg.eigh(spread)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ spread_other @ root)
    apart = float(((mean - mean_other) ** 2).sum())
    both = float(np.trace(spread) + np.trace(spread_other))
    return max(0.0, apart + both - 2 * float(np.sqrt(np.maximum(middle, 0)).sum()))


def _moments(samples: Float) -> tuple[Double, Double]:
    """Mean, and shrunk covariance."""
    count, size = samples.shape
    values = samples.astype(np.float64)
    spread = np.atleast_2d(np.cov(values, rowvar=False))
    share = size / (count + size)
    ball = np.eye(size) * np.trace(spread) / size
    return values.mean(axis=0), (1 - share) * spread + share * ball
