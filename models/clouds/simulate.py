"""Simulate clouds over a clear image: layers of cloud, the shadows they cast, and the mask of both.

Each layer is a field of optical thickness ``tau`` made from spectral noise. Over light ``L = (x + 1) / 2``::

    L_cloudy = L * shadow_b * T_b + A_b * (1 - T_b)        T_b = exp(-tau * k_b)

so thin cloud leaves the ground visible, and a band with a small ``k_b`` (near infrared) sees through it best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decr_scene.models.arrays import Float
from decr_scene.models.clouds.fields import Canvas, Spectrum, bend, between, quantile, tilt
from decr_scene.models.clouds.types import TYPES, CloudType, Range, light_beyond
from decr_scene.models.value_types import check_rising

CLEAR, CLOUD, SHADOW, THIN = 0, 1, 2, 3
"""Values of a mask."""

THIN_OPACITY = 0.1
"""Least opacity of the reference band of a pixel of thin cloud; people draw no thinner ones."""

CLOUD_OPACITY = 0.5
"""From this opacity on, a pixel is cloud: it sends more of the cloud's light than of the ground's."""

SHADOW_DEPTH = 0.25
"""From this loss of direct light on, a pixel without cloud is shadow."""

OTHER_BAND = 0.9
"""Transmission factor of a band that the recipe does not name."""

OTHER_SKYLIGHT = 0.2
"""Skylight of a band that the recipe does not name."""

LEAST = 2e-3
"""Optical thickness and shadow below this are none at all, so that clear pixels stay as they are."""


def _types() -> dict[str, float]:
    return {"cumulus": 0.4, "altocumulus": 0.08, "stratus": 0.2, "cirrus": 0.17, "haze": 0.15}


def _transmission() -> dict[str, float]:
    return {"blue": 1.0, "green": 0.95, "red": 0.9, "nir": 0.75, "swir": 0.5}


def _skylight() -> dict[str, float]:
    return {"blue": 0.4, "green": 0.3, "red": 0.22, "nir": 0.12, "swir": 0.06}


@dataclass(frozen=True)
class CloudRecipe:
    """What clouds to draw; pairs are ``(least, most)`` of a range that each image draws from.

    Args:
        coverage: Part of the image under a layer of cloud, thin cloud included; haze covers all regardless.
        thickness: Greatest optical thickness of a layer, thin to thick.
        slope: Fall of the noise's power with frequency, ``1 / f**slope``; less is rougher.
        scale: Size of the largest structures, px.
        softness: Width of a crisp edge, in standard deviations of the field.
        finest: Size below which structures fade, px: what the sensor, or the cloud, smooths away.
        clear: Probability of no cloud at all.
        aside: Probability of no cloud in the image, but the shadow of one outside.
        second: Probability of a second layer above the first.
        types: Weight of each kind of cloud, by its name in ``TYPES``.
        transmission: Factor ``k_b`` of the optical thickness by band; others get 0.9.
        skylight: Part of a band's light that comes from the sky, so remains in the deepest shadow.
        shadow_strength: Part of the direct light that the densest cloud takes.
        shadow_offset: How far shadows fall, px.
        brightness: Light of a thick cloud over the image's robust white point.
        brightness_bounds: What the brightness is held to, in [0, 1], with room for texture on both sides.
        tint: Most that the bluest band's cloud light differs from white.
        beyond: Light of cloud in a band outside the visible ones over its light in those; half of the images
            have the same in such a band.
        thin_light: Light of the thinnest cloud as a part of the brightest's. The thinnest clouds of a layer
            are then greyer than white roofs and darken them. A cloud that absorbs nothing hardly does:
            by the adding method, ``R + (1 - R)^2 g / (1 - R g)`` over ground ``g``, this would be about 0.88.

    Raises:
        ValueError: A range is reversed or leaves its bounds, or no kind of cloud has any weight.
    """

    coverage: Range = (0.05, 1.0)
    thickness: Range = (0.25, 12.0)
    slope: Range = (2.7, 4.2)
    scale: Range = (20.0, 400.0)
    softness: Range = (0.25, 1.1)
    finest: Range = (0.5, 6.0)
    clear: float = 0.08
    aside: float = 0.05
    second: float = 0.25
    types: Mapping[str, float] = field(default_factory=_types)
    transmission: Mapping[str, float] = field(default_factory=_transmission)
    skylight: Mapping[str, float] = field(default_factory=_skylight)
    shadow_strength: Range = (0.5, 0.95)
    shadow_offset: Range = (4.0, 64.0)
    brightness: Range = (1.2, 2.0)
    brightness_bounds: Range = (0.75, 0.97)
    tint: float = 0.02
    beyond: Range = (1.0, 1.0)
    thin_light: float = 0.64

    def __post_init__(self) -> None:
        check_rising(self, _BOUNDS)
        for name in ("clear", "aside", "second", "tint", "thin_light"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name):g}")
        if self.clear + self.aside > 1:
            raise ValueError(
                f"clear and aside must not exceed 1 together, got {self.clear:g} and {self.aside:g}"
            )
        if unknown := set(self.types) - set(TYPES):
            raise ValueError(f"types must be of {', '.join(TYPES)}, got {', '.join(sorted(unknown))}")
        if not all(0 <= weight <= 1e6 for weight in self.types.values()) or not any(self.types.values()):
            raise ValueError(
                f"types must have weights from 0 to 1e6, one of them above 0, got {dict(self.types)}"
            )
        if not all(0 <= factor <= 100 for factor in self.transmission.values()):
            raise ValueError(f"transmission must have factors from 0 to 100, got {dict(self.transmission)}")
        if not all(0 <= part <= 1 for part in self.skylight.values()):
            raise ValueError(f"skylight must have parts in [0, 1], got {dict(self.skylight)}")


_BOUNDS: Mapping[str, Range] = {
    "coverage": (0.0, 1.0),
    "thickness": (0.01, 1000.0),
    "slope": (1.0, 100.0),
    "scale": (1.0, 1e5),
    "softness": (0.01, 1000.0),
    "finest": (0.01, 1e5),
    "shadow_strength": (0.0, 1.0),
    "shadow_offset": (0.1, 4096.0),
    "brightness": (0.0, 100.0),
    "brightness_bounds": (0.0, 1.0),
    "beyond": (0.0, 2.0),
}


@dataclass(frozen=True)
class SimulatedCloud:
    """A cloudy image and the truth about it.

    Args:
        cloudy: Image under cloud, ``(C, H, W)`` in [-1, 1].
        opacity: ``1 - exp(-tau)`` of the reference band (factor 1), ``(H, W)`` in [0, 1].
        shadow: Loss of direct light on the ground, ``(H, W)`` in [0, 1].
        mask: 0 clear, 1 cloud, 2 shadow, 3 thin cloud, ``(H, W)``.
    """

    cloudy: Float
    opacity: Float
    shadow: Float
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class _Layer:
    """One layer over the image: thickness, light of its top, and what light it takes from the ground."""

    tau: Float
    light: Float
    shadow: Float
    colour: float


def veil(light: Float, tau: Float, factor: float, cloud: Float | float) -> Float:
    """Mix light of ground and cloud, ``(H, W)`` each: ``L * T + A * (1 - T)``, ``T = exp(-tau * factor)``."""
    through = np.exp(tau * np.float32(-factor))
    return np.asarray(cloud + (light - cloud) * through, dtype=np.float32)


def classify(opacity: Float, shadow: Float) -> NDArray[np.uint8]:
    """Classify pixels ``(H, W)`` as 0 clear, 1 cloud, 2 shadow, 3 thin cloud.

    Cloud hides a shadow below it.
    """
    mask = np.where(shadow >= SHADOW_DEPTH, np.uint8(SHADOW), np.uint8(CLEAR))
    mask[opacity >= THIN_OPACITY] = THIN
    mask[opacity >= CLOUD_OPACITY] = CLOUD
    return mask


def simulate(
    clear: Float, bands: tuple[str, ...], rng: np.random.Generator, recipe: CloudRecipe | None = None
) -> SimulatedCloud:
    """Draw clouds and their shadows over a clear image.

    Args:
        clear: Clear image, ``(C, H, W)`` float32 in [-1, 1], any H and W from 1.
        bands: Name of each channel, as ``("red", "green", "blue", "nir")``.
        rng: All randomness comes from here.
        recipe: What clouds to draw.

    Raises:
        ValueError: ``clear`` is not ``(C, H, W)`` with a channel per band.
    """
    if clear.ndim != 3 or clear.shape[0] != len(bands) or clear.size == 0:
        raise ValueError(
            f"clear must be (C, H, W) with a channel for each of {bands}, got shape {clear.shape}"
        )
    recipe = CloudRecipe() if recipe is None else recipe
    shape = (clear.shape[1], clear.shape[2])
    draw = rng.random() - recipe.clear
    layers = _draw_layers(shape, rng, recipe, aside=draw < recipe.aside) if draw >= 0 else []
    return _compose(np.array(clear, dtype=np.float32), bands, layers, rng, recipe)


def _draw_layers(
    shape: tuple[int, int], rng: np.random.Generator, recipe: CloudRecipe, aside: bool
) -> list[_Layer]:
    """Draw one or two layers, thickest first, under one sun."""
    types = [TYPES[name] for name in recipe.types]
    weights = np.array([*recipe.types.values()]) * [kind.casts or not aside for kind in types]
    if not weights.any():
        return []
    count = 1 if aside else 1 + int(rng.random() < recipe.second)
    chosen = [types[i] for i in rng.choice(len(types), size=count, p=weights / weights.sum())]
    chosen.sort(key=lambda kind: sum(kind.thickness), reverse=True)

    reach = between(recipe.shadow_offset, rng.uniform(0.5 * aside, 1))
    angle = rng.uniform(0, 2 * math.pi)
    offset = (round(reach * math.sin(angle)), round(reach * math.cos(angle)))
    wide = Canvas(shape, offset, blur=1 + int(0.06 * reach))
    near = Canvas(shape, (0, 0), blur=0)
    return [_draw_layer(kind, wide if kind.casts else near, rng, recipe, aside) for kind in chosen]


def _draw_layer(
    kind: CloudType, canvas: Canvas, rng: np.random.Generator, recipe: CloudRecipe, aside: bool
) -> _Layer:
    """Draw one layer: its thickness, its light and its shadow, ``(H, W)`` of the image each."""
    low, high = recipe.slope
    spectrum = Spectrum(
        scale=between(recipe.scale, rng.uniform(*kind.scale)),
        slope=low + (high - low) * rng.uniform(*kind.slope),
        stretch=rng.uniform(*kind.stretch),
        angle=rng.uniform(0, math.pi),
        finest=between(recipe.finest, rng.random()),
    )
    height = _height(kind, canvas, spectrum, rng)
    peak = between(recipe.thickness, rng.uniform(*kind.thickness))
    softness = rng.uniform(*recipe.softness) * kind.softness
    coverage = rng.uniform(*recipe.coverage)
    if kind.floor:
        tau = np.float32(peak) * (1 - np.float32((1 - kind.floor) / 2) * (1 - np.tanh(height)))
    elif aside:
        tau = _thickness(height + canvas.outside(), peak, softness)
        canvas.crop(tau)[:] = 0
    else:
        # begin where the covered part is thin cloud; what is thinner still lies around it
        thin = min(-math.log1p(-THIN_OPACITY) / peak, 0.5)
        begin = quantile(canvas.crop(height), 1 - coverage) - softness * (thin / (1 - thin)) ** (2 / 3)
        tau = _thickness(height - np.float32(begin), peak, softness)
    tau = _texture(tau, kind, canvas, spectrum, rng)
    shadow = _cast(tau, canvas, rng.uniform(*recipe.shadow_strength) * kind.casts)
    light = _tops(tau, canvas, recipe.thin_light, kind.relief * rng.uniform(0.4, 1.0))
    return _Layer(canvas.crop(tau), light, shadow, rng.uniform(*kind.colour))


def _thickness(rise: Float, peak: float, softness: float) -> Float:
    """Return ``peak * u / (1 + u)``, ``u = (rise / softness) ** 1.5``, ``(H, W)``: wispy rim, flat middle."""
    part = np.maximum(rise, 0) / np.float32(softness)
    part *= np.sqrt(part)
    return np.asarray(part / (1 + part) * np.float32(peak), dtype=np.float32)


def _texture(
    tau: Float, kind: CloudType, canvas: Canvas, spectrum: Spectrum, rng: np.random.Generator
) -> Float:
    """Add wisps to a thickness ``(H, W)`` of the canvas, and bend it as wind does."""
    scale = spectrum.scale
    if kind.wisps:
        wisps = replace(spectrum, scale=scale / 3, slope=3.2, stretch=rng.uniform(*kind.combed))
        tau = tau * np.exp(np.float32(kind.wisps) * wisps.draw(canvas.span, rng))
    if kind.swirl:
        bends = Spectrum(scale=2 * scale, slope=5.0)
        tau = bend(tau, bends.draw(canvas.span, rng), bends.draw(canvas.span, rng), kind.swirl * scale)
    tau[tau < LEAST] = 0
    return tau


def _height(kind: CloudType, canvas: Canvas, spectrum: Spectrum, rng: np.random.Generator) -> Float:
    """Draw the field that is cloud where it is high, ``(H, W)`` of the canvas."""
    height = spectrum.draw(canvas.span, rng)
    scale = spectrum.scale
    if kind.billow:
        size = max(kind.lobes * scale, 8.0)
        lobes = Spectrum(scale=size, slope=spectrum.slope + 0.6, finest=spectrum.finest)
        fold = np.sqrt(lobes.draw(canvas.span, rng) ** 2 + np.float32(0.1))
        height += np.float32(kind.billow) * (fold - np.float32(0.88))
    # structures larger than the canvas show as a slope across it
    angle = rng.uniform(0, 2 * math.pi)
    tilt(height, (math.sin(angle), math.cos(angle)), rng.uniform(0, 2) * scale / (scale + max(canvas.shape)))
    return height


def _cast(tau: Float, canvas: Canvas, strength: float) -> Float:
    """Return the share of direct light that the ground loses to a layer, soft at the edge, ``(H, W)``."""
    if not strength:
        return np.zeros(canvas.shape, np.float32)
    absorbed = 1 - np.exp(-canvas.crop(tau, shifted=True, margin=canvas.margin))
    for _ in range(2):
        absorbed = ndimage.uniform_filter(absorbed, 2 * canvas.blur + 1)
    margin = canvas.margin
    shadow = absorbed[margin:-margin, margin:-margin] * np.float32(strength)
    shadow[shadow < LEAST] = 0
    return shadow


def _tops(tau: Float, canvas: Canvas, thin: float, relief: float) -> Float:
    """Return a layer's light over the brightest cloud's, ``(H, W)``: more where thick and towards the sun."""
    around = canvas.crop(tau, margin=1)
    bright = around / (np.float32(4) + around)
    light = np.float32(thin) + np.float32(1 - thin) * bright[1:-1, 1:-1]
    if relief:
        down, right = canvas.downsun
        fall = np.float32(down) * (bright[:-2, 1:-1] - bright[2:, 1:-1])
        fall += np.float32(right) * (bright[1:-1, :-2] - bright[1:-1, 2:])
        fall = ndimage.uniform_filter(fall, 5)
        spread = max(float(fall.std()), 0.04)  # no relief on a flat top
        light *= 1 - np.float32(relief) * np.tanh(fall / np.float32(1.5 * spread))
    return np.asarray(np.minimum(light, 1), dtype=np.float32)


def _compose(
    clear: Float,
    bands: tuple[str, ...],
    layers: list[_Layer],
    rng: np.random.Generator,
    recipe: CloudRecipe,
) -> SimulatedCloud:
    """Compose the ground under shadow, then each layer over it, band by band.

    Other pixels stay.
    """
    white = _white(clear, rng, recipe)
    tint = recipe.tint * rng.uniform(-1, 1)
    tau = np.zeros(clear.shape[1:], np.float32)
    direct = np.ones(clear.shape[1:], np.float32)
    for layer in layers:
        tau += layer.tau
        direct *= 1 - layer.shadow
    shadow = 1 - direct
    cloudy = clear.copy()
    touched = (tau > 0) | (shadow > 0)
    for index, band in enumerate(bands):
        factor = recipe.transmission.get(band, OTHER_BAND)
        sky = recipe.skylight.get(band, OTHER_SKYLIGHT)
        light = (clear[index] + 1) * np.float32(0.5)
        light *= 1 - shadow * np.float32(1 - sky)
        # factors run with wavelength, so this is a warm or a cool white
        shade = (1 + tint * (2 * factor - 1)) * light_beyond(rng, band, recipe.beyond)
        paint = np.float32(min(white * shade, 1.0))
        for layer in layers:
            light = veil(light, layer.tau, factor**layer.colour, layer.light * paint)
        np.copyto(cloudy[index], np.clip(light * 2 - 1, -1, 1), where=touched)
    opacity = 1 - np.exp(-tau)
    return SimulatedCloud(cloudy, opacity, shadow, classify(opacity, shadow))


def _white(clear: Float, rng: np.random.Generator, recipe: CloudRecipe) -> float:
    """Draw the brightest cloud's light: the image's 98th percentile times a factor, within bounds."""
    point = (quantile(clear.max(axis=0), 0.98) + 1) / 2
    return float(np.clip(point * rng.uniform(*recipe.brightness), *recipe.brightness_bounds))
