"""The layers of the diffusion networks: step number, norm, attention, residual block."""

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.embedding import timestep_embedding

M = TypeVar("M", bound=nn.Module)


def conv3x3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3 x 3 convolution that keeps the size (stride 1) or halves it (stride 2)."""
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1)


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
    return fast


def sum_of_pixels(x: Tensor) -> Tensor:
    """Sum ``(B, N, C)`` over N to ``(B, C)``, by adding its two halves until one row is left.

    No sum is left to how torch shares work out to threads: their number changes no bit.
    """
    while (count := x.shape[1]) > 1:
        half = count // 2
        total = x[:, :half] + x[:, half : 2 * half]
        if count % 2:
            total[:, 0] += x[:, -1]
        x = total
    return x[:, 0]


def steady_group_norm(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return the mean of each channel's group and ``1 / sqrt(variance + eps)``, ``(B, C, 1, 1)`` each.

    Args:
        x: float32 ``(B, C, H, W)``.
        groups: Number of groups.
        eps: Added to the variance.
    """
    b, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
    mean = (sum_of_pixels(pixels) / (h * w)).view(b, groups, -1).mean(2, keepdim=True)
    of_channels = mean.expand(-1, -1, c // groups).reshape(b, 1, c)
    squares = sum_of_pixels((pixels - of_channels).square_()) / (h * w)
    variance = squares.view(b, groups, -1).mean(2, keepdim=True)
    factor = torch.rsqrt(variance + eps).expand(-1, -1, c // groups)
    return of_channels.view(b, c, 1, 1), factor.reshape(b, c, 1, 1)


def is_steady_case(x: Tensor) -> bool:
    """Return whether last digits matter: bf16, inference, on a CPU, where torch's sums depend on threads."""
    return x.is_cpu and x.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def is_naive_case(x: Tensor) -> bool:
    """Return whether torch's own norm sums squares naively and by threads: CPU, inference, channels_last."""
    return x.is_cpu and not torch.is_grad_enabled() and not x.is_contiguous()


def folded_group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return factor and offset that normalise float32 ``(B, C, H, W)``, ``(B, C, 1, 1)`` each.

    Moments are taken in two passes, channel by channel: the number of threads changes no bit.

    Args:
        x: float32 ``(B, C, H, W)``.
        groups: Number of groups.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
    """
    b, c = x.shape[:2]
    means = x.mean((2, 3), keepdim=True)
    variances = (x - means).square_().mean((2, 3)).view(b, groups, -1)
    means = means.view(b, groups, -1)
    mean = means.mean(2, keepdim=True)
    variance = (variances + (means - mean).square()).mean(2, keepdim=True)
    factor = weight.view(1, groups, -1) * torch.rsqrt(variance + eps)
    offset = bias.view(1, groups, -1) - mean * factor
    return factor.view(b, c, 1, 1), offset.view(b, c, 1, 1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32 whatever comes in; 32 groups, or as many as divide the channels.

    torch's own kernel for channels_last on a CPU sums squares in one naive run, which costs up to three
    digits; for inference there, moments are taken in two passes, and scale and shift folded in at no cost.
    For bf16 they are summed in an order that the number of threads does not change.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Return ``GN(x) (1 + scale) + shift``.

        Args:
            x: ``(B, C, H, W)``.
            scale: ``(B, C, 1, 1)``, or ``None`` for zero.
            shift: ``(B, C, 1, 1)``, or ``None`` for zero; given if ``scale`` is.

        Returns:
            ``(B, C, H, W)`` of the type of ``x``.
        """
        full = x.float()
        steady = is_steady_case(x)
        if steady or is_naive_case(full):
            factor, offset = self._steady_affine(full) if steady else self._affine(full)
            if scale is not None and shift is not None:
                factor, offset = factor * (1 + scale), offset * (1 + scale) + shift
            return torch.addcmul(offset, full, factor).to(x.dtype)
        normed = F.group_norm(full, self.num_groups, self.weight, self.bias, self.eps)
        if scale is not None and shift is not None:
            normed = normed * (1 + scale) + shift
        return normed.to(x.dtype)

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return factor and offset that normalise ``x``, ``(B, C, 1, 1)`` each."""
        return folded_group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _steady_affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `_affine` as bf16 needs it, with the same bits for any number of threads."""
        mean, rate = steady_group_norm(x, self.num_groups, self.eps)
        factor = self.weight.view(1, -1, 1, 1) * rate
        return factor, self.bias.view(1, -1, 1, 1) - mean * factor


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
        h = self.conv1(F.silu(self.norm1(x)))
        step = self.embed(embedding)[:, :, None, None]
        h = self.norm2(h, *step.chunk(2, dim=1)) if self.scale_shift else self.norm2(h + step.to(h.dtype))
        result: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return result


class Upsample(nn.Module):
    """Nearest neighbour twice the size, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``."""
        enlarged: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return enlarged
