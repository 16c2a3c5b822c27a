"""Wrap detectors as lookouts: a model's own, `ukis-csmask`, or a mask of the user's instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.coarse import Sight
from decr_scene.pipeline.look.reflectance import Reflectance
from decr_scene.pipeline.raster.radiometry import Radiometry, fill_invalid
from decr_scene.pipeline.regions.masks import bare_told
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import place_noise

if TYPE_CHECKING:
    from decr_scene.models.networks.detector import Detector

RESTORE, CLOUD, SHADOW = range(3)
"""Bands of an answer, each a probability: cloud or shadow, which is to be restored; cloud; shadow. Then, of
`ukis-csmask` alone, that of `masks.BARE`."""

BARE_RATIO = (1.2, 1.5)
"""Near infrared over red, of reflectance: of snow, sand and rock at most; of plants under a veil at least."""

BARE_LIGHT = (2.0, 3.0)
"""Visible light over that of a scene's dark ground: of bare ground at most, and of cloud at least."""

TEXTURE, TEXTURE_SIGMA = 0.05, 3.0
"""Standard deviation of the texture of cloud, reflectance, and that of the Gaussian that smooths it, px."""

LEAST_SEEN = 0.02
"""Least part of a connected place that is saturated which must look like cloud for all of it to be some."""

STRIP = 256
"""Side of the windows that a model's detector answers for at a time, coarse pixels; a multiple of 8."""


class Lookout(Protocol):
    """A detector of cloud and shadow.

    ``own`` is the side of the windows that it answers for, ``reach`` the margin that it needs around each, in
    coarse pixels; a scene of no more than ``whole`` a side is one window. The answers of one that ``blends``
    depend on its whole window, and cover all of it. They have so many ``bands``. One that knows cloud by its
    rims has the ``insides`` of larger ones found by what they look like as a whole.
    """

    bands: int
    own: int
    reach: int
    whole: int
    blends: bool
    insides: bool
    sight: Sight | None

    def answers(self, windows: Sequence[tuple[Float, Bool]]) -> list[Float]:
        """Return probabilities ``(bands, h, w)`` of each window ``(D, h, w)``, which has valid pixels."""
        ...


class ModelLookout:
    """The detector of a model file; its input is that of the restorer, unless there is a ``sight``."""

    bands = 3
    whole = 0
    blends = False
    insides = True

    def __init__(self, detector: Detector, sight: Sight | None = None) -> None:
        from decr_scene.models.networks.detector import REACH

        self.detector = detector
        self.own, self.reach = STRIP, REACH
        self.sight = sight

    def answers(self, windows: Sequence[tuple[Float, Bool]]) -> list[Float]:
        """Answer one window after the other, ``(3, h, w)`` each."""
        return [self._answer(_filled(*window)) for window in windows]

    def _answer(self, image: Float) -> Float:
        import torch

        device = next((p.device for p in _parameters(self.detector)), torch.device("cpu"))
        tensor = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
        restore, cloud = self.detector.probability(tensor)[0].cpu().numpy()
        return np.stack([restore, cloud, np.clip(restore - cloud, 0, 1)])


class UkisLookout:
    """`ukis-csmask`, whose input is reflectance."""

    bands = 4
    reach = ukis.REACH
    own = ukis.SIDE - 2 * ukis.REACH
    whole = ukis.SIDE
    blends = True
    insides = False

    def __init__(self, reflectance: Reflectance) -> None:
        self.sight: Sight | None = _Reflectances(reflectance)
        self._dark, self._full = reflectance.dark, reflectance.full
        *_, red, nir = reflectance.indexes
        self._tells_bareness = red != nir  # else red stands in for near infrared

    def answers(self, windows: Sequence[tuple[Float, Bool]]) -> list[Float]:
        """Answer some windows at a time, ``(4, h, w)`` each."""
        seen = [_filled(*window) for window in windows]
        full = [self._saturated(reflectance) for reflectance in seen]
        found = ukis.probabilities(seen)
        white = [number for number, saturated in enumerate(full) if saturated.any()]
        shown = ukis.probabilities([self._with_texture(seen[number], full[number]) for number in white])
        for number, probabilities in zip(white, shown, strict=True):
            found[number] = saturated_cloud(found[number], probabilities, full[number])
        return [
            np.stack([1 - p[ukis.CLEAR], p[ukis.CLOUD], p[ukis.SHADOW], self._bare(reflectance)])
            for p, reflectance in zip(found, seen, strict=True)
        ]

    def _saturated(self, reflectance: Float) -> Bool:
        """Tell where all visible bands are saturated, ``(h, w)``."""
        if not self._full:
            return np.zeros(reflectance.shape[1:], np.bool_)
        least = np.array(self._full, np.float32)[:, None, None]
        return np.asarray((reflectance[: len(least)] >= least).all(axis=0))

    def _with_texture(self, reflectance: Float, saturated: Bool) -> Float:
        """Show what is saturated as white cloud with its texture: a field without any is not taken for some.

        So it is in near infrared, too, which a picture may show darker.
        """
        height, width = saturated.shape
        least = np.array([*self._full, np.mean(self._full)], np.float32)[:, None, None]
        white = np.maximum(reflectance, least) + cloud_texture()[:height, :width]
        return np.where(saturated, white, reflectance)

    def _bare(self, reflectance: Float) -> Float:
        bare = bareness(reflectance, self._dark) if self._tells_bareness else np.zeros_like(reflectance[0])
        return bare_told(bare)


