"""DiffCR's network (Zou et al. 2024): the clear image itself, out of a noisy one and several cloudy dates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.embedding import timestep_embedding

LEVELS = 4
WIDTH = 64
"""Channels of the first level of the published network."""

DATES = 3
"""Number of cloudy images of one place in the published training; a single one is repeated."""

MULTIPLE = 2**LEVELS


class DiffCR(nn.Module):
    """Network in [-1, 1].

    Args:
        bands: Bands of an image. The published network is for three.
        width: Channels of the first level.
    """

    def __init__(self, bands: int, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        embedding = 4 * width
        widths = [width * 2**level for level in range(LEVELS)]
        self.intro, self.cond_intro = (nn.Conv2d(bands, width, 3, padding=1) for _ in range(2))
        self.ending = nn.Conv2d(width, bands, 3, padding=1)
        self.map = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.encoders = _blocks(widths, embedding)
        self.cond_encoders = _blocks(widths, None)
        self.middle_blks = nn.ModuleList([Block(2 * widths[-1], embedding)])
        self.decoders = _blocks(widths[::-1], embedding)
        self.downs, self.cond_downs = (
            nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths) for _ in range(2)
        )
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2)) for c in widths[::-1]
        )

    def forward(self, x_t: Tensor, label: Tensor, dates: Tensor) -> Tensor:
        """Estimate the clear image.

        Args:
            x_t: Noisy image, ``(B, bands, H, W)``.
            label: Level of the noise, ``(B,)``.
            dates: Cloudy images, ``(B, D, bands, H, W)`` in [-1, 1].

        Returns:
            ``(B, bands, H, W)``, not limited.
        """
        height, width = x_t.shape[-2:]
        margin = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        embedding = self.map(timestep_embedding(label, self.width))
        x = self.intro(F.pad(x_t, margin))
        context = self.cond_intro(F.pad(dates.flatten(0, 1), margin))
        skips = []
        for level in range(LEVELS):
            context = _only(self.cond_encoders, level)(context)
            x = _only(self.encoders, level)(x, embedding) + context.unflatten(0, dates.shape[:2]).sum(dim=1)
            skips.append(x)
            x, context = self.downs[level](x), self.cond_downs[level](context)
        x = self.middle_blks[0](x, embedding)
        for level in range(LEVELS):
            x = _only(self.decoders, level)(self.ups[level](x) + skips.pop(), embedding)
        answer: Tensor = self.ending(x)
        return answer[..., :height, :width]


class Block(nn.Module):
    """Two gated halves: a spatial one, and one that mixes channels.

    Args:
        channels: In and out.
        embedding: Length of the embedding of the noise level; ``None``: for a cloudy image, which has none.
    """

    def __init__(self, channels: int, embedding: int | None) -> None:
        super().__init__()
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        half = channels // 2
        self.sca_avg = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(half, half, 1))
        self.sca_max = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Conv2d(half, half, 1))
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.time_emb = (
            None if embedding is None else nn.Sequential(nn.SiLU(), nn.Linear(embedding, channels))
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        p, q = _gated(self.conv2(self.conv1(self.norm1(x)))).chunk(2, dim=1)
        x = x + self.beta * self.conv3(torch.cat([p * self.sca_avg(p), q * self.sca_max(q)], dim=1))
        if self.time_emb is not None:
            x = x + self.time_emb(embedding)[..., None, None]
        return x + self.gamma * self.conv5(_gated(self.conv4(self.norm2(x))))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


def _gated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _only(levels: nn.ModuleList, level: int) -> nn.Module:
    """Return the one block of a level."""
    return levels.get_submodule(f"{level}.0")


def _blocks(widths: list[int], embedding: int | None) -> nn.ModuleList:
    """Make one block a level, in a list of its own as published weights have it."""
    return nn.ModuleList(nn.ModuleList([Block(width, embedding)]) for width in widths)
