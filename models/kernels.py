"""Pass over features once on a CPU, as compiled loops: sums of blocks; scale, shift and SiLU.

torch takes a pass over memory for each of them, and more to spread what belongs to blocks over their pixels.
Sums are taken in one order whatever the number of threads, and all else is done value by value: the bits do
not depend on threads.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

SHARED = 1 << 16
"""Values from which on a pass is shared out to threads."""

BLOCK = 32
"""Side of the blocks that the means of an image are the means of, px: few enough values for float32."""

_LOOP = {"error_model": "numpy", "nogil": True, "fastmath": {"contract", "nsz"}}


def suits(x: Tensor) -> bool:
    """Return whether these passes are for a tensor: at inference on a CPU, of float32 or bf16."""
    return (
        not numba.config.DISABLE_JIT
        and x.is_cpu
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def block_means(x: Tensor, block: int) -> Tensor:
    """Average values and their squares over blocks, ``(B, C, H, W)`` to float64 ``(B, 2 C, h, w)``.

    Args:
        x: That `suits`.
        block: Side of a block, px; the last ones may be narrower.
    """
    return torch.from_numpy(_block_means(x, block)).permute(0, 3, 1, 2)


def normalised(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    step: tuple[Tensor, Tensor] | None,
    silu: bool,
) -> Tensor:
    """Normalise images by groups of channels, ``(B, C, H, W)`` to the same, laid out pixel by pixel.

    Args:
        x: That `suits`.
        groups: Number of groups.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
        step: Scale less 1, and shift, of what is normalised, ``(B, C, 1, 1)`` each; ``None``: 0 both.
        silu: Whether to activate.
    """
    b, c, height, width = x.shape
    pixels, result = _rows(x), torch.empty((b, height, width, c), dtype=x.dtype)
    answer, of_blocks = _as_array(result.view(b, height, width * c)), _block_means(x, BLOCK)
    steps = np.zeros((2, b, c), np.float32)
    if step is not None:
        steps[:] = torch.stack(step).view(2, b, c).float().numpy()
    own = weight.detach().float().numpy(), bias.detach().float().numpy()
    first, share = _between(height, 1, height)
    for number in range(b):
        rows = np.empty((2, 1, width * c), np.float32)
        _affine(of_blocks[number], height, width, BLOCK, groups, *own, eps, *steps[:, number], rows[:, 0])
        _share(_scale, height, pixels[number], *rows, first, share, silu, answer[number])
    return result.permute(0, 3, 1, 2)


def scaled(x: Tensor, factor: Tensor, offset: Tensor, block: int, silu: bool) -> Tensor:
    """Return ``x factor + offset``, or SiLU of it, of the type of ``x`` and laid out pixel by pixel.

    Args:
        x: That `suits`, ``(B, C, H, W)``.
        factor: Of each block, ``(B, C, h, w)``; bilinear between the middles of blocks.
        offset: Likewise.
        block: Side of a block, px.
        silu: Whether to activate.
    """
    pixels = _rows(x)
    b, c, height, width = x.shape
    result = torch.empty((b, height, width, c), dtype=x.dtype)
    answer = _as_array(result.view(b, height, width * c))
    first, share = _between(height, factor.shape[2], block)
    for number in range(b):
        spread = [_rows_of_blocks(of_blocks[number], width, block) for of_blocks in (factor, offset)]
        _share(_scale, height, pixels[number], *spread, first, share, silu, answer[number])
    return result.permute(0, 3, 1, 2)


def _block_means(x: Tensor, block: int) -> np.ndarray:
    """Average as `block_means`, to ``(B, h, w, 2 C)``."""
    b, c, height, width = x.shape
    down, across = math.ceil(height / block), math.ceil(width / block)
    of_blocks = np.empty((b, down, across, 2 * c))
    for image, own in zip(_rows(x), of_blocks, strict=True):
        _share(_average, down, image, block, own)
    return of_blocks


def _rows(x: Tensor) -> np.ndarray:
    """Lay ``(B, C, H, W)`` out as ``(B, H, W C)``; bf16 as the integers that its bits are."""
    b, c, height, width = x.shape
    return _as_array(x.detach().permute(0, 2, 3, 1).contiguous().view(b, height, width * c))


def _as_array(x: Tensor) -> np.ndarray:
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


@lru_cache(maxsize=64)
def _between(count: int, blocks: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the block before each of ``count`` pixels, and the next one's share."""
    place = ((np.arange(count) + 0.5) / block - 0.5).clip(0, blocks - 1)
    first = place.astype(np.int64)
    return first, (place - first).astype(np.float32)


