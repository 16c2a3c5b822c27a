"""Group normalisation: of an image, or of each pixel by the square around it.

For inference on a CPU, in bf16 or laid out pixel by pixel, it is ``x factor + offset`` with factors that no
number of threads changes. torch's own kernel for such a layout sums squares in one naive run, which costs up
to three digits, and shares it out to threads; in bf16 such a last digit can become one DN.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = 8
"""Blocks along a side of the square; moments are those of whole blocks, and bilinear between them."""

RUN, MANY_RUNS = 256, 64
"""Pixels that one matrix product sums in bf16, and how many such sums make their rounding negligible."""

FLAT = 1 / 128
"""Part of a group's mean square below which its variance is lost in the rounding of bf16."""

ROW = 64
"""Pixels whose channels are one row of the product: a row of one pixel is too short to be fast."""

IN_CACHE = 1 << 18
"""Values that are averaged at a time on a CPU, or a row of blocks where that has more.

float32 of them and of their squares are 2 MiB.
"""

Step = tuple[Tensor, Tensor]
"""Scale less 1, and shift, that a step number gives what is normalised, ``(B, C, 1, 1)`` each."""


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, step: Step | None = None
) -> Tensor:
    """Return ``GN(x) (1 + scale) + shift``, computed in float32 but for bf16 at inference on a CPU.

    Args:
        x: ``(B, C, H, W)``.
        groups: Number of groups.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
        step: Scale and shift; ``None``: 0 both.

    Returns:
        ``(B, C, H, W)`` of the type of ``x``.
    """
    if computes_in_bf16(x):
        means, variances = _bf16_moments(x)
        factor, offset = _affine(means, variances, groups, weight, bias, eps)
        normed = _scaled(x, *_with_step(factor, offset, step))
        for image in _flat(means, variances, groups).nonzero().flatten():
            own = _step_of(image, step)
            normed[image] = group_norm(x[image, None].float(), groups, weight, bias, eps, own)[0]
        return normed
    full = x.float()
    if full.is_cpu and not torch.is_grad_enabled() and not full.is_contiguous():
        factor, offset = _affine(*_moments(full), groups, weight, bias, eps)
        return _scaled(full, *_with_step(factor, offset, step)).to(x.dtype)
    normed = F.group_norm(full, groups, weight, bias, eps)
    return (normed if step is None else normed * (1 + step[0]) + step[1]).to(x.dtype)


