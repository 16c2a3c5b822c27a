"""What a first guess leaves of cloud and shadow that a detector sees, and the ground around shows to be none.

A network that cannot see through dense small clouds gives them back. Where a detector that tells cloud from
the ground between finds cloud or shadow, and the guess is still brighter or darker there than the tone of the
clear ground around, as the input was, that tone is taken, on the level of the guess around: a network that
takes haze off answers darker than the ground that is seen beside cloud, and a patch of its tone would show.

The guess keeps what detail is the ground's: all in wide gaps between clouds, which lie in shade, and under
thin cloud what does not look like cloud.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.regions.clear_ground import smooth_rise
from decr_scene.pipeline.regions.fields import ArrayField, interpolate

SIGMAS = (2.0, 4.0)
"""Standard deviations, px, of the low passes that tell clouds, small and large, from the ground."""

SEEN_SIGMA = 4.0
"""Distance, px, by which what a detector sees is widened, and standard deviation of its smoothing."""

RIM = 2
"""Width of the bright or dark rims of what gives way, px, which gives way with it, and of its soft border."""

DEPARTURE = (0.015, 0.045)
"""Difference of the guess from the ground's tone, a part of white: nothing is taken for cloud, all is."""

LEFT = (0.05, 0.2)
"""What is left of the input's difference from that tone: nothing is taken for cloud, all is."""

LEAST = 0.02
"""Difference of the input, a part of white, below which there was no cloud to speak of."""

LEAST_VEIL = 0.02
"""Length of what cloud adds to the ground's tone, on a guess's scale, below which it points nowhere."""

LEVEL_PIXEL, LEVEL_SIDE = 4, 13
"""Side of the coarse pixels of the level, px, and of the square that is moved over them three times, in them:
a standard deviation of 26 px."""

DETAIL_SIDE = 7
"""The same square where detail is told from tone: a standard deviation of 14 px."""

BELOW = (0.01, 0.05)
"""How far the input is below the ground's tone, a part of white: not in shade between clouds, surely so."""

WIDE = (0.2, 0.5)
"""Share of the surroundings that is dark, too: a small shadow, whose detail is its own; ground in shade."""

DENSE = (0.15, 0.4)
"""How far the input is above that tone, a part of white: ground is seen through the cloud, none is."""

MOST = 0.1
"""Greatest detail, on a guess's scale: more is that of a small cloud, or of the border of shade."""

TINY = 1e-9
"""Energy of detail, and share of the surroundings, beside which there is none."""

LEAST_TRUSTED = 0.05
"""Share of the surroundings that must be trusted for half of their level to be taken."""

INFRARED = ("nir", "swir")
"""Bands in which ground differs from ground more than cloud does."""


def without_remnants(guess: Float, cloudy: Float, tone: Float, seen: Float, bands: Sequence[str]) -> Float:
    """Give up a guess for the tone of the ground where cloud or shadow is left in it.

    Args:
        guess: First guess, ``(C, h, w)`` in [-1, 1].
        cloudy: What it is the guess of, same shape.
        tone: Tone of the clear ground around, same shape.
        seen: Where cloud or shadow is, ``(h, w)`` in [0, 1]: without a buffer, in which is clear ground.
        bands: Names of the bands.

    Returns:
        The guess, ``(C, h, w)``; the very same where nothing is seen.
    """
    visible = [i for i, name in enumerate(bands) if not name.startswith(INFRARED)] or [*range(len(bands))]
    remains = np.maximum.reduce([_remains(guess, cloudy, tone, visible, sigma) for sigma in SIGMAS])
    part = _wide(_wide(np.clip(seen, 0, 1), SEEN_SIGMA) * remains, RIM)
    if not part.any():
        return guess
    ground = tone + _mean_over(guess - tone, np.square(1 - part), LEVEL_SIDE, LEAST_TRUSTED)
    ground += _ground_detail(guess, cloudy, tone, visible)
    return np.where(part > 0, guess + (ground - guess) * part, guess).astype(np.float32)


