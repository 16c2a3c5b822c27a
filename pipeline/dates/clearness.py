"""Tell by a mask of cloud how surely ground is clear."""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.regions.masks import DetectedMask, Mask
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.tiling.grid import Span

FADING, NEAR = 0.3, 0.02
"""Weight of ground where a mask fades out, and of what is nearer to cloud, whose thin rims are not found."""

SETTINGS = (FADING, NEAR)
"""What of this decides the pixels of an output."""


def clearness(mask: Region | None, span: Span) -> Float:
    """Weigh the pixels of a window as clear ground, ``(h, w)``: 1 away from cloud, 0 in it.

    All count in full without a mask, as nothing is known.
    """
    if mask is None:
        return np.ones((span.height, span.width), np.float32)
    seen = mask.soft(span)
    weights = np.where(seen == 0, np.float32(1), FADING * (1 - seen))
    if isinstance(mask, (Mask, DetectedMask)):
        weights = np.where(seen == 1, NEAR * ~mask.cloud(span), weights)
    return np.asarray(weights, np.float32)
