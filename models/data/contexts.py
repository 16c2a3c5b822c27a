"""What a scene as a whole would have shown of a crop: where cloud and shadow are, and the ground around.

A detector is not there while crops are drawn, so its answer is made from the truth and spoilt as detectors
err: thin cloud overlooked or not, edges grown, no detection at all.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from decr_scene.models.arrays import Float
from decr_scene.models.data.anchor import context_of
from decr_scene.models.data.crops import area_reduced

CELL = 8
"""Side of a pixel of a context, px of the crop."""

UNKNOWN = 0.25
"""Share of the crops without any context."""

OVERLOOKED = 0.25
"""Share of the crops whose shadows are not detected."""

FAR = 0.5
"""Share of the crops without clear ground that get its tone from far away."""


def draw_context(
    cloudy: Float, clear: Float, opacity: Float, shadow: Float, rng: np.random.Generator
) -> Float:
    """Draw the context ``(C + 3, h, w)`` of a crop, on pixels of `CELL` px.

    Args:
        cloudy: ``(C, H, W)`` in [-1, 1].
        clear: Its truth, same shape.
        opacity: Of cloud, ``(H, W)`` in [0, 1].
        shadow: Loss of light, ``(H, W)`` in [0, 1].
        rng: All randomness comes from here.
    """
    reduced, truth = area_reduced(cloudy, CELL), area_reduced(clear, CELL)
    if rng.random() < UNKNOWN:
        return np.zeros((len(reduced) + 3, *reduced.shape[1:]), np.float32)
    depths = area_reduced(np.stack([opacity, shadow]), CELL)
    least = rng.uniform(0.08, 0.5)
    cloud = _detected(depths[0], least, rng)
    dark = _detected(depths[1], 0.15, rng) if rng.random() >= OVERLOOKED else np.zeros_like(cloud)
    context = context_of(reduced, cloud, dark * (1 - cloud), None)
    bands = len(reduced)
    if not (context[-1] > 0.5).any() and rng.random() < FAR:
        tone = truth.mean(axis=(1, 2)) + rng.normal(0, 0.1, bands)
        context[:bands] = np.clip(tone, -1, 1)[:, None, None]
        context[-1] = rng.uniform(0.03, 0.3)
    return context


def _detected(depth: Float, least: float, rng: np.random.Generator) -> Float:
    """Imitate a detector's probability, ``(h, w)``: a steep rise at ``least``, grown and smoothed."""
    probability = np.clip((depth - least / 2) / (least / 2), 0, 1)
    grown = int(rng.integers(3))
    if grown:
        probability = ndimage.grey_dilation(probability, size=(2 * grown + 1,) * 2)
    result: Float = ndimage.gaussian_filter(probability * rng.uniform(0.8, 1), rng.uniform(0, 1)).astype(
        np.float32
    )
    return result