def _rows_of_blocks(of_blocks: Tensor, width: int, block: int) -> np.ndarray:
    """Spread ``(C, h, w)`` across, to rows of ``width`` pixels: float32 ``(h, width C)``."""
    values = np.ascontiguousarray(of_blocks.permute(1, 2, 0).float().numpy())
    rows = np.empty((len(values), width, values.shape[2]), np.float32)
    _spread(values, *_between(width, values.shape[1], block), rows)
    return rows.reshape(len(rows), -1)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decr-scene-kernels")


os.register_at_fork(after_in_child=_threads.cache_clear)  # they are not there any more


def _share(loop: Callable[..., None], count: int, values: np.ndarray, *arguments: Any) -> None:
    """Run ``loop(first, after, values, ...)`` for ``count`` rows, by as many threads as torch has here."""
    parts = min(torch.get_num_threads(), count) if values.size >= SHARED else 1
    ends = [count * part // parts for part in range(parts + 1)]
    others = [
        _threads().submit(loop, first, after, values, *arguments)
        for first, after in itertools.pairwise(ends[1:])
    ]
    loop(0, ends[1], values, *arguments)
    for other in others:
        other.result()


def _loop(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop when it is first called, and keep it on disk where there is a place for that."""
    try:
        return numba.njit(cache=True, **_LOOP)(function)
    except RuntimeError:  # neither beside this file nor in the user's folder for caches
        return numba.njit(**_LOOP)(function)


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
    """Return ``value / (1 + 2^t)``, ``t = -value log2(e)``: 2^whole by its bits, 2^rest by a series."""
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
def _average(first: int, after: int, image: Any, block: int, means: Any) -> None:
    """Average rows ``first`` to ``after`` of blocks of ``(H, W C)`` into ``(h, w, 2 C)``.

    Down a block float32 adds up how far values lie from the uppermost, so what is even loses no digits.
    """
    height, length = image.shape
    channels = means.shape[2] // 2
    width = length // channels
    total, squares = np.empty(length, np.float32), np.empty(length, np.float32)
    for row in range(first, after):
        top, bottom = row * block, min(height, (row + 1) * block)
        uppermost = image[top]
        total[:] = 0
        squares[:] = 0
        for y in range(top + 1, bottom):
            line = image[y]
            for i in range(length):
                apart = _loaded(line[i]) - _loaded(uppermost[i])
                total[i] += apart
                squares[i] += apart * apart
        count = bottom - top
        for column in range(means.shape[1]):
            left, right = column * block, min(width, (column + 1) * block)
            own = means[row, column]
            own[:] = 0
            for x in range(left, right):
                for channel in range(channels):
                    i = x * channels + channel
                    start, added = np.float64(_loaded(uppermost[i])), np.float64(total[i])
                    own[channel] += count * start + added
                    own[channels + channel] += start * (count * start + 2 * added) + squares[i]
            own /= count * (right - left)


@_loop
def _affine(
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
def _scale(
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
        if silu:
            for i in range(len(line)):
                scale = factor_above[i] + part * (factor_below[i] - factor_above[i])
                shift = offset_above[i] + part * (offset_below[i] - offset_above[i])
                own[i] = _stored(_silu(_loaded(line[i]) * scale + shift), own[i])
        else:
            for i in range(len(line)):
                scale = factor_above[i] + part * (factor_below[i] - factor_above[i])
                shift = offset_above[i] + part * (offset_below[i] - offset_above[i])
                own[i] = _stored(_loaded(line[i]) * scale + shift, own[i])


@_loop
def _spread(values: Any, before: Any, share: Any, rows: Any) -> None:
    """Spread ``(h, w, C)`` to ``(h, W, C)``, ``share`` of the next one."""
    last = values.shape[1] - 1
    for row in range(len(values)):
        for x in range(rows.shape[1]):
            left, right = values[row, before[x]], values[row, min(before[x] + 1, last)]
            for channel in range(values.shape[2]):
                rows[row, x, channel] = left[channel] + share[x] * (right[channel] - left[channel])
