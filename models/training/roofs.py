"""Flat roofs painted over a clear image, for want of towns that have them.

Grey cloud over a white roof looks like a grey roof. What tells them apart is how roofs look: straight
edges, one tone from edge to edge or a pattern that repeats, a shadow on the side away from the sun. A network
that has seen few large roofs leaves the cloud on those it meets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

MOST = 7
"""Roofs of an image."""

LONG, SHORT = (8.0, 75.0), (6.0, 45.0)
"""Half the sides of a roof, px."""


def roofed(image: Float, rng: np.random.Generator) -> Float:
    """The image ``(C, H, W)`` in [-1, 1] with 1 to `MOST` roofs, all along one grid and under one sun."""
    light = (image + 1) / 2
    white = np.quantile(light, 0.99, axis=(1, 2)).astype(np.float32)
    grid, sun = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    rows, cols = np.indices(image.shape[1:], dtype=np.float32)
    for _ in range(int(rng.integers(1, MOST + 1))):
        centre = rng.uniform(0, 1, 2) * image.shape[1:]
        angle = grid + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.02)
        half = [float(np.exp(rng.uniform(*np.log(side)))) for side in (LONG, SHORT)]
        reach = rng.uniform(2, 14)
        away = reach * np.cos(sun), reach * np.sin(sun)
        along, across = _turned(rows - centre[0], cols - centre[1], angle)
        fallen = _within(*_turned(rows - centre[0] - away[0], cols - centre[1] - away[1], angle), half)
        light *= 1 - rng.uniform(0.4, 0.75) * fallen
        inside = _within(along, across, half)
        light += inside * (_roof(rng, white, along, across) - light)
    return np.clip(2 * light - 1, -1, 1)


def _roof(rng: np.random.Generator, white: Float, along: Float, across: Float) -> Float:
    """Light of a roof that covers the image: mostly bright, maybe ribbed or of two slopes, a little rough."""
    bands = len(white)
    tone = rng.uniform(0.6, 1.15) if rng.random() < 0.7 else rng.uniform(0.1, 0.7)
    level = white * np.float32(tone) * np.exp(rng.normal(0, 0.05, bands)).astype(np.float32)
    shade = np.ones_like(along)
    if rng.random() < 0.4:
        shade += np.float32(rng.uniform(0, 0.12)) * np.sin(along * np.float32(2 * np.pi / rng.uniform(3, 16)))
    if rng.random() < 0.3:
        shade += np.float32(rng.uniform(0, 0.15)) * np.sign(across)
    shade += rng.normal(0, rng.uniform(0.003, 0.04), along.shape).astype(np.float32)
    return np.clip(level[:, None, None] * shade, 0, 1)


def _turned(rows: Float, cols: Float, angle: float) -> tuple[Float, Float]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return rows * c + cols * s, cols * c - rows * s


def _within(along: Float, across: Float, half: list[float]) -> Float:
    """Part of each pixel inside the rectangle, about."""
    ends, sides = (
        np.clip(np.float32(side + 0.5) - np.abs(off), 0, 1)
        for side, off in zip(half, (along, across), strict=True)
    )
    return ends * sides
