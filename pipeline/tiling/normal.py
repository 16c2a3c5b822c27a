"""Turn random bits into normal numbers by Box and Muller's formula, faster than by numpy's sine and cosine.

numpy has no vector instructions for these two in double precision. The turn of 32 bits is divided into three
parts with a table each, and ``exp(i (a + b + c)) = exp(i a) exp(i b) exp(i c)``. That is within `ERROR` of
numpy's own answer, which decides nearly all of the bits of single precision. Where it does not, because
the number lies near the middle of two of single precision or near 0, numpy is asked: the result is always
that of the formula in numpy, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Double

Words = NDArray[np.uint64]

_TURN = 2 * np.pi * 2.0**-32
_LOW = 0xFFFFFFFF

_SHIFTS = (21, 10, 0)
_WIDTHS = (11, 11, 10)
"""Lowest bit, and number of bits, of each part of a turn: tables of 32 KiB stay in the processor's cache."""

_TABLES = tuple(
    np.exp(1j * _TURN * 2.0**shift * np.arange(2**width))
    for shift, width in zip(_SHIFTS, _WIDTHS, strict=True)
)

ERROR = 2.0**-48
"""Greatest difference of cosine and sine from numpy's: both round angles, up to 6.3, and products."""

_SMALL = 2.0**-9
_NEAR = 2**17
"""Numbers below it, and numbers so near the middle of two (in units of their last place), are computed anew.

``radius * ERROR < 8 * 2**-48 = 2**-36 * _SMALL``, and `_NEAR` units are at least ``2**-36`` of any number.
"""

_REST = 2**29 - 1
"""The bits of double precision that single precision lacks."""


def normal_numbers(bits: Words) -> tuple[Double, Double]:
    """Compute ``sqrt(-2 ln u) (cos, sin)(2 pi v)``, u the upper and v the lower 32 of 64 bits.

    Args:
        bits: Random words ``(n,)``.

    Returns:
        ``(n,)`` each, which in single precision are what numpy makes of the formula.
    """
    radius = (bits >> np.uint64(32)).view(np.int64).astype(np.float64)
    radius += 0.5
    radius *= 2.0**-32
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    turns = bits.view(np.int64)
    place = np.empty_like(turns)
    point, factor = np.empty(len(bits), np.complex128), np.empty(len(bits), np.complex128)
    for number, (shift, width, table) in enumerate(zip(_SHIFTS, _WIDTHS, _TABLES, strict=True)):
        np.right_shift(turns, shift, out=place)
        np.bitwise_and(place, 2**width - 1, out=place)
        table.take(place, out=factor if number else point, mode="clip")  # in range; the mode is the fastest
        if number:
            point *= factor
    cosine, sine = point.real * radius, point.imag * radius
    _decide(cosine, np.cos, turns, radius, place)
    _decide(sine, np.sin, turns, radius, place)
    return cosine, sine


def _decide(
    values: Double, function: np.ufunc, turns: NDArray[np.int64], radius: Double, room: NDArray[np.int64]
) -> None:
    """Compute anew, in place, what might be rounded the other way."""
    np.add(values.view(np.int64), 2**28 + _NEAR, out=room)
    np.bitwise_and(room, _REST, out=room)
    doubtful = room < 2 * _NEAR
    doubtful |= np.abs(values, out=room.view(np.float64)) < _SMALL
    where = np.flatnonzero(doubtful)
    values[where] = radius[where] * function((turns[where] & _LOW) * _TURN)
