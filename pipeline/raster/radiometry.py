"""Convert digital numbers to [-1, 1] for the models and back, here and nowhere else.

One map per band for the whole scene, ``x = 2 (DN - low) / (high - low) - 1``: 0 to 255 for pictures of 8
bits, as in the published work, else robust limits of the valid pixels. Coarse scenes, in which cloud is far
brighter than the ground, may be curved: ``x = 2 (u^g - l^g) / (h^g - l^g) - 1`` of all three above black. A
network's answer comes back as a *change* that is added to the input, so that unchanged pixels keep their
digital numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.pipeline.raster.nodata import off_nodata

Doubles = NDArray[np.float64]

STRIP = 1 << 17
"""Pixels of a band at a time: few enough for the processor's cache, enough that threads need no turns."""

GAMMA = 0.7
"""Exponent of scenes that are curved."""

DARKEST = 0.02
"""How far black is below the darkest band, a part of the scale: nothing on the ground is quite black."""

FLAT = 1e-3
"""Least spread of a band, a part of the greatest, beside which a curve is known."""

SATURATED = 249.5
"""What is above it is saturated in 8 bits: compression leaves 250 of 255."""

MIN_CHANGE = 1e-6
"""Least change, of a range of 2, that is applied."""


@dataclass(frozen=True)
class Radiometry:
    """The map of a scene.

    Args:
        low: DN that becomes -1, one a band.
        high: DN that becomes 1, one a band.
        gamma: Exponent of what is above black; 1: the map is affine.
        black: DN that the curve begins at, in all bands, below all of ``low``; without a curve it is unused.
        of_bytes: It was fitted to 8 bits, rather than taken for a picture's.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    gamma: float = 1.0
    black: float = 0.0
    of_bytes: bool = False

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"a scaling needs one low and one high a band, got {self.low} and {self.high}")
        if not all(np.isfinite(a) and np.isfinite(b) and a < b for a, b in self._limits()):
            raise ValueError(f"a scaling needs finite low < high in every band, got {self.low}, {self.high}")
        if not 0 < self.gamma <= 1 or (self.gamma < 1 and not self.black < min(self.low)):
            raise ValueError(
                f"a curve needs a gamma in (0, 1] and black below {min(self.low):g}, got {self.gamma:g} and "
                f"{self.black:g}"
            )

    def of_bands(self, places: Sequence[int]) -> Radiometry:
        """Return the map of some of the bands, named by their places among all, from 0."""
        low, high = (tuple(limits[i] for i in places) for limits in (self.low, self.high))
        return replace(self, low=low, high=high)

    def curved(self) -> Radiometry:
        """Return the map with the curve for scenes in which the ground is dark beside the cloud.

        Where a band has next to no spread, as if it were missing, it says nothing of black: then the map
        stays as it is.
        """
        spans = np.subtract(self.high, self.low)
        if spans.min() < FLAT * spans.max():
            return self
        darkest = min(self.low)
        return replace(self, gamma=GAMMA, black=darkest - DARKEST * (max(self.high) - darkest))

    def saturated(self, image: Float, bands: Sequence[int]) -> Bool:
        """Tell where all of some bands of a scaled image ``(C, h, w)`` are saturated, ``(h, w)``.

        Nowhere, unless the map was fitted to 8 bits.
        """
        if not self.of_bytes:
            return np.zeros(image.shape[1:], np.bool_)
        least = self.to_model(np.full((len(self.low), 1, 1), SATURATED, np.float32))
        return np.asarray((image > least)[list(bands)].all(axis=0))

    def to_model(self, dn: Pixels, valid: Bool | None = None) -> Float:
        """Scale ``(C, H, W)`` DN to [-1, 1], clipped.

        Invalid pixels are filled from valid ones.
        """
        with np.errstate(invalid="ignore", over="ignore"):  # what is invalid is filled below
            x = dn.astype(np.float32)
            if self.gamma < 1:
                x -= np.float32(self.black)
                x = np.power(np.maximum(x, 0, out=x), np.float32(self.gamma), out=x)
            low, span = self._ends
            x -= low
            x *= 2
            x /= span
            x -= 1
        if valid is not None and not valid.all():
            x = fill_invalid(x, valid)
        return np.clip(x, -1, 1, out=x)

    def apply(
        self, dn: Pixels, change: Float, valid: Bool | None = None, nodata: float | None = None
    ) -> Pixels:
        """Add a change on the [-1, 1] scale to digital numbers.

        Args:
            dn: ``(C, H, W)`` input.
            change: ``(C, H, W)``; one smaller than `MIN_CHANGE` is none.
            valid: Pixels that are neither nodata nor masked; the others stay as they are.
            nodata: A value that no valid pixel may have; it becomes the next one.

        Returns:
            ``(C, H, W)`` of ``dn``'s dtype, rounded, saturated to the dtype; pixels without a change,
            or whose result a floating-point dtype cannot hold, keep the bits of ``dn``.
        """
        strong = np.abs(change)
        changed = strong > MIN_CHANGE
        if valid is not None:
            changed &= valid
        if not changed.any():
            return dn
        result = dn.copy()
        rows = max(1, STRIP // max(1, dn.shape[2]))
        for band in range(len(dn)):
            for first in range(0, dn.shape[1], rows):
                strip = band, slice(first, first + rows)
                if (here := changed[strip]).any():
                    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite keeps its bits
                        restored = self._restored(band, dn[strip], change[strip], strong[strip])
                        restored = off_nodata(restored, nodata)
                    if dn.dtype.kind == "f":
                        here = here & np.isfinite(restored)
                    np.copyto(result[strip], restored, where=here)
        return result

    def deviation(self, variance: Float, dn: Pixels) -> Float:
        """Return the standard deviation in DN, root mean square of the bands.

        Args:
            variance: ``(C, H, W)`` on the [-1, 1] scale.
            dn: What it is the variance of, same shape: a curve is steep where that is dark.

        Returns:
            ``(1, H, W)``.
        """
        slope = self._ends[1] / 2
        if self.gamma < 1:
            above = np.clip(dn, self._low, self._low + self._span) - np.float32(self.black)
            slope = slope / self.gamma * above ** (1 - self.gamma)
        squares = np.mean(variance * np.square(slope), axis=0, keepdims=True).astype(np.float32)
        return np.sqrt(squares)

    def _restored(self, band: int, dn: Pixels, change: Float, strong: Float) -> Pixels:
        """Return some rows of a band with their change, ``(h, w)``.

        DN beyond the limits are part of the cloud where the network changes the pixel, else left alone.
        """
        low, span = self._low[band], self._span[band]
        before = dn.astype(np.float64)
        if self.gamma < 1:
            return _cast(self._restored_by_curve(band, before, change, strong), dn.dtype)
        if dn.min() >= low and dn.max() <= low + span:  # neither is true of NaN
            before += change * (span / 2)
        else:
            excess = before - np.clip(before, low, low + span)
            before += change * (span / 2)
            excess *= np.clip(strong / 0.1, 0, 1)
            before -= excess
        return _cast(before, dn.dtype)

    def _restored_by_curve(self, band: int, before: Doubles, change: Float, strong: Float) -> Doubles:
        """Return rows as `_restored` does, where the map is curved; a change ends at black."""
        inside = np.clip(before, self.low[band], self.high[band])
        excess = before - inside
        curved = (inside - self.black) ** self.gamma + change * (self._ends[1][band] / 2)
        after = self.black + np.maximum(curved, 0) ** (1 / self.gamma)
        return np.asarray(after + excess * (1 - np.clip(strong / 0.1, 0, 1)))

    @property
    def _ends(self) -> tuple[Float, Float]:
        """Return what becomes -1, and its distance from what becomes 1, ``(C, 1, 1)`` each, on the curve."""
        if self.gamma == 1:
            return self._low, self._span
        low, high = ((np.array(ends) - self.black) ** self.gamma for ends in (self.low, self.high))
        return low.astype(np.float32)[:, None, None], (high - low).astype(np.float32)[:, None, None]

    def _limits(self) -> list[tuple[float, float]]:
        return list(zip(self.low, self.high, strict=True))

    @property
    def _low(self) -> Float:
        return np.asarray(self.low, np.float32)[:, None, None]

    @property
    def _span(self) -> Float:
        return (np.asarray(self.high, np.float32) - np.asarray(self.low, np.float32))[:, None, None]


def fill_invalid(x: Float, valid: Bool) -> Float:
    """Give every invalid pixel ``(C, H, W)`` the nearest valid value of its band, or 0 where there is none.

    So a network gets no NaN or nodata, and no step at the border of the valid area.
    """
    from scipy.ndimage import distance_transform_edt

    filled = np.where(valid, x, np.float32(0))
    for band in range(len(x)):
        if valid[band].any() and not valid[band].all():
            nearest = distance_transform_edt(~valid[band], return_distances=False, return_indices=True)
            filled[band] = filled[band][tuple(nearest)]
    return filled


def _cast(value: NDArray[np.float64], dtype: np.dtype[Any]) -> Pixels:
    if dtype.kind == "f":
        return value.astype(dtype)
    info = np.iinfo(dtype)
    np.rint(value, out=value)
    np.clip(value, info.min, info.max, out=value)
    if np.isnan(value.min()):
        value[np.isnan(value)] = 0
    return value.astype(dtype)
