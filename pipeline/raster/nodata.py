"""Which values are nodata: for pixels in memory, by the very rule that GDAL has for those of a file.

GDAL compares floating-point numbers with a tolerance, because a tag holds fewer digits than a pixel, and
integers with the whole part of the value. A rule of our own that were narrower would take nodata for ground.
"""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Bool, Pixels

TOLERANCE = 2 * float(np.finfo(np.float32).eps)
"""GDAL's, of the sum of the two numbers, for float32 and float64 alike."""


def is_nodata(pixels: Pixels, nodata: float | None) -> Bool:
    """Find where pixels have the nodata value, same shape; NaN is the nodata value of itself."""
    if nodata is None:
        return np.zeros(pixels.shape, bool)
    if pixels.dtype.kind != "f":
        whole = int(nodata) if np.isfinite(nodata) else None
        return np.zeros(pixels.shape, bool) if whole is None else np.asarray(pixels == whole)
    if np.isnan(nodata):
        return np.isnan(pixels)
    value = pixels.dtype.type(nodata)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite pixels are not close, as is right
        close = np.abs(pixels - value) < TOLERANCE * np.abs(pixels + value)
    return np.asarray((pixels == value) | close)


def off_nodata(pixels: Pixels, nodata: float | None) -> Pixels:
    """Move what fell on the nodata value to the next value that is not it, upwards unless there is none."""
    if nodata is None or np.isnan(nodata) or not (there := is_nodata(pixels, nodata)).any():
        return pixels
    if pixels.dtype.kind == "f":
        return np.where(there, _above(nodata, pixels.dtype.type), pixels)
    one = pixels.dtype.type(1)
    beside = pixels - one if nodata >= np.iinfo(pixels.dtype).max else pixels + one
    return np.where(there, beside, pixels)


def _above(nodata: float, kind: type[np.floating]) -> np.floating:
    """The least value of a floating-point type, about, that lies above a nodata value and is not it."""
    value = kind(nodata)
    step = np.nextafter(value, kind(np.inf))
    with np.errstate(over="ignore"):  # infinity lies above, too
        far = value + kind(2.5 * TOLERANCE) * np.abs(value)
    return max(step, far)
