"""The tone of the ground, filled in under cloud from the clear ground around: a pull-push pyramid.

Pull: means of 2 by 2 pixels, weighted by how clear they are, up to a single pixel. Push: from there back,
other pixels take the coarser value. The fill is smooth, with the nearness of its values.
"""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Float

DECAY = 0.7
"""What is left of nearness one level up: 0.7 where clear ground is some 2 px away, 0.49 at some 4 px, ..."""

CONTEXT = 3
"""Bands of a context besides its anchor: cloud, shadow, nearness."""


def pull_push(values: Float, weights: Float) -> tuple[Float, Float]:
    """Fill an image where it counts little from where it counts much.

    Args:
        values: Image, (C, h, w); may be anything, NaN too, where its weight is 0.
        weights: How much a pixel counts, (h, w), in [0, 1].

    Returns:
        The filled image, (C, h, w), and its nearness, (h, w): 1 where a pixel counts in full, else about
        ``DECAY`` to the power of log2 of the distance to pixels that do, in px. Both are 0 if none counts.
    """
    counted = weights > 0
    weighted = np.concatenate([np.where(counted, values, 0) * weights, weights[None]]).astype(np.float32)
    levels = [weighted]
    while max(levels[-1].shape[1:]) > 1:
        levels.append(_pull(levels[-1]))
    top = levels[-1]
    filled = np.concatenate([top[:-1] / np.where(top[-1:] > 0, top[-1:], 1), top[-1:]])
    for level in reversed(levels[:-1]):
        filled[-1] *= DECAY  # the last band is the nearness, which fades on its way
        filled = level + (np.float32(1) - level[-1:]) * _doubled(filled, level.shape[1:])
    return filled[:-1], filled[-1]


def context_of(reduced: Float, cloud: Float, shadow: Float, valid: Float | None = None) -> Float:
    """Join the context of an image for a network.

    Args:
        reduced: The image on coarse pixels, (C, h, w), in [-1, 1].
        cloud: Probability of cloud, (h, w).
        shadow: Probability of shadow, (h, w).
        valid: How much of a pixel holds data, (h, w), in [0, 1]; None: all of it.

    Returns:
        (C + 3, h, w): the anchor, cloud, shadow and nearness. The anchor is 0 where nearness is.
    """
    filled, nearness = pull_push(reduced, clearness(cloud, shadow, valid))
    tone = np.where(nearness > 0, filled, np.float32(0))
    return np.concatenate([tone, cloud[None], shadow[None], nearness[None]]).astype(np.float32)


def clearness(cloud: Float, shadow: Float, valid: Float | None = None) -> Float:
    """Weigh pixels ``(H, W)`` as clear ground: not at all where cloud or shadow is likelier than not."""
    weights = np.clip(1 - 2 * cloud, 0, 1) * np.clip(1 - 2 * shadow, 0, 1)
    return (weights if valid is None else weights * valid).astype(np.float32)


def _pull(level: Float) -> Float:
    """Return one level coarser.

    The last band is the weight, which the others are multiplied by.
    """
    height, width = level.shape[1:]
    if height % 2 or width % 2:
        level = np.pad(level, ((0, 0), (0, height % 2), (0, width % 2)))
    rows = level[:, ::2] + level[:, 1::2]
    sums = rows[..., ::2] + rows[..., 1::2]
    return np.asarray(sums / np.maximum(sums[-1:], 1), np.float32)


def _doubled(level: Float, shape: tuple[int, ...]) -> Float:
    """Double the pixels of ``(C, h, w)`` a side, bilinearly, and cut them to ``shape``."""
    for axis in (1, 2):
        before = np.concatenate([level.take([0], axis), level.take(range(level.shape[axis] - 1), axis)], axis)
        after = np.concatenate([level.take(range(1, level.shape[axis]), axis), level.take([-1], axis)], axis)
        near = level * np.float32(0.75)
        pair = np.stack([near + before * np.float32(0.25), near + after * np.float32(0.25)], axis + 1)
        whole = pair.reshape(*level.shape[:axis], -1, *level.shape[axis + 1 :])
        level = whole.take(range(shape[axis - 1]), axis).astype(np.float32, copy=False)
    return level
