"""Draw random fields for clouds: their canvas, spectrum and distortion.

The canvas is larger than the image: nothing wraps round, and there is room for what casts shadows into it.
Nothing here knows what kinds of cloud there are, or what light does in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy import ndimage

from decr_scene.models.arrays import Float

CLUSTER = 12.0
"""Greatest ratio of a group of clouds to its largest cloud."""


@dataclass(frozen=True)
class Canvas:
    """The area that noise is drawn on: the image, what casts shadows into it, and a margin for blurring.

    Args:
        shape: Height and width of the image, px.
        offset: Rows and columns from a cloud to its shadow, px; the same over the scene.
        blur: Radius of a shadow's soft edge, px.
    """

    shape: tuple[int, int]
    offset: tuple[int, int]
    blur: int

    @property
    def margin(self) -> int:
        """Return the room on every side for blurring, px."""
        return 2 * self.blur + 1

    @property
    def span(self) -> tuple[int, int]:
        """Return height and width of the canvas, px."""
        return (
            self.shape[0] + abs(self.offset[0]) + 2 * self.margin,
            self.shape[1] + abs(self.offset[1]) + 2 * self.margin,
        )

    def crop(self, values: Float, shifted: bool = False, margin: int = 0) -> Float:
        """Cut the image's part ``(H, W)`` from a canvas, or the part whose shadow falls on the image."""
        row, col = (self.margin - margin + max(step, 0) - step * shifted for step in self.offset)
        return values[row : row + self.shape[0] + 2 * margin, col : col + self.shape[1] + 2 * margin]

    def outside(self) -> Float:
        """Measure the distance from the image, ``(rows, cols)``: -1 at its edge, 1 where shadows begin."""
        away = []
        for extent, step in zip(self.shape, self.offset, strict=True):
            place = np.arange(extent + abs(step) + 2 * self.margin) - self.margin - max(step, 0)
            away.append(np.maximum(-place, place - extent + 1))
        reach = max(math.hypot(*self.offset), 1.0)
        return np.asarray(2 / reach * np.maximum(away[0][:, None], away[1][None, :]) - 1, dtype=np.float32)

    @property
    def downsun(self) -> tuple[float, float]:
        """Return rows and columns of one step away from the sun, zeros where no shadow falls."""
        length = math.hypot(*self.offset) or 1.0
        return self.offset[0] / length, self.offset[1] / length


@dataclass(frozen=True)
class Spectrum:
    """Gaussian noise whose power falls as ``1 / f**slope`` between ``1 / scale`` and ``1 / finest``.

    Below ``1 / scale`` it still falls as ``1 / f``: structures gather in groups up to ``CLUSTER`` as large.
    """

    scale: float
    slope: float
    stretch: float = 1.0
    angle: float = 0.0
    finest: float = 0.0

    def draw(self, span: tuple[int, int], rng: np.random.Generator) -> Float:
        """Draw a field ``(rows, cols)`` of unit spread, cut from a larger one lest it wrap round."""
        rows, cols = (scipy.fft.next_fast_len(max(8, extent + extent // 4), real=True) for extent in span)
        y = scipy.fft.fftfreq(rows).astype(np.float32)[:, None]
        x = scipy.fft.rfftfreq(cols).astype(np.float32)[None, :]
        along = y * np.float32(math.sin(self.angle)) + x * np.float32(math.cos(self.angle))
        across = y * np.float32(math.cos(self.angle)) - x * np.float32(math.sin(self.angle))
        square = along * along * np.float32(self.stretch) + across * across * np.float32(1 / self.stretch)
        # the logarithm of the amplitude: logarithms and exponentials are far quicker than powers
        fall = np.log(square + np.float32(self.scale**-2)) * np.float32((1 - self.slope) / 4)
        fall -= np.log(square + np.float32((CLUSTER * self.scale) ** -2)) * np.float32(0.25)
        fall -= (y * y + x * x) * np.float32(2 * self.finest**2)
        fall[0, 0] = -np.inf
        noise = rng.standard_normal((rows, cols // 2 + 1, 2), dtype=np.float32)
        noise *= np.exp(fall - fall.max())[..., None]
        out = scipy.fft.irfft2(noise.view(np.complex64)[..., 0], s=(rows, cols), overwrite_x=True)[
            : span[0], : span[1]
        ]
        return np.asarray((out - out.mean()) / max(float(out.std()), 1e-12), dtype=np.float32)


def tilt(height: Float, towards: tuple[float, float], amount: float) -> None:
    """Raise a field ``(rows, cols)`` in one direction, in place."""
    rows, cols = (np.linspace(-amount, amount, extent, dtype=np.float32) for extent in height.shape)
    height += np.float32(towards[0]) * rows[:, None] + np.float32(towards[1]) * cols[None, :]


def bend(values: Float, down: Float, right: Float, reach: float) -> Float:
    """Displace a field by two others, ``(rows, cols)`` each, ``reach`` px per standard deviation."""
    rows, cols = np.ogrid[: values.shape[0], : values.shape[1]]
    places = np.stack([down * np.float32(reach) + rows, right * np.float32(reach) + cols])
    return np.asarray(ndimage.map_coordinates(values, places, order=1, mode="mirror"), dtype=np.float32)


def quantile(values: Float, part: float) -> float:
    """Find a quantile of a field ``(rows, cols)`` from some 16 thousand evenly spread values at most."""
    stride = max(1, math.isqrt(values.size // 16384))
    return float(np.quantile(values[::stride, ::stride], min(max(part, 0.0), 1.0)))


def between(ends: tuple[float, float], part: float) -> float:
    """Interpolate geometrically between two numbers above 0: ``a (b / a)^part``, part in [0, 1]."""
    return float(ends[0] * (ends[1] / ends[0]) ** part)