def local_group_norm(
    x: Tensor, side: float, groups: int, weight: Tensor, bias: Tensor, eps: float, step: Step | None = None
) -> Tensor:
    """Normalise each pixel by the moments of the square around it, ``(B, C, H, W)`` to the same.

    ``y = weight (x - m) / sqrt(v + eps) + bias``, with ``m`` and ``v`` the mean and the variance of a group
    of channels over the square; at the border of the image the square moves inwards.

    Args:
        x: ``(B, C, H, W)``; computed in float32 but for bf16 at inference on a CPU.
        side: Of the square, px of ``x``.
        groups: As of group normalisation.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Is added to the variance.
        step: As of `group_norm`.
    """
    block, (height, width) = max(1, round(side / BLOCKS)), x.shape[2:]
    taken = x if computes_in_bf16(x) else x.float()
    means, variances, flat = _moments_around(taken, block, groups)
    mean, rate = (
        of_group.repeat_interleave(x.shape[1] // groups, 1)
        for of_group in (means, variances.add(eps).rsqrt())
    )
    factor = weight.view(1, -1, 1, 1) * rate
    factor, offset = _with_step(factor, bias.view(1, -1, 1, 1) - mean * factor, step)
    factor, offset = (
        _between_blocks(values.to(taken.dtype), block)[..., :height, :width] for values in (factor, offset)
    )
    normed = torch.addcmul(offset, taken, factor)
    if taken.dtype == torch.bfloat16:
        for image in flat.nonzero().flatten():
            own = _step_of(image, step)
            normed[image] = local_group_norm(x[image, None].float(), side, groups, weight, bias, eps, own)[0]
    return normed.to(x.dtype)


def computes_in_bf16(x: Tensor) -> bool:
    """Return whether sums are taken from bf16 as it is: at inference on a CPU."""
    return x.is_cpu and x.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def _scaled(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Return ``x factor + offset`` of the type of ``x``, to which factor and offset are rounded first.

    Args:
        x: ``(B, C, H, W)``.
        factor: ``(B, C, 1, 1)``.
        offset: ``(B, C, 1, 1)``.
    """
    b, c, h, w = x.shape
    factor, offset = factor.to(x.dtype), offset.to(x.dtype)
    row = math.gcd(h * w, ROW)
    if row == 1 or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.addcmul(offset, x, factor)
    rows = x.permute(0, 2, 3, 1).view(b, h * w // row, row * c)
    factor, offset = (v.view(len(v), 1, c).repeat(1, 1, row) for v in (factor, offset))
    return torch.addcmul(offset, rows, factor).view(b, h, w, c).permute(0, 3, 1, 2)


def _with_step(factor: Tensor, offset: Tensor, step: Step | None) -> tuple[Tensor, Tensor]:
    """Fold scale and shift in."""
    return (factor, offset) if step is None else (factor * (1 + step[0]), offset * (1 + step[0]) + step[1])


def _step_of(image: Tensor, step: Step | None) -> Step | None:
    """Return the step of one image of a batch, by its number."""
    return None if step is None else (step[0][image, None], step[1][image, None])


def _affine(
    means: Tensor, variances: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Turn means and variances of channels, ``(B, C)``, to factor and offset, ``(B, C, 1, 1)`` each."""
    b, c = means.shape
    means, variances = means.view(b, groups, c // groups), variances.view(b, groups, c // groups)
    mean = means.mean(2, keepdim=True)
    variance = (variances + (means - mean).square()).mean(2, keepdim=True)
    factor = weight.view(1, groups, c // groups) * torch.rsqrt(variance + eps)
    offset = bias.view(1, groups, c // groups) - mean * factor
    return factor.view(b, c, 1, 1), offset.view(b, c, 1, 1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of channels of float32 ``(B, C, H, W)``, ``(B, C)`` each, in two passes."""
    means = x.mean((2, 3), keepdim=True)
    return means.flatten(1), (x - means).square_().mean((2, 3))


def _bf16_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of bf16 ``(B, C, H, W)``, float32 ``(B, C)`` each.

    By runs of pixels where there are many, else in float32.
    """
    b, c, h, w = x.shape
    if h * w < RUN * MANY_RUNS:
        return _moments(x.float())
    return _moments_of_runs(x.permute(0, 2, 3, 1).reshape(b, h * w, c))


def _flat(means: Tensor, variances: Tensor, groups: int) -> Tensor:
    """Return which images, ``(B,)``, have a group whose variance is nothing beside its mean square."""
    b, c = means.shape
    means, variances = means.view(b, groups, c // groups), variances.view(b, groups, c // groups)
    squares = (variances + means.square()).mean(2)
    return (squares - means.mean(2).square() < FLAT * squares).any(1)


def _moments_of_runs(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of bf16 ``(B, N, C)`` over N, float32 ``(B, C)`` each.

    Sums of each `RUN` pixels are matrix products, added up in float32 inside, whose results have bf16's 8
    bits. Where values vary, those of many runs are rounded up as often as down.
    """
    b, count, c = pixels.shape
    whole = count - count % RUN
    runs = pixels[:, :whole].reshape(-1, RUN, c)
    sums = torch.bmm(runs.new_ones(1, 1, RUN).expand(len(runs), 1, RUN), runs)
    squares = torch.bmm(runs.transpose(1, 2), runs).diagonal(dim1=1, dim2=2)
    rest = pixels[:, whole:].float()
    means, of_squares = (
        (part.reshape(b, whole // RUN, c).float().sum(1) + left.sum(1)) / count
        for part, left in ((sums, rest), (squares, rest.square()))
    )
    return means, (of_squares - means.square()).clamp_(min=0)


def _moments_around(x: Tensor, block: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean and variance of the squares around blocks, float32 ``(B, groups, h, w)`` each.

    And which images, ``(B,)``, have a square whose variance is nothing beside its mean square.
    """
    of_blocks = _block_means(x, block)
    b, c, *shape = of_blocks.shape
    of_groups = of_blocks.reshape(b, 2 * groups, c // (2 * groups), *shape).mean(2)
    mean, square = _around(_around(of_groups, 2), 3).chunk(2, 1)
    variance = (square - mean.square()).clamp(min=0)
    return mean, variance, (variance < FLAT * square).flatten(1).any(1)


def _block_means(x: Tensor, block: int) -> Tensor:
    """Average values and squares over blocks, ``(B, C, H, W)`` to float32 ``(B, 2 C, h, w)``.

    On a CPU a few rows of blocks at a time, which stay in its cache: of 512 x 512 px of 24 channels in a
    quarter of the time.
    """
    rows = x.shape[2]
    if x.is_cpu:
        rows = block * max(1, IN_CACHE // max(1, x[:, :, :block].numel()))
    parts = []
    for first in range(0, x.shape[2], rows):
        part = x[:, :, first : first + rows].float()
        parts.append(
            torch.cat([F.avg_pool2d(image, block, ceil_mode=True) for image in (part, part.square())], 1)
        )
    return torch.cat(parts, 2)


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
    if values.dtype != torch.bfloat16:
        return F.interpolate(laid_out, scale_factor=float(block), mode="bilinear")
    # as two matrix products, in a sixth of the time; blocks of 2^n px have weights that bf16 holds
    down, across = (_weights_between(count, block) for count in values.shape[2:])
    b, c, h, _ = values.shape
    rows = torch.matmul(across, laid_out.permute(0, 2, 3, 1)).reshape(b, h, -1)
    return torch.matmul(down, rows).view(b, h * block, -1, c).permute(0, 3, 1, 2)


def _weights_between(count: int, block: int) -> Tensor:
    """Return bf16 ``(count block, count)``: the share of each block in each pixel along an axis."""
    one_by_one = torch.eye(count)[None]
    return F.interpolate(one_by_one, scale_factor=float(block), mode="linear")[0].T.to(torch.bfloat16)
