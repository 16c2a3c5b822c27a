"""Convert digital numbers to reflectance, as accurately as a cloud detector needs it.

Where the raster has a scale and an offset that give reflectance, they are used. Else one gain for all
bands is fitted to the scene: its brightest hundredth becomes `BRIGHT`. So digital numbers in another unit
give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decr_scene.models.arrays import Float, Pixels
from decr_scene.pipeline.raster.radiometry import SATURATED
from decr_scene.pipeline.raster.scaling import sample_spans
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.tiling.grid import Span

BRIGHT = 0.4
"""Reflectance, mean of the bands, of the `TAIL` percentile of a scene without a scale."""

DARK = 25
"""Percentile of a scene's visible light that is that of its ground, however much cloud is over the rest."""

FULL = (1.0, *(float(2**bits - 1) for bits in range(8, 17)))
"""Digital numbers of which a sensor, or a picture, has no greater one: there it is saturated. Compression
changes those of 8 bits, whose least is `SATURATED`."""

ROUNDING = 1e-4
"""Part of a number by which float32 may miss it."""

TAIL = 99

PLAUSIBLE = (0.02, 1.2)
"""Range of the `TAIL` percentile of a scene's reflectance in which its scale and offset are used."""


@dataclass(frozen=True)
class Reflectance:
    """An affine map a band: reflectance = gain * DN + offset.

    Args:
        indexes: 0-based positions of the bands, in the detector's order.
        gain: One a band.
        offset: One a band.
        known: From the raster, not fitted.
        dark: Reflectance of the ground, mean of blue, green and red, which are its first bands; 0: not known.
        full: Least reflectance at which the first three bands are saturated; empty: the scene is nowhere so.
    """

    indexes: tuple[int, ...]
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    known: bool = False
    dark: float = 0.0
    full: tuple[float, ...] = ()

    def __call__(self, pixels: Pixels) -> Float:
        """Convert all bands' digital numbers to reflectance, ``(C, h, w)``."""
        chosen = pixels[list(self.indexes)].astype(np.float32)
        gain, offset = (np.asarray(v, np.float32)[:, None, None] for v in (self.gain, self.offset))
        return np.asarray(chosen * gain + offset, np.float32)

    @classmethod
    def of(
        cls,
        indexes: Sequence[int],
        scales: Sequence[float],
        offsets: Sequence[float],
        sample: Float,
    ) -> Reflectance:
        """Use the raster's scale and offset where they are plausible, else fit a gain to the sample.

        Args:
            indexes: The bands, in the detector's order.
            scales: Of all bands of the raster; 1 where it has none. 0 is none, either.
            offsets: The same.
            sample: ``(C, N)`` digital numbers of those bands, valid, averaged to the detector's pixels.
        """
        chosen = tuple(indexes)
        reflectance = cls(
            chosen, tuple(scales[i] for i in chosen), tuple(offsets[i] for i in chosen), known=True
        )
        if any(gain != 1 for gain in reflectance.gain) and all(gain != 0 for gain in reflectance.gain):
            gain, offset = (np.asarray(v)[:, None] for v in (reflectance.gain, reflectance.offset))
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is not plausible
                bright = _bright(sample * gain + offset)
            if PLAUSIBLE[0] <= bright <= PLAUSIBLE[1]:
                return reflectance._with_light(sample)
        bright = _bright(sample)
        gain_of_all = BRIGHT / bright if bright > 0 else 1.0
        return cls(chosen, (gain_of_all,) * len(chosen), (0.0,) * len(chosen))._with_light(sample)

    def _with_light(self, sample: Float) -> Reflectance:
        """Measure the light of the dark ground, and of what is saturated, in a sample of digital numbers."""
        gains, offsets = (np.asarray(v)[:, None] for v in (self.gain, self.offset))
        dark = _dark(sample * gains + offsets)
        saturated = zip(self.gain, _saturation(sample), self.offset, strict=False)
        return replace(self, dark=dark, full=tuple(gain * dn + offset for gain, dn, offset in saturated))


def fit_reflectance(scene: RasterioScene, source: Source, indexes: Sequence[int], factor: int) -> Reflectance:
    """Fit the reflectance of a scene, by a decimated read.

    Args:
        scene: The scene.
        source: Its pixels.
        indexes: The bands that the detector takes, in its order.
        factor: Pixels a side of its coarse ones.
    """
    with scene.dataset() as dataset:
        scales, offsets = dataset.scales, dataset.offsets
    spans = sample_spans(scene.shape)
    return Reflectance.of(indexes, scales, offsets, sample_of([source] * len(spans), spans, indexes, factor))


def sample_of(sources: Sequence[Source], spans: Sequence[Span], indexes: Sequence[int], factor: int) -> Float:
    """Average digital numbers of windows over blocks that are valid in all bands, ``(C, N)``."""
    return np.concatenate(
        [_blocks(source, span, list(indexes), factor) for source, span in zip(sources, spans, strict=True)],
        axis=1,
    )


def _blocks(source: Source, span: Span, indexes: list[int], factor: int) -> Float:
    pixels = source.read(span)
    valid = np.asarray(source.valid(span, pixels)[indexes].all(axis=0))
    valid &= (pixels[indexes] != 0).any(axis=0)  # a border that is not declared
    side = min(factor, *valid.shape)
    height, width = (extent // side * side for extent in valid.shape)
    shape = (height // side, side, width // side, side)
    whole = valid[:height, :width].reshape(shape).all(axis=(1, 3))
    values = pixels[indexes][:, :height, :width].astype(np.float32)
    means = values.reshape(len(indexes), *shape).mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(means[:, whole], np.float32)


def _bright(sample: Float) -> float:
    """Return the `TAIL` percentile, mean of the bands, or 0 of an empty sample."""
    return float(np.percentile(sample, TAIL, axis=1).mean()) if sample.size else 0.0


def _saturation(sample: Float) -> list[float]:
    """Return the least digital numbers that are saturated in the first three bands; none, if one never is."""
    peaks = sample[:3].max(axis=1, initial=0).tolist()
    if SATURATED < min(peaks) <= max(peaks) <= 255:
        return [SATURATED] * len(peaks)
    return [peak * (1 - ROUNDING) for peak in peaks] if set(peaks) <= set(FULL) else []


def _dark(sample: Float) -> float:
    """Return the `DARK` percentile of the mean of the first three bands, or 0 of an empty sample."""
    return float(np.percentile(sample[:3].mean(axis=0), DARK)) if sample.size else 0.0
