"""Find the dense part of clouds that are larger than a detector sees.

A detector that sees so many pixels around tells a cloud by its rims: the inside of a larger one is an even
white to it, as snow and roofs are. What detected cloud encloses, and is as light as that, is cloud. Nor does
a network see any ground there, up to where the cloud gets thin.
"""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.data.anchor import pull_push

LIKELY = 0.5
"""Least probability of detected cloud."""

DARK = 0.25
"""Quantile of the light of what is not detected: the ground's, even where much of it is inside of clouds."""

AS_LIGHT = 0.6
"""Least light of dense cloud, as a part of the way from the ground's to that of the cloud around."""

LEAST_LIGHT = 0.0
"""Least light of dense cloud, on the scale of -1 to 1."""

ENCLOSED, RIMMED = 0.8, 0.5
"""Least share of the pixels around an inside that are detected cloud: of those that are valid, and of all."""

DEPTH = 48
"""Least distance of the middle of an inside from clear ground, px of the detector: it overlooks nothing of
smaller clouds, and the roofs and pale fields whose rims it takes for cloud are no larger."""


def insides(light: Float, cloud: Float, valid: Float, side: float) -> Bool:
    """Tell where clouds with an inside are dense, ``(h, w)``.

    Args:
        light: Mean of the bands, ``(h, w)`` in [-1, 1].
        cloud: Probability of cloud, same shape.
        valid: Share that is valid, same shape.
        side: Of a pixel, px of the detector.
    """
    from scipy.ndimage import distance_transform_edt, label, maximum

    there = valid > 0
    detected = there & (cloud >= LIKELY)
    others = there & ~detected
    if not detected.any() or not others.any():
        return np.zeros(light.shape, np.bool_)
    ground = np.quantile(light[others], DARK)
    (around,), _ = pull_push(light[None], detected.astype(np.float32))
    least = np.maximum(LEAST_LIGHT, ground + AS_LIGHT * (around - ground))
    dense = there & (around > ground) & (light >= least)
    enclosed = _enclosed(dense & others, detected, there)
    clear = others & ~enclosed
    if not enclosed.any() or not clear.any():
        return np.zeros(light.shape, np.bool_)
    places, count = label(enclosed, np.ones((3, 3)))
    depth = side * maximum(distance_transform_edt(~clear), places, range(1, count + 1))
    deep = np.concatenate([[False], depth >= DEPTH])[places]
    clouds, _ = label(dense & (detected | deep), np.ones((3, 3)))
    return np.isin(clouds, np.unique(clouds[deep]))


def _enclosed(places: Bool, detected: Bool, there: Bool) -> Bool:
    """Choose the connected places that lie within what is detected, and may be cut by a border."""
    from scipy.ndimage import binary_dilation, find_objects, label

    chosen = np.zeros(np.add(places.shape, 2), np.bool_)
    numbers, count = label(np.pad(places, 1), np.ones((3, 3)))
    there, detected = np.pad(there, 1), np.pad(detected, 1)
    for number, box in enumerate(find_objects(numbers, count), start=1):
        rows, cols = (slice(side.start - 1, side.stop + 1) for side in box)
        own = numbers[rows, cols] == number
        ring = binary_dilation(own, np.ones((3, 3))) & ~own
        cloud = detected[rows, cols][ring].sum()
        if cloud >= max(ENCLOSED * there[rows, cols][ring].sum(), RIMMED * ring.sum()):
            chosen[rows, cols] |= own
    return chosen[1:-1, 1:-1]
