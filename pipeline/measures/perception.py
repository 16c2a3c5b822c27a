"""Perceptual distance of answers to the clear images, by the encoder of `ukis-csmask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.measures.cloud_classes import CloudClasses
from decr_scene.pipeline.measures.features import (
    Encoder,
    area_shares,
    distance_maps,
    mean_distance,
    pool_crops,
    tiles,
)
from decr_scene.pipeline.measures.texture import LEAST_PIXELS, Row

CROP = 64
"""Side of the crops of the Frechet distance, px."""

LEAST_CROPS = 32
"""Fewest crops of a Frechet distance."""

_TRUTH = ""
"""Key of the clear images' crops."""


class Perception:
    """Measure feature distances pair by pair, and collect crops for the Frechet distance.

    Args:
        bands: Of the images.

    Raises:
        OptionError: As `Encoder`.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self._encoder = Encoder(bands)
        self._crops: dict[str, list[Float]] = {}
        self._shares: dict[str, list[Float]] = {}

    def compare(
        self, cloudy: Float, truth: Float, classes: CloudClasses, answers: Mapping[str, Float]
    ) -> Row:
        """Measure the distance of each answer to the clear image, ``name/ukis_distance``, and by region.

        Args:
            cloudy: ``(C, H, W)`` in [-1, 1].
            truth: ``(C, H, W)``, the clear image in its tone.
            classes: The regions.
            answers: ``(C, H, W)`` by name.
        """
        scaling = self._encoder.scaling(cloudy)
        regions = {"": np.ones(cloudy.shape[1:], np.bool_)}
        regions |= {f"_{name}": region for name, region in classes._asdict().items()}
        for name, region in regions.items():
            shares = [area_shares(tile, ukis.SIDE // CROP).ravel() for tile in tiles(region, "constant")]
            self._shares.setdefault(name, []).extend(shares)
        truth_features, row = self._encoder(truth, scaling), {}
        self._keep(_TRUTH, pool_crops(truth_features, ukis.SIDE // CROP))
        for label, image in answers.items():
            features = self._encoder(image, scaling)
            self._keep(label, pool_crops(features, ukis.SIDE // CROP))
            maps = distance_maps(features, truth_features)
            for name, region in regions.items():
                enough = region.sum() >= LEAST_PIXELS
                row[f"{label}/ukis_distance{name}"] = mean_distance(maps, region) if enough else np.nan
        return row

    def frechet_distances(self) -> dict[str, Row]:
        """Compute the Frechet distance of each answer's crops to the clear images', and by region.

        Of the whole, the crops are those inside the images; of a region, those at least half inside it.
        """
        crops = {label: np.concatenate(parts) for label, parts in self._crops.items()}
        truth = crops.pop(_TRUTH)
        rows: dict[str, Row] = {label: {} for label in crops}
        for name, shares in self._shares.items():
            chosen = np.concatenate(shares) >= (0.5 if name else 1)
            enough = chosen.sum() >= LEAST_CROPS
            for label, features in crops.items():
                value = frechet_distance(features[chosen], truth[chosen]) if enough else np.nan
                rows[label][f"ukis_frechet{name}"] = value
        return rows

    def _keep(self, label: str, crops: Float) -> None:
        self._crops.setdefault(label, []).append(crops)


def frechet_distance(one: Float, other: Float) -> float:
    """Compute the Frechet distance of two sets of features ``(N, d)``, assumed normally distributed.

    ``|m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2))`` of means and covariances (Dowson and Landau 1982). Both
    covariances are shrunk towards the sphere of the same total variance by ``d / (N + d)``, because few
    samples leave them singular: distances of sets of different sizes do not compare.
    """
    (mean, covariance), (other_mean, other_covariance) = _moments(one), _moments(other)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ other_covariance @ root)
    of_means = float(((mean - other_mean) ** 2).sum())
    traces = float(np.trace(covariance) + np.trace(other_covariance))
    return max(0.0, of_means + traces - 2 * float(np.sqrt(np.maximum(eigenvalues, 0)).sum()))


def _moments(samples: Float) -> tuple[Double, Double]:
    """Compute mean and shrunk covariance."""
    count, size = samples.shape
    values = samples.astype(np.float64)
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    shrinkage = size / (count + size)
    sphere = np.eye(size) * np.trace(covariance) / size
    return values.mean(axis=0), (1 - shrinkage) * covariance + shrinkage * sphere
