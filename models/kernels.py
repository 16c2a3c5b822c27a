"""Pass over features once on a CPU, by compiled loops: sums of blocks; scale, shift and SiLU; folding.

torch takes a pass over memory for each of them, and more to spread what belongs to blocks over their pixels.
Sums are taken in one order whatever the number of threads, and all else is done value by value: the bits do
not depend on threads.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHARED = 1 << 16
"""Values from which on a pass is shared out to threads."""

BLOCK = 32
"""Side of the blocks that the means of an image are the means of, px: few enough values for float32."""


def suits(x: Tensor) -> bool:
    """Return whether these passes are for a tensor: at inference on a CPU, of float32 or bf16."""
    return (
        x.is_cpu
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _loops().ARE_COMPILED
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
        step: Scale less 1, and shift, of what is normalised, ``(B, C, 1, 1)`` or ``(1, C, 1, 1)`` each;
            ``None``: 0 both.
        silu: Whether to activate.
    """
    b, c, height, width = x.shape
    pixels, result = _rows(x), torch.empty((b, height, width, c), dtype=x.dtype)
    answer, of_blocks = _as_array(result.view(b, height, width * c)), _block_means(x, BLOCK)
    steps = np.zeros((2, b, c), np.float32)
    if step is not None:
        steps[:] = [values.expand(b, c, 1, 1)[:, :, 0, 0].float().numpy() for values in step]
    own = weight.detach().float().numpy(), bias.detach().float().numpy()
    first, share = _between(height, 1, height)
    for number in range(b):
        rows = np.empty((2, 1, width * c), np.float32)
        _loops().affine(
            of_blocks[number], height, width, BLOCK, groups, *own, eps, *steps[:, number], rows[:, 0]
        )
        _share(_loops().scale, height, pixels[number], *rows, first, share, silu, answer[number])
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
        _share(_loops().scale, height, pixels[number], *spread, first, share, silu, answer[number])
    return result.permute(0, 3, 1, 2)


def weighed_around(x: Tensor, kernels: Tensor) -> Tensor:
    """Weigh what lies around each pixel along both axes, with the border repeated, laid out pixel by pixel.

    Args:
        x: Float32 that `suits`, ``(B, C, H, W)``.
        kernels: Of each image, ``(B, N)``, N odd.
    """
    b, c, height, width = x.shape
    result = torch.empty((b, height, width, c))
    answer = result.view(b, height, width * c).numpy()
    for image, kernel, own in zip(_rows(x), kernels.float().numpy(), answer, strict=True):
        _share(_loops().smooth, height, image, c, kernel, own)
    return result.permute(0, 3, 1, 2)


def folded(images: Sequence[Tensor], side: int, dtype: torch.dtype) -> Tensor:
    """Fold squares of pixels into channels, images one after the other, laid out pixel by pixel.

    Args:
        images: That suit, ``(B, C, H, W)`` each, of multiples of ``side`` px.
        side: Of the squares, px.
        dtype: Of the result, float32 or bf16.

    Returns:
        ``(B, sum(C) side^2, H / side, W / side)``, of each channel its pixels row by row.
    """
    (b, _, height, width), channels = images[0].shape, sum(image.shape[1] for image in images) * side**2
    result = torch.empty((b, height // side, width // side, channels), dtype=dtype)
    answer, place = _as_array(result), 0
    for image in images:
        for pixels, own in zip(_rows(image), answer, strict=True):
            _share(_loops().fold, height // side, pixels, image.shape[1], side, own, place)
        place += image.shape[1] * side**2
    return result.permute(0, 3, 1, 2)


def _block_means(x: Tensor, block: int) -> np.ndarray:
    """Average as `block_means`, to ``(B, h, w, 2 C)``."""
    b, c, height, width = x.shape
    down, across = math.ceil(height / block), math.ceil(width / block)
    of_blocks = np.empty((b, down, across, 2 * c))
    for image, own in zip(_rows(x), of_blocks, strict=True):
        _share(_loops().average, down, image, block, own)
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
    _loops().spread(values, *_between(width, values.shape[1], block), rows)
    return rows.reshape(len(rows), -1)


@cache
def _loops() -> ModuleType:
    """Import the loops when they are needed: Numba takes most of a second."""
    from decr_scene.models import loops

    return loops


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decr-scene-kernels")


if hasattr(os, "register_at_fork"):  # where there are forks, which have no threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


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
