"""Choose the detector of a scene, and the size of its coarse pixels."""

from __future__ import annotations

from dataclasses import dataclass

from decr_scene.pipeline.look.ground import FINEST
from decr_scene.pipeline.regions.fields import Field
from decr_scene.pipeline.regions.masks import CLOSE_RIM, WIDE_RIM, DetectedMask

GROUND = 20.0
"""Side of a coarse pixel of `ukis-csmask`, m: it was trained at 10 to 30."""

LEAST_SIDE = 64
"""Least coarse pixels along the shorter side of a scene, where possible: a detector needs context."""

UNKNOWN_SIDE = 512
"""Coarse pixels along the shorter side of a scene with pixels of unknown size."""

THRESHOLD = 0.5
"""Least probability of cloud or shadow of `ukis-csmask` for a pixel to be restored."""

COARSE_FROM = 5.0
"""Least side of a scene's pixel, m, at which `ukis-csmask` separates small clouds from ground between."""

FILLED_FROM = 7.0
"""Least side of a scene's pixel, m, at which it also tells shadow from lakes, so that both may be filled.

In a raster in degrees, pixels of 10 m along a meridian count as 7 m at a latitude of 60 degrees.
"""


@dataclass(frozen=True)
class LookPlan:
    """The detector of a scene and its settings.

    Args:
        kind: ``model``, ``ukis`` or ``mask``.
        factor: Side of its pixels, px of the scene.
        threshold: Least probability of a pixel that is restored.
        bands: 0-based positions of the detector's bands in the scene, in its order; that of red twice: it
            stands in for near infrared; empty: the restorer's.
        gates: Only detected cloud or shadow is restored.
        veils: Large changes of the model are applied elsewhere, too; with ``fills``, as far as they darken
            ground that is not bare, where near infrared tells that.
        version: Of the detector's package.
        fills: Detected cloud that the model leaves is filled with the ground's tone, and the rim is close.
        tones: The first guess is held to the tone of clear ground: with ``fills``, and of a network that does
            not see the ground.
        lender: The model whose detector looks where the restorer has none; ``None``: its own looks.
    """

    kind: str
    factor: int
    threshold: float
    bands: tuple[int, ...] = ()
    gates: bool = True
    veils: bool = False
    version: str | None = None
    fills: bool = False
    tones: bool = False
    lender: str | None = None

    @property
    def who(self) -> str:
        """Name who looks, with the version of a package, or the model that lends its detector."""
        without = "without near infrared" if len({*self.bands}) < len(self.bands) else None
        return " ".join(word for word in (self.kind, self.version, self.lender, without) if word is not None)

    def mask(self, field: Field, shape: tuple[int, int]) -> DetectedMask:
        """Return the mask of what was detected in a scene of ``shape``, probabilities of 0 to 255."""
        rim = CLOSE_RIM if self.fills else WIDE_RIM
        least, insides = round(255 * self.threshold), self.kind == "model"
        return DetectedMask(field, shape, self.factor, least, rim, insides)


def coarse_factor(shape: tuple[int, int], pixel: float | None) -> int:
    """Return the side of a coarse pixel of `ukis-csmask`, px.

    Args:
        shape: Of the scene, px.
        pixel: Side of a pixel, m; ``None``: unknown.
    """
    shorter = min(shape)
    if pixel is None:
        return max(1, round(shorter / UNKNOWN_SIDE))
    side = max(1, round(min(GROUND / pixel, shorter // LEAST_SIDE)))
    return side if side < FINEST else side // FINEST * FINEST
