"""The loops of `kernels`, compiled by Numba: over arrays of float32, or of the bits of bf16 as uint16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.codegen import get_host_cpu_features
from numba.extending import overload

ARE_COMPILED = not numba.config.DISABLE_JIT
"""Whether they are: by the environment variable NUMBA_DISABLE_JIT Numba leaves them to Python."""


def _prefer_wide_vectors() -> None:
    """Have Numba compute with vectors of 512 bits on processors that have bf16, as torch does there.

    LLVM takes half of that, since older ones slow down by it. Numba reads this before it compiles for the
    first time in a process, for all that it compiles there; settings of the user stay.
    """
    features = get_host_cpu_features()
    if numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None and "+avx512bf16" in features:
        numba.config.CPU_FEATURES = f"{features},-prefer-256-bit"


_prefer_wide_vectors()

_LOOP = {"error_model": "numpy", "nogil": True, "fastmath": {"contract", "nsz"}}


def _loop(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop when it is first called, and keep it on disk where that can be.

    A cache that cannot be written costs the time of compiling. One that cannot be read is removed, so that
    the next process makes it anew.
    """
    plain: Callable[..., None] = numba.njit(**_LOOP)(function)
    try:
        kept = numba.njit(cache=True, **_LOOP)(function)
    except RuntimeError:  # neither beside this file nor in the user's folder for caches
        return plain
    fails = False

    def call(*arguments: Any) -> None:
        nonlocal fails
        if not fails:
            try:
                return kept(*arguments)
            except Exception:  # of a damaged cache: any; a loop that runs raises nothing
                fails = True
                _remove(Path(kept.stats.cache_path), function.__qualname__)
        return plain(*arguments)

    return call


def _remove(folder: Path, name: str) -> None:
    """Remove what is kept of a loop, as far as that can be done."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{Path(__file__).stem}.{name}-*.nb[ic]"):
            path.unlink(missing_ok=True)


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile what loops call as a part of them."""
    return numba.njit(inline="always", error_model="numpy")(function)


def _loaded(value: Any) -> Any:
    """Return a value as float32; bf16 is the upper half of it."""


