"""Turn random bits into normal numbers by Box and Muller's formula, faster than by numpy's sine and cosine.

numpy has no vector instructions for these two in double precision. The turn of 32 bits is divided into three
parts with a table each, and ``exp(i (a + b + c)) = exp(i a) exp(i b) exp(i c)``. That is within `ERROR` of
numpy's own answer, which decides nearly all of the bits of single precision. Where it does not, because
the number lies near the middle of two of single precision or near 0, numpy is asked: the result is always
that of the formula in numpy, bit for bit.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Double, Float

Words = NDArray[np.uint64]

TURN = 2 * np.pi * 2.0**-32
"""Angle of the lowest bit."""

_LOW = 0xFFFFFFFF

_SHIFTS = (21, 10, 0)
_WIDTHS = (11, 11, 10)
"""Lowest bit, and number of bits, of each part of a turn: tables of 32 KiB stay in the processor's cache."""

_TABLES = tuple(
    np.exp(1j * TURN * 2.0**shift * np.arange(2**width))
    for shift, width in zip(_SHIFTS, _WIDTHS, strict=True)
)

ERROR = 2.0**-48
"""Greatest difference of cosine and sine from numpy's: both round angles, up to 6.3, and products."""

MARGIN = 8 * ERROR
"""Greatest difference of a number from that of the formula: no radius reaches 8."""


class _Room(threading.local):
    """Arrays for what is in between, kept for the next call: new ones cost as much as the work."""

    def __init__(self) -> None:
        self.resize(0)

    def resize(self, count: int) -> None:
        """Make room for so many words."""
        self.place = np.empty(count, np.int64)
        self.point, self.factor = np.empty(count, np.complex128), np.empty(count, np.complex128)
        self.above, self.doubtful = np.empty(count, np.float32), np.empty(count, np.bool_)
        self.radius = np.empty(count)  # last: its length says that there is room


_room = _Room()


def normal_numbers(bits: Words) -> Float:
    """Compute ``sqrt(-2 ln u) (cos, sin)(2 pi v)``, u the upper and v the lower 32 of 64 bits.

    Args:
        bits: Random words ``(n,)``.

    Returns:
        ``(2, n)`` float32, what numpy makes of the formula in float64.
    """
    if len(_room.radius) != len(bits):
        _room.resize(len(bits))
    radius, place, point, factor = _room.radius, _room.place, _room.point, _room.factor
    np.right_shift(bits, np.uint64(32), out=place.view(np.uint64))
    np.add(place, 0.5, out=radius)
    radius *= 2.0**-32
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    turns = bits.view(np.int64)
    for number, (shift, width, table) in enumerate(zip(_SHIFTS, _WIDTHS, _TABLES, strict=True)):
        np.right_shift(turns, shift, out=place)
        np.bitwise_and(place, 2**width - 1, out=place)
        table.take(place, out=factor if number else point, mode="clip")  # in range; the mode is the fastest
        if number:
            point *= factor
    point *= radius
    numbers = np.empty((2, len(bits)), np.float32)
    for half, values in enumerate((point.real, point.imag)):
        _decide(values, bits, half, numbers[half])
    return numbers


def _decide(values: Double, bits: Words, half: int, out: Float) -> None:
    """Round values to float32; compute anew, by the formula, what might be rounded the other way."""
    np.subtract(values, MARGIN, out=out, casting="same_kind")
    np.add(values, MARGIN, out=_room.above, casting="same_kind")
    np.not_equal(out, _room.above, out=_room.doubtful)
    where = np.flatnonzero(_room.doubtful)
    out[where] = exactly(bits[where], half)


def exactly(bits: Words, half: int | NDArray[np.int64]) -> Float:
    """Compute one number of each word by the formula in numpy: that of the cosine (0), or of the sine (1).

    Args:
        bits: Random words ``(n,)``.
        half: Which of the two, of all or of each, ``(n,)``.

    Returns:
        ``(n,)`` float32, as `normal_numbers` gives it.
    """
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(_LOW)).astype(np.float64) * TURN
    return (radius * np.where(half, np.sin(angle), np.cos(angle))).astype(np.float32)
