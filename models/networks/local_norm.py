"""Group normalisation by a square around each pixel, which the rest of the image does not change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = 8
"""Blocks along a side of the square; moments are those of whole blocks, and bilinear between them."""


def local_group_norm(x: Tensor, side: float, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise each pixel by the moments of the square around it, ``(B, C, H, W)`` to the same, float32.

    ``y = weight (x - m) / sqrt(v + eps) + bias``, with ``m`` and ``v`` the mean and the variance of a group
    of channels over the square; at the border of the image the square moves inwards.

    Args:
        x: float32.
        side: Of the square, px of ``x``.
        groups: As of group normalisation.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Is added to the variance.
    """
    block, (height, width) = max(1, round(side / BLOCKS)), x.shape[2:]
    moments = _moments(x, block, groups, eps)
    mean, rate = (of_group.repeat_interleave(x.shape[1] // groups, 1) for of_group in moments)
    factor = weight.view(1, -1, 1, 1) * rate
    offset = bias.view(1, -1, 1, 1) - mean * factor
    factor, offset = (_between_blocks(values, block)[..., :height, :width] for values in (factor, offset))
    return torch.addcmul(offset, x, factor)


def _moments(x: Tensor, block: int, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Compute mean and ``1 / sqrt(v + eps)`` of the squares around blocks, ``(B, groups, h, w)`` each."""
    of_blocks = torch.cat([F.avg_pool2d(image, block, ceil_mode=True) for image in (x, x.square())], 1)
    of_groups = torch.stack([part.mean(1) for part in of_blocks.chunk(2 * groups, 1)], 1)
    mean, square = _around(_around(of_groups, 2), 3).chunk(2, 1)
    return mean, (square - mean.square()).clamp(min=0).add(eps).rsqrt()


def _around(of_blocks: Tensor, axis: int) -> Tensor:
    """Average nine blocks along an axis, the outer two by half, so `BLOCKS` in all.

    At the ends of the axis the nine are moved inwards.
    """
    count = of_blocks.shape[axis]
    if count <= BLOCKS:
        return of_blocks.mean(axis, keepdim=True).expand_as(of_blocks)
    means = of_blocks.unfold(axis, BLOCKS, 1).mean(-1)
    means = (means.narrow(axis, 0, count - BLOCKS) + means.narrow(axis, 1, count - BLOCKS)) / 2
    nearest = (torch.arange(count, device=means.device) - BLOCKS // 2).clamp(0, count - BLOCKS - 1)
    return means.index_select(axis, nearest)


def _between_blocks(values: Tensor, block: int) -> Tensor:
    """Spread values of blocks bilinearly over their pixels."""
    laid_out = values.contiguous(memory_format=torch.channels_last)
    return F.interpolate(laid_out, scale_factor=float(block), mode="bilinear")
