"""Where a pair has opaque cloud, thin cloud, shadow and clear ground, by how much light comes through."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from decr_scene.models.arrays import Bool, Float

SMOOTH = 9
"""Side of the window that differences are averaged in, px: a region is no sprinkling of pixels."""

OPAQUE, THIN = 0.6, 0.1
"""Opacity from which on cloud hides the ground, and from which on it is cloud at all.

Few tops of clouds are as bright as the brightest, so the former is far from 1.
"""

SHADOW_DROP = 12 / 127.5
"""What is darker than the clear image by 12 of 255 DN, in the mean of the bands, is shadow."""

BRIGHT = 0.5
"""The brightest of an image counts as cloud only from here on, in [-1, 1]; 191 of 255 DN."""

LEAST_ROOM = 0.1
"""Where ground is nearer than this to a cloud's brightness, nobody can tell the two apart."""


class Covers(NamedTuple):
    """Boolean ``(H, W)`` maps of a pair that together are the whole image, each pixel in one.

    Args:
        opaque: Cloud that hides the ground: the core.
        thin: Cloud that ground is seen through.
        shadow: Darker than the clear image.
        clear: The rest.
    """

    opaque: Bool
    thin: Bool
    shadow: Bool
    clear: Bool


def covers(cloudy: Float, matched: Float) -> Covers:
    """Split a pair by the opacity of what lies over the ground.

    A cloud as bright as ``L`` and of opacity ``a`` makes of ground ``g`` the value ``(1 - a) g + a L``, so
    ``a = (cloudy - g) / (L - g)``, both means over the bands and over windows of `SMOOTH` px. ``L`` is the
    99.5th percentile of the cloudy image, at least `BRIGHT`.

    Args:
        cloudy: ``(C, H, W)`` in [-1, 1].
        matched: The clear image in its tone.
    """
    bright = max(float(np.quantile(cloudy.mean(axis=0), 0.995)), BRIGHT)
    over = uniform_filter((cloudy - matched).mean(axis=0), SMOOTH)
    room = uniform_filter(bright - matched.mean(axis=0), SMOOTH)
    opacity = np.where(room > LEAST_ROOM, over / np.maximum(room, LEAST_ROOM), 0)
    shadow = over < -SHADOW_DROP
    opaque, cloud = opacity >= OPAQUE, opacity >= THIN
    return Covers(opaque, cloud & ~opaque, shadow, ~cloud & ~shadow)
