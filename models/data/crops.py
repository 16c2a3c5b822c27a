"""Change a crop, in the same way in all its images: cut it out, change its light, turn it.

Every draw is of the generator that is given, in the order of the code: another order would be other batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decr_scene.models.arrays import Float
from decr_scene.models.data.resize import resize
from decr_scene.models.errors import TrainingError

SIDES = 32
"""Sides of an image are multiples of this, px: networks halve it up to five times."""


def cut(rng: np.random.Generator, images: Sequence[Float], size: int) -> list[Float]:
    """Cut the same square of ``size`` px at a drawn place from each image ``(C, H, W)``.

    Raises:
        TrainingError: The images are smaller than that.
    """
    height, width = images[0].shape[1:]
    if height < size or width < size:
        raise TrainingError(f"an image of {height} x {width} px is smaller than the crop of {size} px")
    row, col = rng.integers(height - size + 1), rng.integers(width - size + 1)
    return [image[:, row : row + size, col : col + size] for image in images]


def cut_to_multiple(image: Float) -> Float:
    """Cut an image ``(C, H, W)`` to sides that are multiples of `SIDES` px, as every network takes them."""
    height, width = (side // SIDES * SIDES for side in image.shape[1:])
    return image[:, :height, :width]


def enlarged(image: Float, size: int) -> Float:
    """Resize a square image ``(C, H, H)`` to ``size`` px a side, clipped to [-1, 1]."""
    larger = resize(image, size / image.shape[1])[:, :size, :size]  # rounding may make it a px too large
    return np.clip(larger, -1, 1)


@dataclass(frozen=True)
class LightChange:
    """How another day and another sensor would have shown the same images; of light ``L = (x + 1) / 2``.

    Args:
        gain: Factor of each band, ``(C, 1, 1)``.
        power: Exponent, the tone curve.
        haze: Even haze of each band, ``h + (1 - h) L``, ``(C, 1, 1)``.
        offset: Added to the light of each band after the gain, ``(C, 1, 1)``; ``None``: nothing.
    """

    gain: Float
    power: float
    haze: Float
    offset: Float | None = None

    def apply(self, image: Float) -> Float:
        """Show the image ``(C, H, W)`` so, clipped to [-1, 1] as a sensor of that range would."""
        level = np.float32(1) if self.offset is None else 1 - 2 * self.offset
        shown = np.clip((image + 1) * self.gain - level, -1, 1)
        if self.power != 1:
            shown = 2 * ((shown + 1) / 2) ** np.float32(self.power) - 1
        return 1 - (1 - shown) * (1 - self.haze) if self.haze.any() else shown


UNCHANGED = LightChange(np.ones((1, 1, 1), np.float32), 1.0, np.zeros((1, 1, 1), np.float32))
"""As it is."""


def compressed(image: Float, quality: int) -> Float:
    """Return an image ``(C, H, W)`` in [-1, 1] as a JPEG of that quality gives it back.

    The first three bands are one picture, as a delivery of natural colour is; every further band is grey.
    """
    levels = np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)
    parts = [levels[2::-1], *levels[3:]] if len(levels) >= 3 else [*levels]
    pictures = [_through_jpeg(part, quality) for part in parts]
    if len(levels) >= 3:
        pictures[0] = pictures[0][::-1]
    bands = np.concatenate([part.reshape(-1, *image.shape[1:]) for part in pictures])
    result: Float = bands.astype(np.float32) / np.float32(127.5) - 1
    return result


def _through_jpeg(levels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Write and read a picture, ``(3, H, W)`` or ``(H, W)``, as a JPEG."""
    memory = BytesIO()
    Image.fromarray(np.moveaxis(levels, 0, -1) if levels.ndim == 3 else levels).save(
        memory, "JPEG", quality=quality, subsampling=0
    )
    picture: NDArray[np.uint8] = np.asarray(Image.open(memory))
    return np.moveaxis(picture, -1, 0) if levels.ndim == 3 else picture


def turn(rng: np.random.Generator, *images: Float) -> tuple[Float, Float]:
    """Turn both images ``(C, H, W)`` by a drawn number of quarters, and maybe mirror them."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    turned = (np.rot90(image, quarter, axes=(1, 2)) for image in images)
    cloudy, clear = (np.ascontiguousarray(t[..., ::-1] if flip else t) for t in turned)
    return cloudy, clear


def area_reduced(image: Float, factor: int) -> Float:
    """Average ``factor`` x ``factor`` pixels of ``(C, H, W)``.

    What does not fill a block is cut.
    """
    if factor == 1:
        return image
    bands, height, width = image.shape
    height, width = height // factor * factor, width // factor * factor
    blocks = image[:, :height, :width].reshape(bands, height // factor, factor, width // factor, factor)
    reduced: Float = blocks.mean(axis=(2, 4), dtype=np.float32)
    return reduced
