"""Flat roofs painted over a clear image, because few training images show large ones.

Grey cloud over a white roof looks like a grey roof. What tells them apart is how roofs look: straight
edges, one tone from edge to edge or a pattern that repeats, a shadow on the side away from the sun. A network
that has seen few large roofs leaves the cloud on those it meets.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from decr_scene.models.arrays import Float

MOST = 7
"""Greatest number of roofs on an image."""

LONG, SHORT = (8.0, 75.0), (6.0, 45.0)
"""Half the sides of a roof, px."""


def roofed(image: Float, rng: np.random.Generator) -> Float:
    """Paint 1 to `MOST` roofs on an image ``(C, H, W)`` in [-1, 1], all along one grid and under one sun."""
    light = (image + 1) / 2
    white = np.quantile(light, 0.99, axis=(1, 2)).astype(np.float32)
    grid, sun = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(1, MOST + 1))):
        centre = rng.uniform(0, 1, 2) * image.shape[1:]
        angle = grid + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.02)
        half = [float(np.exp(rng.uniform(*np.log(side)))) for side in (LONG, SHORT)]
        wing = _wing(rng, half)
        reach = rng.uniform(2, 14)
        away = reach * np.cos(sun), reach * np.sin(sun)
        around = tuple(  # a roof, its wing and their shadow reach no farther
            slice(max(0, int(at - 3 * sum(half) - reach)), int(at + 3 * sum(half) + reach)) for at in centre
        )
        rows, cols = (
            np.arange(side, dtype=np.float32)[part]
            for side, part in zip(image.shape[1:], around, strict=True)
        )
        offset = rows[:, None] - np.float32(centre[0]), cols[None, :] - np.float32(centre[1])
        shaded = _turned(offset[0] - np.float32(away[0]), offset[1] - np.float32(away[1]), angle)
        below = light[(slice(None), *around)]
        below *= 1 - np.float32(rng.uniform(0.4, 0.75)) * _outline(*shaded, half, wing)
        along, across = _turned(*offset, angle)
        below += _outline(along, across, half, wing) * (_roof(rng, white, along, across) - below)
    return np.clip(2 * light - 1, -1, 1)


def _roof(rng: np.random.Generator, white: Float, along: Float, across: Float) -> Float:
    """Draw the light of a roof that covers the image, ``(C, H, W)`` in [0, 1]: mostly bright, a little rough.

    It may be ribbed, of two slopes, stained, or have rows of skylights or vents.
    """
    bands = len(white)
    tone = rng.uniform(0.6, 1.15) if rng.random() < 0.7 else rng.uniform(0.1, 0.7)
    level = white * np.float32(tone) * np.exp(rng.normal(0, 0.05, bands)).astype(np.float32)
    shade = np.ones_like(along)
    if rng.random() < 0.4:
        shade += np.float32(rng.uniform(0, 0.12)) * np.sin(along * np.float32(2 * np.pi / rng.uniform(3, 16)))
    if rng.random() < 0.3:
        shade += np.float32(rng.uniform(0, 0.15)) * np.sign(across)
    if rng.random() < 0.4:
        stains = rng.normal(0, rng.uniform(0, 0.08), (9, 9))
        shade += ndimage.zoom(stains, [side / 9 for side in shade.shape], order=1).astype(np.float32)
    if rng.random() < 0.4:
        gaps = rng.uniform(6, 40, 2).astype(np.float32)
        lights = (along % gaps[0] < rng.uniform(1, 4)) & (across % gaps[1] < rng.uniform(1, 8))
        shade *= 1 + np.float32(rng.uniform(-0.6, 0.3)) * lights
    shade += rng.normal(0, rng.uniform(0.003, 0.04), along.shape).astype(np.float32)
    return np.clip(level[:, None, None] * shade, 0, 1)


def _turned(rows: Float, cols: Float, angle: float) -> tuple[Float, Float]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return rows * c + cols * s, cols * c - rows * s


def _wing(rng: np.random.Generator, half: list[float]) -> tuple[float, float, list[float]] | None:
    """Place a second part of a roof, along and across, with half its sides.

    Every third roof has one.
    """
    if rng.random() < 2 / 3:
        return None
    size = [side * rng.uniform(0.4, 1.2) for side in reversed(half)]
    return half[0] * rng.uniform(-1, 1), half[1] * rng.uniform(-1, 1), size


def _outline(
    along: Float, across: Float, half: list[float], wing: tuple[float, float, list[float]] | None
) -> Float:
    """Return the part of each pixel inside a roof and its wing, ``(H, W)`` in [0, 1]."""
    inside = _within(along, across, half)
    if wing is None:
        return inside
    return np.maximum(inside, _within(along - np.float32(wing[0]), across - np.float32(wing[1]), wing[2]))


def _within(along: Float, across: Float, half: list[float]) -> Float:
    """Approximate the part of each pixel inside a rectangle, ``(H, W)`` in [0, 1]."""
    ends, sides = (
        np.clip(np.float32(side + 0.5) - np.abs(off), 0, 1)
        for side, off in zip(half, (along, across), strict=True)
    )
    return ends * sides
