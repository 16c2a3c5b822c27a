"""Find nodata in pixels in memory, by GDAL's own rule for those of a file, and what a file's masks are.

GDAL compares floating-point numbers with a tolerance, because a tag holds fewer digits than a pixel, and
integers with the whole part of the value. A narrower rule of our own would treat nodata as ground.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.enums import MaskFlags

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


def mask_of(band: int, dataset: Any) -> int:
    """Return the band (1-based) under whose number a band's mask is read, 0 if values or alpha decide."""
    flags = dataset.mask_flag_enums[band - 1]
    if MaskFlags.all_valid in flags or MaskFlags.alpha in flags or _is_integer_nodata(band, dataset):
        return 0
    return 1 if MaskFlags.per_dataset in flags else band


def nodata_outside_mask(band: int, dataset: Any) -> float | None:
    """Return a band's nodata value, where it is not part of the mask that is read."""
    in_mask = MaskFlags.nodata in dataset.mask_flag_enums[band - 1]
    value: float | None = dataset.nodatavals[band - 1]
    return None if in_mask and not _is_integer_nodata(band, dataset) else value


def _is_integer_nodata(band: int, dataset: Any) -> bool:
    """Return whether a band's mask only marks integer nodata, which needs no second decoding."""
    integers = np.dtype(dataset.dtypes[band - 1]).kind != "f"
    return integers and dataset.mask_flag_enums[band - 1] == [MaskFlags.nodata]
