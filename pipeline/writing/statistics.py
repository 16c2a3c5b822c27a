"""Compute statistics of a band, window by window in any order, as GDAL's tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 15
"""Pixels at a time: 256 KiB of float64 fit the processor's cache."""


@dataclass(frozen=True)
class BandStatistics:
    """Count, extremes, mean and the sum of squared deviations from it; two add up to those of both.

    ``low`` and ``high`` are not defined while ``count`` is 0.
    """

    pixels: int = 0
    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> BandStatistics:
        """Compute the statistics of some pixels.

        Args:
            values: Of one band, any shape and real dtype.
            valid: Marks those that count, same shape, all of them finite; ``None``: all.
        """
        pixels = values.size
        values = values.ravel() if valid is None or valid.all() else values[valid]
        if not values.size:
            return cls(pixels)
        low, high = float(values.min()), float(values.max())
        if low == high:
            return cls(pixels, values.size, low, high, low, 0.0)
        middle = (low + high) / 2  # deviations from it are small: no digits are lost in their squares
        total, squares = _sums(values, middle)
        mean = total / values.size
        return cls(pixels, values.size, low, high, middle + mean, max(0.0, squares - total * mean))

    def __add__(self, other: BandStatistics) -> BandStatistics:
        if not self.count or not other.count:
            one = self if self.count else other
            return BandStatistics(
                self.pixels + other.pixels, one.count, one.low, one.high, one.mean, one.squares
            )
        count = self.count + other.count
        step = other.mean - self.mean
        return BandStatistics(
            self.pixels + other.pixels,
            count,
            min(self.low, other.low),
            max(self.high, other.high),
            self.mean + step * other.count / count,
            self.squares + other.squares + step * step * self.count * other.count / count,
        )

    def tags(self) -> dict[str, str]:
        """Return them as GDAL's metadata.

        A band without a valid pixel has the percentage only.
        """
        percent = {"STATISTICS_VALID_PERCENT": f"{100 * self.count / max(1, self.pixels):.4g}"}
        if not self.count:
            return percent
        return {
            "STATISTICS_MINIMUM": f"{self.low:.14g}",
            "STATISTICS_MAXIMUM": f"{self.high:.14g}",
            "STATISTICS_MEAN": f"{self.mean:.14g}",
            "STATISTICS_STDDEV": f"{(self.squares / self.count) ** 0.5:.14g}",
            **percent,
        }


def _sums(values: NDArray[Any], middle: float) -> tuple[float, float]:
    """Return sum and sum of squares of the deviations from ``middle``, without the threads of `np.dot`."""
    total = squares = 0.0
    buffer = np.empty(min(_CHUNK, values.size))
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        deviation = np.subtract(part, middle, out=buffer[: part.size], dtype=np.float64)
        total += float(deviation.sum())
        squares += float(np.einsum("i,i->", deviation, deviation))
    return total, squares
