"""The layers of the diffusion networks: step number, norm, attention, residual block."""

import copy
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models import kernels
from decr_scene.models.diffusion.embedding import timestep_embedding
from decr_scene.models.networks.group_norm import Step, group_norm

M = TypeVar("M", bound=nn.Module)

PACKED_FOR = 128
"""Side of the features that the weights of a `PackedConv2d` are laid out for, px."""


def conv3x3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3 x 3 convolution that keeps the size (stride 1) or halves it (stride 2)."""
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1)


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """Resize ``(B, C, H, W)`` to ``(B, C, height, width)``, to the same bits on any number of threads.

    Bilinear. For three channels PyTorch takes another kernel on one thread of a CPU than on several, by a
    last digit different, and bf16 makes such a digit one DN: there each channel is an image of its own.
    """
    if x.shape[1] != 3 or not x.is_cpu:
        return F.interpolate(x, size=(height, width), mode="bilinear")
    alone = x.reshape(-1, 1, *x.shape[2:])
    return F.interpolate(alone, size=(height, width), mode="bilinear").reshape(*x.shape[:2], height, width)


def fold(images: Sequence[Tensor], side: int, dtype: torch.dtype) -> Tensor:
    """Fold squares of pixels into channels as `F.pixel_unshuffle`, images one after the other.

    Args:
        images: ``(B, C, H, W)`` each.
        side: Of the squares, px.
        dtype: Of the result, ``(B, sum(C) side^2, H / side, W / side)``.
    """
    if all(kernels.suits(image) for image in images):
        return kernels.folded(images, side, dtype)
    return F.pixel_unshuffle(torch.cat([image.to(dtype) for image in images], dim=1), side)


def sum_into(fresh: Tensor, other: Tensor) -> Tensor:
    """Return ``fresh + other``; at inference in the place of ``fresh``, so nobody else may hold that."""
    if torch.is_grad_enabled() or fresh.dtype != other.dtype:
        return fresh + other
    return fresh.add_(other)


def zeroed(module: M) -> M:
    """Return a module with all parameters zero, so that its branch starts without effect."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def with_bf16_weights(module: M) -> M:
    """Copy a network with convolutions and linear maps in bf16, and everything else unchanged.

    The same as autocast, which would convert all those weights anew at every call.
    """
    fast = copy.deepcopy(module)
    for part in fast.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.to(torch.bfloat16)
        if type(part) is nn.Conv2d and part.padding_mode == "zeros" and isinstance(part.padding, tuple):
            part.__class__ = PackedConv2d
    return fast


@cache
def _can_pack() -> bool:
    """Return whether this PyTorch has the two operators of `PackedConv2d`, which it does not document."""
    image, weight = (torch.ones(1, 1, 4, 4, dtype=torch.bfloat16) for _ in range(2))
    placed: tuple[Any, ...] = ((1, 1), (1, 1), (1, 1), 1)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *placed, image.shape)
        found = torch.ops.mkldnn._convolution_pointwise(image, packed, None, *placed, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.conv2d(image, weight, padding=1))


class PackedConv2d(nn.Conv2d):
    """A convolution that in bf16, at inference on a CPU, lays its weights out once and not at every call.

    To the same bits. The weights are laid out at the first call, and must not change after it; copies lay
    out their own. That the layout suits images of `PACKED_FOR` is a matter of time alone.
    """

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` as the convolution does."""
        is_bf16 = x.is_cpu and x.ndim == 4 and x.dtype == self.weight.dtype == torch.bfloat16
        if not is_bf16 or torch.is_grad_enabled() or torch.compiler.is_compiling() or not _can_pack():
            return super().forward(x)
        placed = [self.padding, self.stride, self.dilation, self.groups]
        if self.packed is None:
            size = (1, self.in_channels, PACKED_FOR, PACKED_FOR)
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *placed, size)
        x = x.contiguous(memory_format=torch.channels_last)
        convolve = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = convolve(x, self.packed, self.bias, *placed, "none", [], "")
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is laid out, of which there is no copy."""
        return {name: value for name, value in self.__dict__.items() if name != "packed"}


class GroupNorm(nn.GroupNorm):
    """Group normalisation, and SiLU of it, as `group_norm`; 32 groups, or as many as divide the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)

    def forward(self, x: Tensor, step: Step | None = None, silu: bool = False) -> Tensor:
        """Map ``(B, C, H, W)`` to the same, scaled, shifted and activated as `group_norm` has it."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps, step, silu)


class TimeEmbedding(nn.Module):
    """Step numbers ``(B,)`` -> ``SiLU(Linear(SiLU(Linear(sinusoids))))``, ``(B, 4 channels)``.

    The last SiLU is the one every residual block would begin with; here it is done once.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        """Embed ``(B,)``."""
        sinusoids = timestep_embedding(t, self.channels).to(self.linear1.weight.dtype)
        hidden = F.silu(self.linear1(sinusoids))
        embedding: Tensor = self.linear2(hidden)
        return F.silu(embedding)


class SelfAttention(nn.Module):
    """Multi-head attention over all pixels, ``x + proj(softmax(q k^T / sqrt(ch)) v)``.

    The 3C rows of ``qkv`` belong to the heads first, and inside a head to q, k and v. These are
    ``(B, heads, tokens, ch)``, contiguous in the last dimension: only then is a CPU's fused kernel fast.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        b, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        qkv = self.qkv(tokens).view(b, h * w, self.heads, 3, c // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        projected: Tensor = self.proj(mixed)
        return x + projected.view(b, h, w, c).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """``skip(x) + conv2(SiLU(norm2(h)))`` with ``h = conv1(SiLU(norm1(x)))`` and the step number mixed in.

    With ``scale_shift`` the embedding makes it ``norm2(h) * (1 + scale) + shift``, else ``norm2(h + added)``.

    Args:
        channels: Channels of ``x``.
        out: Channels of the result; ``skip`` is a 1 x 1 convolution where they differ.
        embedding: Length of the time embedding.
        scale_shift: How the embedding acts.
    """

    def __init__(self, channels: int, out: int, embedding: int, scale_shift: bool) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = GroupNorm(channels)
        self.conv1 = conv3x3(channels, out)
        self.embed = nn.Linear(embedding, 2 * out if scale_shift else out)
        self.norm2 = GroupNorm(out)
        self.conv2 = zeroed(conv3x3(out, out))
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` and ``(B, embedding)`` to ``(B, out, H, W)``."""
        h = self.conv1(self.norm1(x, silu=True))
        step = self.embed(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = step.chunk(2, dim=1)
            h = self.norm2(h, (scale, shift), silu=True)
        else:
            h = self.norm2(h + step.to(h.dtype), silu=True)
        return sum_into(self.conv2(h), self.skip(x))


class Upsample(nn.Module):
    """Nearest neighbour twice the size, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``."""
        enlarged: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return enlarged
