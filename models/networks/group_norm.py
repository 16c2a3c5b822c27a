"""Group normalisation: of an image, or of each pixel by the square around it; and SiLU of it.

At inference on a CPU it is ``x factor + offset`` in one pass of `kernels`, with sums that no number of
threads changes. torch's own kernel for what is laid out pixel by pixel sums squares in one naive run, which
costs up to three digits, and shares it out to threads; in bf16 such a last digit can become one DN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from decr_scene.models import kernels

BLOCKS = 8
"""Blocks along a side of the square; moments are those of whole blocks, and bilinear between them."""

Step = tuple[Tensor, Tensor]
"""Scale less 1, and shift, that a step number gives what is normalised, ``(B, C, 1, 1)`` each."""


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    step: Step | None = None,
    silu: bool = False,
) -> Tensor:
    """Return ``GN(x) (1 + scale) + shift``, or SiLU of it, computed in float32.

    Args:
        x: ``(B, C, H, W)``.
        groups: Number of groups.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
        step: Scale and shift; ``None``: 0 both.
        silu: Whether SiLU of that is returned.

    Returns:
        ``(B, C, H, W)`` of the type of ``x``.
    """
    if kernels.suits(x):
        return kernels.normalised(x, groups, weight, bias, eps, step, silu)
    normed = F.group_norm(x.float(), groups, weight, bias, eps)
    return _activated((normed if step is None else normed * (1 + step[0]) + step[1]).to(x.dtype), silu)


def local_group_norm(
    x: Tensor,
    side: float,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    step: Step | None = None,
    silu: bool = False,
) -> Tensor:
    """Normalise each pixel by the moments of the square around it, ``(B, C, H, W)`` to the same.

    ``y = weight (x - m) / sqrt(v + eps) + bias``, with ``m`` and ``v`` the mean and the variance of a group
    of channels over the square; at the border of the image the square moves inwards.

    Args:
        x: ``(B, C, H, W)``; computed in float32.
        side: Of the square, px of ``x``.
        groups: As of group normalisation.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Is added to the variance.
        step: As of `group_norm`.
        silu: As of `group_norm`.
    """
    block, (height, width) = max(1, round(side / BLOCKS)), x.shape[2:]
    in_one_pass = kernels.suits(x)
    of_blocks = kernels.block_means(x, block) if in_one_pass else _block_means(x, block)
    means, variances = _moments_around(of_blocks, groups)
    mean, rate = (
        of_group.float().repeat_interleave(x.shape[1] // groups, 1)
        for of_group in (means, variances.add(eps).rsqrt())
    )
    factor = weight.view(1, -1, 1, 1) * rate
    factor, offset = _with_step(factor, bias.view(1, -1, 1, 1) - mean * factor, step)
    if in_one_pass:
        return kernels.scaled(x, factor, offset, block, silu)
    factor, offset = (_between_blocks(values, block)[..., :height, :width] for values in (factor, offset))
    return _activated(torch.addcmul(offset, x.float(), factor).to(x.dtype), silu)


def _activated(normed: Tensor, silu: bool) -> Tensor:
    return F.silu(normed, inplace=not torch.is_grad_enabled()) if silu else normed


def _with_step(factor: Tensor, offset: Tensor, step: Step | None) -> tuple[Tensor, Tensor]:
    """Fold scale and shift in."""
    return (factor, offset) if step is None else (factor * (1 + step[0]), offset * (1 + step[0]) + step[1])


def _moments_around(of_blocks: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of the squares around blocks, ``(B, groups, h, w)`` each.

    Args:
        of_blocks: Means of values, then of their squares, ``(B, 2 C, h, w)``.
        groups: Number of groups of channels.
    """
    b, c, *shape = of_blocks.shape
    of_groups = of_blocks.reshape(b, 2 * groups, c // (2 * groups), *shape).mean(2)
    mean, square = _around(_around(of_groups, 2), 3).chunk(2, 1)
    return mean, (square - mean.square()).clamp(min=0)


def _block_means(x: Tensor, block: int) -> Tensor:
    """Average values and squares over blocks, ``(B, C, H, W)`` to float32 ``(B, 2 C, h, w)``."""
    x = x.float()
    return torch.cat([F.avg_pool2d(values, block, ceil_mode=True) for values in (x, x.square())], 1)


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
    """Spread values of blocks ``(B, C, h, w)`` bilinearly over their pixels."""
    laid_out = values.contiguous(memory_format=torch.channels_last)
    return F.interpolate(laid_out, scale_factor=float(block), mode="bilinear")
