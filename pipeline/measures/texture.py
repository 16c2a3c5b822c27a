"""How much texture an answer has, octave by octave, and whether its edges run as the ground's do.

Blur loses the finest octave first; texture that is made up has the energy of the ground, and edges elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter, minimum_filter

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.measures.covers import Covers

Row = dict[str, float]

SIGMAS = (0.5, 1.0, 2.0, 4.0)
"""Of the Gaussians, px: each two neighbours make a band, which has waves of about 3, 7 and 13 px."""

TRUNCATE = 3.0
"""Sigmas that a Gaussian reaches."""

EDGE_SIGMA = 1.0
"""Of the Gaussian whose derivatives are the gradients, px."""

LEAST_PIXELS = 64
"""A region with fewer, once its border is off, tells nothing of its texture."""

FLAT = (0.5 / 127.5) ** 2
"""Mean square, half a DN of 255, below which ground has no texture to be held against: open water."""

NAMES = (*(f"octave{number}" for number in range(1, len(SIGMAS))), "gradient")
"""Figures of each region."""


class Texture:
    """Holds the texture of answers against that of the clear image, by region.

    Args:
        truth: ``(C, H, W)``, the clear image in the tone of the cloudy one.
        covers: The regions.
    """

    def __init__(self, truth: Float, covers: Covers) -> None:
        self._truth, self._edges = list(octaves(truth)), gradients(truth)
        self._inner = {name: _inner_maps(where) for name, where in covers._asdict().items()}

    def of(self, image: Float) -> Row:
        """Figures of an answer, ``octave1_opaque`` and so on; NaN where a region is too small.

        ``octaveN`` is the sum of squares of the band over that of the truth, inside the region; NaN too where
        the truth is flat. ``gradient`` is the mean of ``|cos|`` of the angle between the
        two gradients, weighted by the length of the truth's: 1 for edges that run alike, 0.64 by chance.
        """
        bands, edges, row = list(octaves(image)), gradients(image), {}
        for region, (*inner, near) in self._inner.items():
            for number, where in enumerate(inner):
                row[f"{NAMES[number]}_{region}"] = self._energy(number, bands[number], where)
            row[f"{NAMES[-1]}_{region}"] = _agreement(edges, self._edges, near)
        return row

    def _energy(self, number: int, band: Float, where: Bool) -> float:
        if where.sum() < LEAST_PIXELS:
            return np.nan
        own = float((self._truth[number][:, where] ** 2).mean())
        return float((band[:, where] ** 2).mean()) / own if own >= FLAT else np.nan


def octaves(image: Float) -> Iterator[Float]:
    """Split an image into bands, the finest first: differences of Gaussians of neighbouring `SIGMAS`.

    Args:
        image: ``(C, H, W)``.
    """
    smooth = (gaussian_filter(image, sigma, axes=(1, 2), truncate=TRUNCATE) for sigma in SIGMAS)
    for fine, coarse in pairwise(smooth):
        yield fine - coarse


def gradients(image: Float) -> Float:
    """Derivatives of a Gaussian along y and x, ``(2, C, H, W)``."""

    def along(y: int, x: int) -> Float:
        return gaussian_filter(image, EDGE_SIGMA, order=(y, x), axes=(1, 2), truncate=TRUNCATE)

    return np.stack([along(1, 0), along(0, 1)])


def _agreement(edges: Float, truth: Float, where: Bool) -> float:
    if where.sum() < LEAST_PIXELS:
        return np.nan
    edges, truth = edges[..., where], truth[..., where]
    length, weight = np.hypot(*edges), np.hypot(*truth)
    aligned = np.abs((edges * truth).sum(axis=0))  # |cos| times both lengths
    cosine_weighted = aligned / np.where(length > 0, length, 1)
    return float(cosine_weighted.sum() / weight.sum()) if weight.sum() > 0 else np.nan


def _inner_maps(where: Bool) -> list[Bool]:
    """A region without what the filter of each octave, and that of the gradients, sees across its border."""
    reaches = [int(TRUNCATE * sigma + 0.5) for sigma in (*SIGMAS[1:], EDGE_SIGMA)]
    return [np.asarray(minimum_filter(where, 2 * reach + 1, mode="nearest")) for reach in reaches]