def saturated_cloud(plain: Float, textured: Float, saturated: Bool) -> Float:
    """Take what is saturated for cloud where a part of it is, seen as it is or with the texture of cloud.

    A white roof is none, as nothing of it looks like cloud.

    Args:
        plain: Probabilities of clear, cloud and shadow, ``(3, h, w)``, of the image as it is.
        textured: The same of the image in which what is saturated has the texture of cloud.
        saturated: Where that is, ``(h, w)``.

    Returns:
        Probabilities ``(3, h, w)``.
    """
    from scipy.ndimage import label

    found = np.where(plain[ukis.CLOUD] > textured[ukis.CLOUD], plain, textured)
    places, _ = label(saturated)
    sizes = np.bincount(places.ravel())
    seen = np.bincount(places.ravel(), found[ukis.CLOUD].ravel() >= 0.5)
    cloud = saturated & (seen >= LEAST_SEEN * sizes)[places]
    certain = np.zeros((3, 1, 1), np.float32)
    certain[ukis.CLOUD] = 1
    return np.asarray(np.where(cloud, certain, found), np.float32)


@cache
def cloud_texture() -> Float:
    """Return the texture of cloud, reflectance, over one window of `ukis-csmask`."""
    from scipy.ndimage import gaussian_filter

    noise = place_noise(0, 0, 1, Span(0, 0, ukis.SIDE, ukis.SIDE))[0]
    smooth = gaussian_filter(noise, TEXTURE_SIGMA, mode="wrap")
    return np.asarray(TEXTURE * smooth / smooth.std(), np.float32)


def bareness(reflectance: Float, dark: float) -> Float:
    """Tell how bare ground is, ``(h, w)`` in [0, 1]: how little more near infrared than red it gives back.

    So are snow, sand, rock and water. What is far lighter than the scene's dark ground may be cloud.

    Args:
        reflectance: ``(4, h, w)``, the bands of `ukis.BANDS`.
        dark: As of `Reflectance`.
    """
    red, nir = (np.maximum(reflectance[ukis.BANDS.index(name)], 0) for name in ("red", "nir"))
    bare, green = BARE_RATIO
    without_plants = np.clip((green * red - nir) / np.maximum((green - bare) * red, 1e-6), 0, 1)
    ground, cloud = (times * dark for times in BARE_LIGHT)
    lightness = reflectance[:3].mean(axis=0)
    as_dark = np.clip((cloud - lightness) / max(cloud - ground, 1e-6), 0, 1)
    return np.asarray(without_plants * as_dark, np.float32)


class MaskLookout:
    """A mask of the user's, which does not separate shadow from cloud.

    Args:
        cloud: Tells where it is cloud.
        indexes: The bands that are restored, 0-based: a pixel counts where one of them is valid.
    """

    bands = 3
    reach = 0
    own = 256
    whole = 0
    blends = False
    insides = False

    def __init__(self, cloud: Callable[[Span], Bool], indexes: Sequence[int]) -> None:
        def sight(span: Span, pixels: Pixels, valid: Bool) -> tuple[Float, Bool]:
            is_cloud = cloud(span)[None].astype(np.float32)
            return is_cloud, np.asarray(valid[list(indexes)].any(axis=0, keepdims=True))

        self.sight: Sight | None = sight

    def answers(self, windows: Sequence[tuple[Float, Bool]]) -> list[Float]:
        """Answer with the mask, ``(3, h, w)`` each."""
        return [np.concatenate([image, image, np.zeros_like(image)]) for image, _ in windows]


@dataclass(frozen=True)
class ScaledBands:
    """Some bands of a scene in [-1, 1], as a model sees them.

    Args:
        indexes: The bands, 0-based, in the model's order.
        radiometry: Their scaling.
    """

    indexes: tuple[int, ...]
    radiometry: Radiometry

    def __call__(self, span: Span, pixels: Pixels, valid: Bool) -> tuple[Float, Bool]:
        """Scale them."""
        bands = list(self.indexes)
        return self.radiometry.to_model(pixels[bands]), valid[bands]


class _Reflectances:
    def __init__(self, reflectance: Reflectance) -> None:
        self.reflectance = reflectance

    def __call__(self, span: Span, pixels: Pixels, valid: Bool) -> tuple[Float, Bool]:
        return self.reflectance(pixels), valid[list(self.reflectance.indexes)]


def _filled(image: Float, valid: Bool) -> Float:
    return image if valid.all() else fill_invalid(image, valid)


def _parameters(detector: Any) -> Any:
    return iter(getattr(detector, "parameters", tuple)())