def _ground_detail(guess: Float, cloudy: Float, tone: Float, bands: list[int]) -> Float:
    """Find what of a guess's detail is the ground's and not that of cloud or shadow, ``(C, h, w)``."""
    from scipy.ndimage import minimum_filter

    veil = _low_pass(cloudy - tone)
    near, around = _smooth(_light(cloudy - tone, bands), SIGMAS[0]), _light(veil, bands)
    between = smooth_rise(-near, *BELOW)
    thin = (1 - between) * (1 - smooth_rise(np.maximum(near, around), *DENSE))
    inside = minimum_filter(between, 2 * RIM + 1)
    wide = between * smooth_rise(_low_pass(inside[None])[0], *WIDE)
    detail = thin * _seen_through(guess - _low_pass(guess), veil)
    detail += wide * (guess - _mean_over(guess, inside, DETAIL_SIDE, TINY))
    return np.clip(detail, -MOST, MOST)


def _seen_through(detail: Float, veil: Float) -> Float:
    """Find the detail of ground under thin cloud, ``(C, h, w)``.

    Cloud makes all bands lighter along one line, so what departs from this line is the ground's, in so far as
    it has the more energy: cloud that bands see from two places has colours of its own, and they are pale.

    Args:
        detail: Of the guess, ``(C, h, w)``.
        veil: What cloud, or shade, adds to the ground's tone, smooth, same shape.
    """
    line = veil / np.maximum(np.linalg.norm(veil, axis=0), LEAST_VEIL)
    along = (detail * line).sum(axis=0)
    across = detail - along * line
    energies = _coarse_means(np.stack([np.square(across).sum(axis=0), np.square(along)]), DETAIL_SIDE)
    share = _enlarged(energies[:1] / (energies.sum(axis=0) + TINY), along.shape)
    return np.asarray(across * share, np.float32)


def _low_pass(images: Float) -> Float:
    """Smooth images, ``(C, h, w)``, to tell their detail from their tone."""
    return _enlarged(_coarse_means(images, DETAIL_SIDE), images.shape[1:])


def _mean_over(images: Float, part: Float, square: int, least: float) -> Float:
    """Smooth images, ``(C, h, w)``, where a part of them is, ``(h, w)``; 0 where hardly any is."""
    coarse = _coarse_means(np.concatenate([images * part, part[None]]), square)
    return _enlarged(coarse[:-1] / (coarse[-1:] + least), part.shape)


def _coarse_means(images: Float, square: int) -> Float:
    """Average images, ``(C, h, w)``, on coarse pixels, and move a square over them three times."""
    from scipy.ndimage import uniform_filter

    side = LEVEL_PIXEL
    images = np.pad(images, ((0, 0), (0, -images.shape[1] % side), (0, -images.shape[2] % side)), mode="edge")
    coarse = images.reshape(len(images), images.shape[1] // side, side, -1, side).mean(axis=(2, 4))
    for _ in range(3):
        coarse = uniform_filter(coarse, square, mode="nearest", axes=(1, 2))
    return np.asarray(coarse, np.float32)


def _enlarged(coarse: Float, shape: tuple[int, ...]) -> Float:
    """Interpolate coarse pixels to those of a shape, ``(C, h, w)``."""
    return interpolate(ArrayField(coarse), *((np.arange(extent) + 0.5) / LEVEL_PIXEL for extent in shape))


def _remains(guess: Float, cloudy: Float, tone: Float, bands: list[int], sigma: float) -> Float:
    """Estimate how surely cloud or shadow of at least that size is left, ``(h, w)`` in [0, 1]."""
    after, before = (_smooth(_light(image - tone, bands), sigma) for image in (guess, cloudy))
    divisor = np.where(np.abs(before) < LEAST, np.copysign(LEAST, before), before)
    left = np.asarray(after / divisor, np.float32)
    return np.asarray(smooth_rise(np.abs(after), *DEPARTURE) * smooth_rise(left, *LEFT), np.float32)


def _light(difference: Float, bands: list[int]) -> Float:
    """Average a difference on a guess's scale, ``(C, h, w)``, over bands to a part of white, ``(h, w)``."""
    return np.asarray(difference[bands].mean(axis=0) / 2, np.float32)


def _wide(part: Float, width: float) -> Float:
    """Widen a part by ``width`` px and soften its border as much, ``(h, w)`` in [0, 1]."""
    from scipy.ndimage import maximum_filter

    return _smooth(maximum_filter(part, 2 * round(width) + 1), width)


def _smooth(values: Float, sigma: float) -> Float:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, sigma, mode="nearest"), np.float32)
