"""Average the ground of a whole scene: its tone, filled in under cloud from clear ground, and its nearness.

All restored places take their tone from this one field of the whole scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.data.anchor import CONTEXT, DECAY, clearness, pull_push
from decr_scene.pipeline.look.detectors import CLOUD, SHADOW
from decr_scene.pipeline.look.insides import insides
from decr_scene.pipeline.regions.fields import ArrayField, Field, interpolate
from decr_scene.pipeline.regions.masks import WIDE_RIM
from decr_scene.pipeline.tiling.grid import Span

FINEST = 8
"""Least side of the ground's pixels, px of the scene: that of the contexts in training."""

LARGEST = 1024
"""Greatest number of the ground's pixels along a side of the scene: so it fits in memory."""

STEP = 8
"""Pixels of the scene from one of a network's context to the next, about."""

AT_THE_RIM = 1e-3
"""Weight of clear ground next to cloud or shadow, which have thin rims that no detector finds."""

KNOWN = 0.01
"""Least share of a scene that is clear: slivers between clouds, which are their rims, do not tell a tone."""

TYPICAL = 0.1
"""Least share of a scene that is clear for what a model does not see to take its tone: less may be a lake."""


def ground_side(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """Return the ground pixels a side of a coarse pixel, and the coarse pixels a side of a ground pixel.

    One of the two is 1.
    """
    least = max(FINEST, -(-max(shape) // LARGEST))
    divisors = [side for side in range(least, factor + 1) if factor % side == 0]
    return (factor // divisors[0], 1) if divisors else (1, -(-least // factor))


class GroundSums:
    """Sums of clear ground on pixels of the ground, added up strip by strip.

    Args:
        bands: Of the restorer.
        shape: Of the scene, px.
        side: Side of a pixel of the images that are added, px of the scene.
        step: Number of them a side of a pixel of the ground.
        split: Number of them a side of a pixel of the answers.
    """

    def __init__(self, bands: int, shape: tuple[int, int], side: int, step: int, split: int = 1) -> None:
        self.side, self._step, self._split = side * step, step, split
        height, width = (-(-extent // self.side) for extent in shape)
        self._rim = math.ceil(max(WIDE_RIM.buffer, (side * split + 1) / 2) / self.side)
        self._sums = np.zeros((bands + 4, height, width))  # and: clear, cloud, shadow, valid
        self._light = np.zeros((height, width))
        sides = (np.arange(0, extent, self.side) for extent in shape)
        counts = (
            np.minimum(step, -(-(extent - first) // side)) for first, extent in zip(sides, shape, strict=True)
        )
        self._counts = np.outer(*counts)

    def add(self, rows: range, image: Float, share: Float, answers: Float) -> None:
        """Add some rows of answers ``(B, h, w)`` over the whole width, with image and valid share of them."""
        fine = answers.repeat(self._split, axis=1).repeat(self._split, axis=2)
        fine = fine[:, : image.shape[1], : image.shape[2]]
        clear = clearness(fine[CLOUD], fine[SHADOW]) * share[0]
        light = image.mean(axis=0, keepdims=True) * share
        values = np.concatenate([image * clear, clear[None], fine[[CLOUD, SHADOW]] * share, share, light])
        padding = self._sums.shape[2] * self._step - values.shape[2]
        wide = np.pad(values, ((0, 0), (0, 0), (0, padding))).astype(np.float64)
        sums = wide.reshape(*wide.shape[:2], -1, self._step).sum(axis=3)
        for number in range(sums.shape[1]):
            row = (rows.start * self._split + number) // self._step
            self._sums[:, row] += sums[:-1, number]
            self._light[row] += sums[-1, number]

    def insides(self) -> Bool:
        """Find the insides of clouds on pixels of the ground, ``(h, w)``, and count them as cloud.

        Of pixels that are not wholly valid none is told, so that nothing is that has no value.
        """
        *_, cloud, _, valid = self._sums
        all_valid = np.where(valid > 0, valid, 1)
        light, clouds = (np.asarray(sums / all_valid, np.float32) for sums in (self._light, cloud))
        side = self._step / self._split  # of its pixels, px of the answers
        found = insides(light, clouds, np.asarray(valid, np.float32), side) & (valid > 0.999 * self._counts)
        self._sums[:-3, found] = 0
        self._sums[-3, found], self._sums[-2, found] = self._sums[-1, found], 0
        return found

    def ground(self) -> Ground:
        """Average what was added to the ground of the scene, in memory."""
        tone, weights = self._clear()
        context = self._context(tone, weights)
        *_, clear, _, _, valid = self._sums
        share = float(clear.sum() / max(1, valid.sum()))
        return Ground(ArrayField(context), self.side, share, _spread(tone, weights))

    def _context(self, tone: Float, weights: Float) -> Float:
        """Fill in the tone of clear ground, and find its nearness, ``(C + 3, h, w)``: as `Ground.field`."""
        *_, cloud, shadow, valid = self._sums
        all_valid = np.where(valid > 0, valid, 1)
        filled, nearness = pull_push(tone, weights)
        coarser = DECAY ** max(0.0, math.log2(self.side / FINEST))  # levels beneath the finest
        nearness = weights + (nearness - weights) * np.float32(coarser)
        return np.concatenate([filled, [cloud / all_valid, shadow / all_valid], nearness[None]]).astype(
            np.float32
        )

    def _clear(self) -> tuple[Float, Float]:
        """Average the tone of clear ground, ``(C, h, w)``, and weigh its pixels, ``(h, w)``."""
        from scipy.ndimage import minimum_filter

        *image, clear, _, _, valid = self._sums
        share = clear / np.where(valid > 0, valid, 1)
        inner = minimum_filter(np.where(valid > 0, share, 1), 2 * self._rim + 1)
        weights = (np.maximum(inner, AT_THE_RIM * share) * (clear > 0)).astype(np.float32)
        return (np.stack(image) / np.where(clear > 0, clear, 1)).astype(np.float32), weights


def _spread(tone: Float, weights: Float) -> tuple[float, ...]:
    """Measure the standard deviation of the tone of clear ground, one a band, 0 where none is clear."""
    if not weights.any():
        return (0.0,) * len(tone)
    mean = np.average(tone, axis=(1, 2), weights=weights)
    variance = np.average((tone - mean[:, None, None]) ** 2, axis=(1, 2), weights=weights)
    return tuple(float(value) for value in np.sqrt(variance))


@dataclass(frozen=True)
class Ground:
    """The ground of a scene, for the workers.

    Args:
        field: ``(C + 3, h, w)``: tone of the ground in [-1, 1], cloud, shadow, nearness of the clear.
        side: Side of its pixels, px of the scene.
        clear: Share of the scene that is clear.
        spread: Standard deviation of the tone of clear ground, one a band; empty: not measured.
    """

    field: Field
    side: int
    clear: float = 1.0
    spread: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        """Return whether enough is clear to tell a tone at all."""
        return self.clear > KNOWN

    @property
    def typical(self) -> bool:
        """Return whether enough is clear for its tone to be that of the scene."""
        return self.clear > TYPICAL

    def tone(self, span: Span) -> Float:
        """Interpolate the tone of the ground in a window, ``(C, h, w)`` in [-1, 1]."""
        return self._at(span, span.height, span.width)[:-CONTEXT]

    def context(self, span: Span) -> Float:
        """Interpolate the context of a window every `STEP` px, ``(K, h, w)``.

        It may reach beyond the scene.
        """
        return self._at(span, *(max(1, round(side / STEP)) for side in (span.height, span.width)))

    def _at(self, span: Span, height: int, width: int) -> Float:
        rows = (span.row + (np.arange(height) + 0.5) * (span.height / height)) / self.side
        cols = (span.col + (np.arange(width) + 0.5) * (span.width / width)) / self.side
        return interpolate(self.field, rows, cols)
