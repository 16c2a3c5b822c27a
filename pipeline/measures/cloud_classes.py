"""Classes of the pixels of a pair by cloud opacity: opaque cloud, thin cloud, shadow and clear ground."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from decr_scene.models.arrays import Bool, Float

SMOOTHING = 9
"""Side of the window that opacity is averaged in, px, so that classes are contiguous areas."""

OPAQUE, THIN = 0.6, 0.1
"""Least opacity of opaque cloud, which hides the ground, and of thin cloud.

Few cloud tops are as bright as the brightest, so the former is far from 1.
"""

SHADOW_DROP = 12 / 127.5
"""Pixels darker than the clear image by 12 of 255 DN, in the mean of the bands, are shadow."""

LEAST_CLOUD_BRIGHTNESS = 0.5
"""Least brightness assumed of opaque cloud, in [-1, 1]; 191 of 255 DN."""

LEAST_CONTRAST = 0.1
"""Least difference between cloud and ground, in [-1, 1], at which opacity can be estimated."""


class CloudClasses(NamedTuple):
    """Boolean ``(H, W)`` maps that partition an image.

    Args:
        opaque: Cloud that hides the ground: the core.
        thin: Cloud with the ground visible through it.
        shadow: Darker than the clear image.
        clear: All other pixels.
    """

    opaque: Bool
    thin: Bool
    shadow: Bool
    clear: Bool


def classify_clouds(cloudy: Float, matched: Float) -> CloudClasses:
    """Classify the pixels of a pair by the opacity of the cloud over them.

    A cloud of brightness ``L`` and opacity ``a`` over ground ``g`` gives the value ``(1 - a) g + a L``, so
    ``a = (cloudy - g) / (L - g)``, with both differences averaged over the bands and over windows of
    `SMOOTHING` px. ``L`` is the 99.5th percentile of the cloudy image's band mean, at least
    `LEAST_CLOUD_BRIGHTNESS`.

    Args:
        cloudy: ``(C, H, W)`` in [-1, 1].
        matched: ``(C, H, W)``, the clear image in the tone of the cloudy one.
    """
    brightness = max(float(np.quantile(cloudy.mean(axis=0), 0.995)), LEAST_CLOUD_BRIGHTNESS)
    excess = uniform_filter((cloudy - matched).mean(axis=0), SMOOTHING)
    contrast = uniform_filter(brightness - matched.mean(axis=0), SMOOTHING)
    opacity = np.where(contrast > LEAST_CONTRAST, excess / np.maximum(contrast, LEAST_CONTRAST), 0)
    shadow = excess < -SHADOW_DROP
    opaque, cloud = opacity >= OPAQUE, opacity >= THIN
    return CloudClasses(opaque, cloud & ~opaque, shadow, ~cloud & ~shadow)
