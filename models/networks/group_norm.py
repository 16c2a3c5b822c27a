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
    side: float | None = None,
) -> Tensor:
    """Return ``GN(x) (1 + scale) + shift``, or SiLU of it, computed in float32.

    ``GN(x) = weight (x - m) / sqrt(v + eps) + bias``, with ``m`` and ``v`` the mean and the variance of a
    group of channels, over the image or over the square around each pixel; at the border of the image the
    square moves inwards.

    Args:
        x: ``(B, C, H, W)``.
        groups: Number of groups.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
        step: Scale and shift; ``None``: 0 both.
        silu: Whether SiLU of that is returned.
        side: Of the square, px of ``x``; ``None``: the image.

    Returns:
        ``(B, C, H, W)`` of the type of ``x``.
    """
    if side is None and kernels.suits(x):
        return kernels.normalised(x, groups, weight, bias, eps, step, silu)
    if side is None:
        normed = F.group_norm(x.float(), groups, weight, bias, eps)
        normed = normed if step is None else normed * (1 + step[0]) + step[1]
    else:
        block, (height, width) = max(1, round(side / BLOCKS)), x.shape[2:]
        means, rates = _moments_around(x, block, groups, eps)
        factor = weight.view(1, -1, 1, 1) * rates
        factor, offset = _with_step(factor, bias.view(1, -1, 1, 1) - means * factor, step)
        if kernels.suits(x):
            return kernels.scaled(x, factor, offset, block, silu)
        factor, offset = (_between_blocks(values, block)[..., :height, :width] for values in (factor, offset))
        normed = torch.addcmul(offset, x.float(), factor)
    normed = normed.to(x.dtype)
    return F.silu(normed, inplace=not torch.is_grad_enabled()) if silu else normed


def _with_step(factor: Tensor, offset: Tensor, step: Step | None) -> tuple[Tensor, Tensor]:
    """Fold scale and shift in."""
    return (factor, offset) if step is None else (factor * (1 + step[0]), offset * (1 + step[0]) + step[1])


def _moments_around(x: Tensor, block: int, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Compute ``m`` and ``1 / sqrt(v + eps)`` of the squares around blocks, float32 ``(B, C, h, w)`` each."""
    of_blocks = kernels.block_means(x, block) if kernels.suits(x) else _block_means(x, block)
    b, c, *shape = of_blocks.shape
    of_groups = of_blocks.reshape(b, 2 * groups, c // (2 * groups), *shape).mean(2)
    means, squares = _around(_around(of_groups, 2), 3).chunk(2, 1)
    rates = (squares - means.square()).clamp(min=0).add(eps).rsqrt()
    means, rates = (values.float().repeat_interleave(x.shape[1] // groups, 1) for values in (means, rates))
    return means, rates


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
