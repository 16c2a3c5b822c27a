"""Veils: thin cloud or haze that is even, or changes slowly, over the whole of an image.

Most cloud in real images with pixels of half a metre is of this kind. Over light ``L = (x + 1) / 2``, which
is blurred a little because the veil scatters light sideways::

    L_veiled = L * T_b + A_b * (1 - T_b)        T_b = exp(-tau * k_b)

with a neutral ``A``. The truth is the ground without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from decr_scene.models.arrays import Float
from decr_scene.models.clouds.fields import Spectrum, between
from decr_scene.models.clouds.types import Range, light_beyond
from decr_scene.models.value_types import check_rising

OTHER_BAND = (0.9, 1.0)
"""Range of the factor ``k_b`` of a band that the recipe does not name."""


def _transmission() -> dict[str, Range]:
    visible = (0.95, 1.05)
    return {"blue": (1.0, 1.1), "green": visible, "red": (0.9, 1.0), "nir": (0.65, 1.0), "swir": (0.3, 0.8)}


@dataclass(frozen=True)
class VeilRecipe:
    """What veils to draw; pairs are ``(least, most)`` of a range that each image draws from.

    Args:
        thickness: Optical thickness, mean over the image.
        uneven: Spread of the thickness over the image, as a power of e.
        scale: Size of its largest structures, px.
        fine: Share of the veils that also have structures of `fine_scale`.
        fine_scale: Size of those, px.
        light: Light of the veil, of white.
        tint: Most that a band's light differs from the veil's.
        beyond: Light of the veil in a band outside the visible ones over its light in those; half of the
            veils have the same in such a band.
        blur: Standard deviation of the ground's blur, px; half of the veils have none.
        transmission: Range of the factor ``k_b`` of the optical thickness by band.
        colour: Power applied to those: 0 for the large drops of cloud, which dim all bands alike, 1 for haze.

    Raises:
        ValueError: A range is reversed or leaves its bounds.
    """

    thickness: Range = (0.05, 1.9)
    uneven: Range = (0.0, 0.5)
    scale: Range = (60.0, 1500.0)
    fine: float = 0.33
    fine_scale: Range = (8.0, 48.0)
    light: Range = (0.4, 0.9)
    tint: float = 0.012
    beyond: Range = (1.0, 1.0)
    blur: Range = (0.3, 0.9)
    transmission: Mapping[str, Range] = field(default_factory=_transmission)
    colour: Range = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_rising(self, _BOUNDS)
        for name in ("fine", "tint"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name):g}")
        for band, (low, high) in self.transmission.items():
            if not 0 <= low <= high <= 100:
                raise ValueError(f"transmission of {band} must rise within [0, 100], got ({low:g}, {high:g})")


_BOUNDS: Mapping[str, Range] = {
    "thickness": (0.0, 10.0),
    "uneven": (0.0, 2.0),
    "scale": (0.1, 1e5),
    "fine_scale": (0.1, 1e5),
    "light": (0.0, 1.0),
    "beyond": (0.0, 2.0),
    "blur": (0.0, 100.0),
    "colour": (0.0, 2.0),
}


@dataclass(frozen=True)
class Veiled:
    """An image under a veil.

    Args:
        image: ``(C, H, W)`` in [-1, 1].
        opacity: ``1 - exp(-tau)``, ``(H, W)`` in [0, 1].
    """

    image: Float
    opacity: Float


def veiled(clear: Float, bands: tuple[str, ...], rng: np.random.Generator, recipe: VeilRecipe) -> Veiled:
    """Draw a veil over a clear image ``(C, H, W)`` in [-1, 1] whose channels are ``bands``."""
    shape = (clear.shape[1], clear.shape[2])
    tau = rng.uniform(*recipe.thickness) * np.exp(rng.uniform(*recipe.uneven) * _field(shape, rng, recipe))
    light = rng.uniform(*recipe.light)
    colour = rng.uniform(*recipe.colour) if recipe.colour != (1.0, 1.0) else 1.0
    ground = (clear + 1) * np.float32(0.5)
    if rng.random() < 0.5:
        sigma = rng.uniform(*recipe.blur)
        ground = ndimage.gaussian_filter(ground, (0, sigma, sigma))
    image = np.empty_like(clear)
    for index, band in enumerate(bands):
        factor = rng.uniform(*recipe.transmission.get(band, OTHER_BAND)) ** colour
        through = np.exp(-tau * np.float32(factor))
        paint = np.float32(light + rng.uniform(-recipe.tint, recipe.tint))
        paint *= np.float32(light_beyond(rng, band, recipe.beyond))
        image[index] = 2 * (paint + (ground[index] - paint) * through) - 1
    opacity: Float = (1 - np.exp(-tau)).astype(np.float32)
    return Veiled(np.clip(image, -1, 1), opacity)


def _field(shape: tuple[int, int], rng: np.random.Generator, recipe: VeilRecipe) -> Float:
    """Draw a smooth field ``(H, W)`` of unit spread.

    Structures larger than the image are a slope.
    """
    scale = between(recipe.scale, rng.random())
    drawn = (
        Spectrum(scale=scale, slope=5.0).draw(shape, rng)
        if scale < 4 * max(shape)
        else np.zeros(shape, np.float32)
    )
    rows, cols = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.float32(np.sin(angle)) * rows[:, None] + np.float32(np.cos(angle)) * cols[None, :]
    total = drawn + np.float32(2 * scale / (scale + max(shape))) * slope
    if rng.random() < recipe.fine:
        fine = Spectrum(scale=between(recipe.fine_scale, rng.random()), slope=4.0)
        total = total + np.float32(rng.uniform(0.2, 0.6)) * fine.draw(shape, rng)
    result: Float = (total / max(float(total.std()), 1.0)).astype(np.float32)
    return result
