"""Which detector looks at a scene, and on how coarse pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from decr_scene.pipeline.look.ground import FINEST

GROUND = 20.0
"""Side of a coarse pixel of `ukis-csmask`, m: it was trained at 10 to 30."""

LEAST_SIDE = 64
"""Coarse pixels that a scene has along its shorter side, where it can: what looks needs surroundings."""

UNKNOWN_SIDE = 512
"""Coarse pixels along the shorter side of a scene of which nobody knows how large its pixels are."""

THRESHOLD = 0.5
"""Probability of cloud or shadow from which on `ukis-csmask` takes a pixel to need restoring."""

FILLED_FROM = 5.0
"""Side of a scene's pixel, m, from which on the detector tells small clouds from the ground between."""

METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True)
class LookPlan:
    """What will look at a scene before anything is restored.

    Args:
        kind: ``model``, ``ukis`` or ``mask``.
        factor: Side of its pixels, px of the scene.
        threshold: Probability from which on a pixel needs restoring.
        bands: What `ukis-csmask` sees: 0-based positions of blue, green, red and near infrared.
        gates: Only where it sees cloud or shadow is anything restored.
        veils: Beside that, what the model itself changes much is changed.
        version: Of the package that looks.
        fills: Cloud that the model leaves where it sees some is filled with the ground's tone.
    """

    kind: str
    factor: int
    threshold: float
    bands: tuple[int, ...] = ()
    gates: bool = True
    veils: bool = False
    version: str | None = None
    fills: bool = False


def coarse_factor(shape: tuple[int, int], pixel: float | None) -> int:
    """How many pixels a side `ukis-csmask` averages.

    Args:
        shape: Of the scene, px.
        pixel: Side of a pixel, m; ``None``: nobody knows.
    """
    shorter = min(shape)
    if pixel is None:
        return max(1, round(shorter / UNKNOWN_SIDE))
    side = max(1, min(round(GROUND / pixel), shorter // LEAST_SIDE))
    return side if side < FINEST else side // FINEST * FINEST


def pixel_size(crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> float | None:
    """Side of a scene's pixel in metres, square root of its area; ``None``: its file does not say."""
    if crs is None or transform.is_identity:
        return None
    side = float(np.sqrt(abs(transform.determinant)))
    if crs.is_geographic:
        _, latitude = transform @ (shape[1] / 2, shape[0] / 2)
        return side * METRES_A_DEGREE * float(np.sqrt(np.cos(np.radians(min(85.0, abs(latitude))))))
    return side * (crs.linear_units_factor[1] if crs.is_projected else 1.0)
