"""The kinds of cloud there are, and how each looks, in parts of a recipe's ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

VISIBLE = ("blue", "green", "red")
"""Bands with nearly equal means in images of clear days, and in which cloud is white."""


def light_beyond(rng: np.random.Generator, band: str, beyond: Range) -> float:
    """Draw a band's light of a cloud over that in the visible ones: 1 there, and in half of the other bands.

    Sensors and deliveries give every band a scale of its own, so that cloud need not be white in all of them.
    """
    if band in VISIBLE or beyond == (1.0, 1.0) or rng.random() < 0.5:
        return 1.0
    return float(rng.uniform(*beyond))


@dataclass(frozen=True)
class CloudType:
    """How one kind of cloud looks.

    Pairs are ranges; those of thickness, scale and slope point into the recipe's range, 0 to 1.

    Args:
        thickness: Which part of the recipe's range of thickness is its own, 0 (thin) to 1 (thick).
        scale: Which part of the recipe's range of scales is its own.
        slope: Which part of the recipe's range of slopes is its own.
        stretch: How much longer than wide its structures are.
        softness: Multiplies the recipe's softness; 1 is a crisp edge.
        billow: Strength of its rounded lobes, in standard deviations of the field.
        lobes: Size of a lobe as a part of the scale.
        wisps: Strength of fine variation of the thickness, in powers of e.
        combed: How much longer than wide its wisps are.
        swirl: How far it is bent, as a part of the scale.
        relief: Strength of the shading of its top by the sun, as a part of its light.
        floor: Least thickness as a part of the peak; above 0 the layer has no edge and covers all.
        colour: Power applied to the bands' factors: near 0 for large drops, which are as white in any band,
            above 1 for haze, which is bluer than cloud.
        casts: Whether it casts shadows that can be distinguished from the ground.
    """

    thickness: Range
    scale: Range
    slope: Range
    stretch: Range = (1.0, 1.6)
    softness: float = 1.0
    billow: float = 0.0
    lobes: float = 0.25
    wisps: float = 0.0
    combed: Range = (1.0, 1.6)
    swirl: float = 0.0
    relief: float = 0.0
    floor: float = 0.0
    colour: Range = (0.2, 1.0)
    casts: bool = False


TYPES: Mapping[str, CloudType] = {
    "cumulus": CloudType((0.6, 1), (0, 1), (0.4, 1), billow=0.4, wisps=0.35, relief=0.1, casts=True),
    "altocumulus": CloudType(
        (0.4, 0.8), (0.4, 1), (0.5, 1), softness=2, billow=0.9, lobes=0.08, wisps=0.2, relief=0.08, casts=True
    ),
    "stratus": CloudType(
        (0.4, 0.9), (0.5, 1), (0.2, 0.8), (1, 2.5), softness=3, wisps=0.3, relief=0.05, casts=True
    ),
    "cirrus": CloudType(
        (0.2, 0.6), (0.6, 1), (0.5, 1), (1.5, 3), softness=4, wisps=0.55, combed=(2, 7), swirl=0.03
    ),
    "haze": CloudType(
        (0, 0.55), (0.6, 1), (0.4, 1), (1, 2.5), wisps=0.2, swirl=0.03, floor=0.25, colour=(1, 2.5)
    ),
}
"""The kinds of cloud that a recipe mixes, by name."""
