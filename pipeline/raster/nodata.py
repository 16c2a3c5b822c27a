"""Find nodata in pixels in memory, by GDAL's own rule for those of a file.

GDAL compares floating-point numbers with a tolerance, because a tag holds fewer digits than a pixel, and
integers with the whole part of the value. A narrower rule of our own would treat nodata as ground.
"""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Bool, Pixels

TOLERANCE = 2 * float(np.finfo(np.float32).eps)
"""GDAL's tolerance, relative to the sum of the two numbers, for float32 and float64 alike."""


def is_nodata(pixels: Pixels, nodata: float | None) -> Bool:
    """Find where pixels have the nodata value, same shape.

    NaN is the nodata value of itself.
    """
    if nodata is None:
        return np.zeros(pixels.shape, bool)
    if pixels.dtype.kind != "f":
        whole = int(nodata) if np.isfinite(nodata) else None
        return np.zeros(pixels.shape, bool) if whole is None else np.asarray(pixels == whole)
    if np.isnan(nodata):
        return np.isnan(pixels)
    value = pixels.dtype.type(nodata)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite pixels are not close, which is right
        close = np.abs(pixels - value) < TOLERANCE * np.abs(pixels + value)
    return np.asarray((pixels == value) | close)


def off_nodata(pixels: Pixels, nodata: float | None) -> Pixels:
    """Move pixels off the nodata value to the next value, same shape, upwards unless there is none."""
    if nodata is None or np.isnan(nodata) or not (on_nodata := is_nodata(pixels, nodata)).any():
        return pixels
    if pixels.dtype.kind == "f":
        return np.where(on_nodata, _above(nodata, pixels.dtype.type), pixels)
    one = pixels.dtype.type(1)
    next_value = pixels - one if nodata >= np.iinfo(pixels.dtype).max else pixels + one
    return np.where(on_nodata, next_value, pixels)


def _above(nodata: float, kind: type[np.floating]) -> np.floating:
    """Return about the least value of a floating-point type above a nodata value and its tolerance."""
    value = kind(nodata)
    step = np.nextafter(value, kind(np.inf))
    with np.errstate(over="ignore"):  # infinity lies above, too
        beyond_tolerance = value + kind(2.5 * TOLERANCE) * np.abs(value)
    return max(step, beyond_tolerance)
