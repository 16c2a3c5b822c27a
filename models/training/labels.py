"""Label crops for a detector: simulated cloud, whose place is known; two dates, which show it; drawn masks.

Labels are ``(3, H, W)``: needs restoring (cloud, thin cloud or shadow), cloud or thin cloud, and how much the
pixel counts. Pixels between clear and cloudy are not counted, as their class is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from decr_scene.models.arrays import Float
from decr_scene.models.clouds.simulate import (
    CLEAR,
    SHADOW,
    SHADOW_DEPTH,
    THIN_OPACITY,
    CloudRecipe,
    SimulatedCloud,
    simulate,
)
from decr_scene.models.clouds.types import Range
from decr_scene.models.clouds.veils import VeilRecipe, veiled
from decr_scene.models.data.crops import UNCHANGED, turn
from decr_scene.models.data.source import Crop, PairSource, in_other_light

VISIBLE = 16 / 127.5
"""Least change of the mean of the bands by cloud, upwards, and by shadow, downwards (16 of 255 DN)."""

CLEAR_DIFFERENCE = 5 / 127.5
"""Smoothed differences of a pair in one tone, in its most different band, up to which the ground is clear."""

PAIR_SMOOTHING = 3.0
"""Standard deviation, px, that the differences of a pair are smoothed with at full resolution."""

CLEAR_DATES = 0.25
"""Share of the crops of real pairs that are of the clear date."""

STRETCHED = 0.35
"""Share of the crops that are stretched to their own limits, as scenes of 16 bits are."""

LIFTED = 0.15
"""Share of the simulated crops whose ground becomes as pale as sand, snow or concrete."""

CLOUDLESS = 0.2
"""Share of the simulated crops that no cloud touches."""

UNDRAWN = 0.25
"""Darkest share of the clear pixels of a crop without drawn shadow: they may be shadow and do not count."""


def simulated_labels(drawn: SimulatedCloud, clear: Float) -> Float:
    """Label a simulated cloud over a clear image ``(C, H, W)`` in [-1, 1]: ``(3, H, W)``, 0 or 1."""
    change = (drawn.cloudy - clear).mean(axis=0)
    restore = (drawn.mask != CLEAR) & (np.abs(change) >= VISIBLE)
    faint = (drawn.opacity > THIN_OPACITY / 2) | (drawn.shadow > SHADOW_DEPTH / 2)
    return np.stack([restore, restore & (drawn.mask != SHADOW), restore | ~faint]).astype(np.float32)


def pair_labels(cloudy: Float, matched: Float, smoothing: float = PAIR_SMOOTHING) -> Float:
    """Label a real pair by where its two dates differ: ``(3, H, W)``, 0 or 1.

    Args:
        cloudy: ``(C, H, W)`` in [-1, 1].
        matched: The clear image in the tone of the cloudy one, same shape.
        smoothing: Standard deviation, px, that the difference is smoothed with.
    """
    difference = ndimage.gaussian_filter(cloudy - matched, (0, smoothing, smoothing))
    change = difference.mean(axis=0)
    restore = np.abs(change) >= VISIBLE
    clear = np.abs(difference).max(axis=0) < CLEAR_DIFFERENCE
    return np.stack([restore, restore & (change > 0), restore | clear]).astype(np.float32)


def mask_labels(cloudy: Float, cover: Float) -> Float:
    """Label an image by a mask of it: ``(3, H, W)``, 0 or 1.

    Args:
        cloudy: ``(C, H, W)``.
        cover: By cloud and by shadow, ``(2, H, W)`` in [0, 1].
    """
    restore, clear = cover.sum(axis=0) >= 0.5, cover.sum(axis=0) < 0.1
    counts = clear | (cover.sum(axis=0) > 0.9)
    if clear.any() and not cover[1].any():
        light = cloudy.mean(axis=0)
        counts &= restore | (light >= np.quantile(light[clear], UNDRAWN))
    return np.stack([restore, cover[0] >= 0.5, counts]).astype(np.float32)


@dataclass(frozen=True)
class LabelledSource(PairSource):
    """A source whose crops have labels instead of the clear image.

    Args:
        plain: For judging: draw no other brightness, pale ground or limits than the images have. Of real
            pairs, half the crops are the clear date and all clear; of the others only what is cloudy counts,
            because an even haze is a difference of tone, without which the rest is clear.
    """

    plain: bool = False

    def crop(self, rng: np.random.Generator, size: int, spectrum: tuple[str, ...]) -> Crop:
        """Draw one crop, ``(C, size, size)``, and its labels ``(3, size, size)``."""
        number = int(rng.integers(len(self.pairs)))
        pair = self.pairs[number][rng.integers(len(self.pairs[number]))]
        cloudy, clear = self._cut(rng, pair, size)
        light = self._draw_light(rng, clear if self.config.masks is None else cloudy, spectrum)
        if self.plain:
            light = UNCHANGED
        if rng.random() < self.config.simulate:
            clear = light.apply(clear)
            if rng.random() < LIFTED and not self.plain:
                clear = clear + (1 - clear) * np.float32(rng.uniform(0.2, 0.7))
            cloudy, labels = self._simulated(rng, clear, spectrum)
        elif self.config.masks is not None:
            labels = mask_labels(cloudy, clear)
            cloudy = clear = light.apply(cloudy)
        elif rng.random() < (0.5 if self.plain else CLEAR_DATES):
            cloudy = clear = light.apply(clear)
            labels = np.broadcast_to(np.array([[[0]], [[0]], [[1]]], np.float32), (3, size, size))
        else:
            matched = pair.tone.apply(clear) if pair.tone is not None else clear
            labels = pair_labels(cloudy, matched, PAIR_SMOOTHING * self.config.scales[number])
            if self.plain:
                labels[2] = labels[0]
            cloudy, clear = light.apply(cloudy), light.apply(matched)
        if self.config.stretch and not self.plain:
            cloudy = self._as_delivered(rng, cloudy, spectrum)
        if rng.random() < STRETCHED and not self.plain:
            cloudy = _stretched(cloudy, clear, rng)
        return Crop(*turn(rng, cloudy, labels))

    def _as_delivered(self, rng: np.random.Generator, image: Float, spectrum: tuple[str, ...]) -> Float:
        """Show an image ``(C, H, W)`` with every band stretched by itself, so that cloud need not be grey."""
        most = self.config.stretch / 3
        gain = np.exp(rng.uniform(-most, most, (len(image), 1, 1))).astype(np.float32)
        shown = self._draw_stretch(rng, spectrum).apply(image)
        return np.clip((shown + 1) * gain - 1, -1, 1)

    def _simulated(
        self, rng: np.random.Generator, clear: Float, spectrum: tuple[str, ...]
    ) -> tuple[Float, Float]:
        """Draw clouds, a veil, or both over an image ``(C, H, W)``, and return their labels with it."""
        config, factor = self.config, 2.0 ** rng.uniform(0, 2.5)
        below, veil = clear, None
        if config.veil and rng.random() < config.veil:
            drawn = veiled(clear, spectrum, rng, _finer_veils(config.veils, factor))
            below, veil = drawn.image, drawn.opacity
            if rng.random() < config.shown:
                below = in_other_light(rng, below, clear, config.shown_gain)
        if veil is not None and rng.random() >= config.veil_clouds:
            cloudy, labels = below, np.zeros((3, *veil.shape), np.float32)
            labels[2] = 1
        else:
            clouds = _finer(replace(config.clouds, clear=CLOUDLESS), factor)
            over = simulate(below, spectrum, rng, clouds)
            cloudy, labels = over.cloudy, simulated_labels(over, below)
        if veil is not None:
            clear_to, cloud_from = config.veil_labels
            labels[:2, veil >= cloud_from] = labels[2, veil >= cloud_from] = 1
            labels[2, (veil >= clear_to) & (veil < cloud_from) & (labels[0] == 0)] = 0
        return cloudy, labels


def labelled(source: PairSource, simulated: float | None = None, plain: bool = False) -> LabelledSource:
    """Return a source of the same images with labels.

    Args:
        source: The images.
        simulated: Share of simulated cloud; ``None``: the source's own.
        plain: As of `LabelledSource`.
    """
    config = source.config if simulated is None else replace(source.config, simulate=simulated)
    return LabelledSource(config, source.pairs, plain)


def _finer(recipe: CloudRecipe, factor: float) -> CloudRecipe:
    """Scale clouds for a coarser image, where lengths are ``factor`` times fewer pixels."""
    return replace(
        recipe,
        scale=_less(recipe.scale, factor, 1.0),
        finest=_less(recipe.finest, factor, 0.2),
        shadow_offset=_less(recipe.shadow_offset, factor, 1.0),
    )


def _finer_veils(recipe: VeilRecipe, factor: float) -> VeilRecipe:
    """Scale veils likewise."""
    scale, fine = _less(recipe.scale, factor, 1.0), _less(recipe.fine_scale, factor, 1.0)
    return replace(recipe, scale=scale, fine_scale=fine)


def _less(lengths: Range, factor: float, least: float) -> Range:
    return max(lengths[0] / factor, least), max(lengths[1] / factor, least)


def _stretched(image: Float, clear: Float, rng: np.random.Generator) -> Float:
    """Stretch an image ``(C, H, W)`` between limits such as a scene has, of ground and cloud together."""
    both = np.concatenate([image, clear], axis=1).reshape(len(image), -1)
    low, high = np.percentile(both, [0.1, 99.9], axis=1).astype(np.float32)
    low = -1 + (low + 1) * np.float32(rng.uniform(0, 1))
    high = np.maximum(high + (1 - high) * np.float32(rng.uniform(0, 0.5)), low + np.float32(0.1))
    stretched = (image - low[:, None, None]) * 2 / (high - low)[:, None, None] - 1
    return np.clip(stretched, -1, 1).astype(np.float32)