def _typed_load(value: Any) -> Callable[..., Any]:
    def from_bits(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def as_it_is(value: Any) -> Any:
        return value

    return from_bits if value == numba.types.uint16 else as_it_is


def _stored(value: Any, like: Any) -> Any:
    """Return float32 as the type of ``like``; bf16 is rounded to the nearest, and to the even one of two."""


def _typed_store(value: Any, like: Any) -> Callable[..., Any]:
    def to_bits(value: Any, like: Any) -> Any:
        if value != value:
            return np.uint16(0x7FC0)  # NaN, whatever its other bits
        bits = np.float32(value).view(np.uint32)
        half = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
        return np.uint16(np.uint32(bits + half) >> np.uint32(16))

    def as_it_is(value: Any, like: Any) -> Any:
        return value

    return to_bits if like == numba.types.uint16 else as_it_is


overload(_loaded, inline="always")(_typed_load)
overload(_stored, inline="always")(_typed_store)


@_inside
def _silu(value: Any) -> Any:
    """Return ``value / (1 + 2^t)``, ``t = -value log2(e)``: 2^whole by its bits, 2^rest by a series.

    The series is the polynomial of degree 6 whose greatest relative error on -.5 to .5 is least, 2e-9. ``t``
    ends at 126, so below -1e37 the answer is no longer 0.
    """
    power = np.float32(value * np.float32(-1.4426950408889634))
    power = power if power < np.float32(126) else np.float32(126)
    power = power if power > np.float32(-126) else np.float32(-126)
    whole = np.float32(power + np.float32(12582912))  # 1.5 * 2^23: the last bits are the whole number
    rest = np.float32(power - np.float32(whole - np.float32(12582912)))
    series = np.float32(1.53458069e-4)
    series = series * rest + np.float32(1.33999312e-3)
    series = series * rest + np.float32(9.61848898e-3)
    series = series * rest + np.float32(5.55032878e-2)
    series = series * rest + np.float32(2.40226469e-1)
    series = series * rest + np.float32(6.93147206e-1)
    series = series * rest + np.float32(1)
    exponent = np.uint32(np.float32(whole).view(np.uint32) << np.uint32(23))
    exponential = np.uint32(np.float32(series).view(np.uint32) + exponent).view(np.float32)
    return value / (np.float32(1) + exponential)


@_loop
def average(first: int, after: int, image: Any, block: int, means: Any) -> None:
    """Average rows ``first`` to ``after`` of blocks of ``(H, W C)`` into ``(h, w, 2 C)``.

    Down a block float32 adds up how far values lie from the uppermost, so what is even loses no digits.
    """
    channels = means.shape[2] // 2
    height, width = len(image), image.shape[1] // channels
    total, squares = np.empty(block * channels, np.float32), np.empty(block * channels, np.float32)
    for row in range(first, after):
        top, bottom = row * block, min(height, (row + 1) * block)
        count = bottom - top
        for column in range(means.shape[1]):
            left, right = column * block, min(width, (column + 1) * block)
            uppermost = image[top, left * channels : right * channels]
            total[:] = 0
            squares[:] = 0
            for y in range(top + 1, bottom):
                line = image[y, left * channels : right * channels]
                for i in range(len(line)):
                    apart = _loaded(line[i]) - _loaded(uppermost[i])
                    total[i] += apart
                    squares[i] += apart * apart
            own = means[row, column]
            own[:] = 0
            for x in range(right - left):
                for channel in range(channels):
                    i = x * channels + channel
                    start, added = np.float64(_loaded(uppermost[i])), np.float64(total[i])
                    own[channel] += count * start + added
                    own[channels + channel] += start * (count * start + 2 * added) + squares[i]
            own /= count * (right - left)


@_loop
def affine(
    of_blocks: Any,
    height: int,
    width: int,
    block: int,
    groups: int,
    weight: Any,
    bias: Any,
    eps: float,
    scale: Any,
    shift: Any,
    rows: Any,
) -> None:
    """Turn means of blocks, ``(h, w, 2 C)``, to a row of factors and one of offsets, ``(2, W C)``."""
    channels = len(weight)
    means = np.zeros(2 * channels)
    for row in range(len(of_blocks)):
        for column in range(of_blocks.shape[1]):
            pixels = min(block, height - row * block) * min(block, width - column * block)
            means += of_blocks[row, column] * (pixels / (height * width))
    size = channels // groups
    for group in range(groups):
        mean = means[group * size : (group + 1) * size].mean()
        square = means[channels + group * size : channels + (group + 1) * size].mean()
        rate = 1 / np.sqrt(max(square - mean * mean, 0) + eps)
        for channel in range(group * size, (group + 1) * size):
            factor = weight[channel] * rate
            rows[0, channel] = factor * (1 + scale[channel])
            rows[1, channel] = (bias[channel] - mean * factor) * (1 + scale[channel]) + shift[channel]
    for i in range(channels, rows.shape[1]):
        rows[0, i] = rows[0, i - channels]
        rows[1, i] = rows[1, i - channels]


@_loop
def scale(
    first: int,
    after: int,
    image: Any,
    factor: Any,
    offset: Any,
    before: Any,
    share: Any,
    silu: bool,
    answer: Any,
) -> None:
    """Scale and shift rows ``first`` to ``after`` of ``(H, W C)`` into ``answer``."""
    last = len(factor) - 1
    for y in range(first, after):
        line, own, part = image[y], answer[y], share[y]
        above, below = before[y], min(before[y] + 1, last)
        factor_above, factor_below = factor[above], factor[below]
        offset_above, offset_below = offset[above], offset[below]
        if above == below:
            for i in range(len(line)):
                value = _loaded(line[i]) * factor_above[i] + offset_above[i]
                own[i] = _stored(_silu(value) if silu else value, own[i])
            continue
        for i in range(len(line)):
            by = factor_above[i] + part * (factor_below[i] - factor_above[i])
            more = offset_above[i] + part * (offset_below[i] - offset_above[i])
            value = _loaded(line[i]) * by + more
            own[i] = _stored(_silu(value) if silu else value, own[i])


@_loop
def smooth(first: int, after: int, image: Any, channels: int, kernel: Any, answer: Any) -> None:
    """Weigh what lies around values of rows ``first`` to ``after`` of ``(H, W C)``, the border repeated."""
    height, length = image.shape
    reach = len(kernel) // 2
    margin = reach * channels
    line = np.empty(length + 2 * margin, np.float32)
    for y in range(first, after):
        middle = line[margin : margin + length]
        middle[:] = 0
        for k in range(len(kernel)):
            other, part = image[min(max(y + k - reach, 0), height - 1)], kernel[k]
            for i in range(length):
                middle[i] += part * other[i]
        for i in range(margin):
            line[i] = middle[i % channels]
            line[margin + length + i] = middle[length - channels + i % channels]
        own = answer[y]
        own[:] = 0
        for k in range(len(kernel)):
            other, part = line[k * channels : k * channels + length], kernel[k]
            for i in range(length):
                own[i] += part * other[i]


@_loop
def fold(first: int, after: int, image: Any, channels: int, side: int, answer: Any, place: int) -> None:
    """Fold squares of ``side`` px of ``(H, W C)`` into channels from ``place`` on of ``(h, w, C')``."""
    for y in range(first, after):
        for down in range(side):
            line = image[y * side + down]
            for x in range(answer.shape[1]):
                own = answer[y, x]
                for across in range(side):
                    for channel in range(channels):
                        value = _loaded(line[(x * side + across) * channels + channel])
                        own[place + (channel * side + down) * side + across] = _stored(value, own[0])


@_loop
def spread(values: Any, before: Any, share: Any, rows: Any) -> None:
    """Spread ``(h, w, C)`` to ``(h, W, C)``, ``share`` of the next one."""
    last = values.shape[1] - 1
    for row in range(len(values)):
        for x in range(rows.shape[1]):
            left, right = values[row, before[x]], values[row, min(before[x] + 1, last)]
            for channel in range(values.shape[2]):
                rows[row, x, channel] = left[channel] + share[x] * (right[channel] - left[channel])
