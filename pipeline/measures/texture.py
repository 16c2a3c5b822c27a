"""Texture of an image against that of the clear image: energy by octave, and direction of gradients.

Blur loses the finest octave first; invented texture can have the energy of the ground but not its edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, minimum_filter

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.measures.cloud_classes import CloudClasses

Row = dict[str, float]

SIGMAS = (0.5, 1.0, 2.0, 4.0)
"""Of the Gaussians, px; the difference of two neighbours passes waves of about 3, 7 and 13 px."""

TRUNCATE = 3.0
"""Radius of a Gaussian, sigmas."""

GRADIENT_SIGMA = 1.0
"""Of the Gaussian whose derivatives are the gradients, px."""

LEAST_PIXELS = 64
"""Fewest pixels of a region that is measured, after erosion."""

FLAT = (0.5 / 127.5) ** 2
"""Mean square, half a DN of 255, below which the clear image has no texture to compare with: open water."""

NAMES = (*(f"octave{number}" for number in range(1, len(SIGMAS))), "gradient")
"""Figures of each region."""


class Texture:
    """Compare images with the texture of one clear image, by cloud class.

    Args:
        truth: ``(C, H, W)``, the clear image in the tone of the cloudy one.
        classes: The regions.
    """

    def __init__(self, truth: Float, classes: CloudClasses) -> None:
        self._octaves, self._gradients = list(octaves(truth)), gradients(truth)
        self._interiors = {name: _interiors(region) for name, region in classes._asdict().items()}

    def compare(self, image: Float) -> Row:
        """Measure an image ``(C, H, W)``.

        Figures are ``octave1_opaque`` and so on, NaN where a region is too small. ``octaveN`` is the sum of
        squares of the band over that of the clear image, inside the region; NaN also where the clear image is
        flat. ``gradient`` is the mean of ``|cos|`` of the angle between the two gradients, weighted by the
        clear image's gradient magnitude: 1 for parallel edges, 0.64 by chance.
        """
        bands, image_gradients, row = list(octaves(image)), gradients(image), {}
        for name, (*interiors, gradient_interior) in self._interiors.items():
            for number, interior in enumerate(interiors):
                ratio = _energy_ratio(bands[number], self._octaves[number], interior)
                row[f"{NAMES[number]}_{name}"] = ratio
            agreement = _gradient_agreement(image_gradients, self._gradients, gradient_interior)
            row[f"{NAMES[-1]}_{name}"] = agreement
        return row


def octaves(image: Float) -> Iterator[Float]:
    """Split an image into bands, the finest first: differences of Gaussians of neighbouring `SIGMAS`.

    Args:
        image: ``(C, H, W)``.

    Yields:
        Three bands, each ``(C, H, W)``.
    """
    smoothed = (gaussian_filter(image, sigma, axes=(1, 2), truncate=TRUNCATE) for sigma in SIGMAS)
    for fine, coarse in pairwise(smoothed):
        yield fine - coarse


def gradients(image: Float) -> Float:
    """Differentiate ``(C, H, W)`` by a Gaussian's derivatives along y and x, giving ``(2, C, H, W)``."""

    def derivative(y: int, x: int) -> Float:
        return gaussian_filter(image, GRADIENT_SIGMA, order=(y, x), axes=(1, 2), truncate=TRUNCATE)

    return np.stack([derivative(1, 0), derivative(0, 1)])


def _energy_ratio(band: Float, truth: Float, region: Bool) -> float:
    if region.sum() < LEAST_PIXELS:
        return np.nan
    truth_energy = float((truth[:, region] ** 2).mean())
    return float((band[:, region] ** 2).mean()) / truth_energy if truth_energy >= FLAT else np.nan


def _gradient_agreement(image: Float, truth: Float, region: Bool) -> float:
    if region.sum() < LEAST_PIXELS:
        return np.nan
    image, truth = image[..., region], truth[..., region]
    magnitude, weight = np.hypot(*image), np.hypot(*truth)
    product = np.abs((image * truth).sum(axis=0))  # |cos| times both magnitudes
    weighted_cosine = product / np.where(magnitude > 0, magnitude, 1)
    return float(weighted_cosine.sum() / weight.sum()) if weight.sum() > 0 else np.nan


def _interiors(region: Bool) -> list[Bool]:
    """Erode a region by the reach of the filter of each octave, and of the gradients."""
    reaches = [int(TRUNCATE * sigma + 0.5) for sigma in (*SIGMAS[1:], GRADIENT_SIGMA)]
    return [np.asarray(minimum_filter(region, 2 * reach + 1, mode="nearest")) for reach in reaches]
