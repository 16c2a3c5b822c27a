"""The discriminator of SpA-GAN and AMGAN-CR, between true and generated clear images of a cloudy one."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Slope of its leaky ReLUs."""

HALVED = 16
"""Pixels of an image, each way, to one of a logit."""


class Discriminator(nn.Module):
    """Patches of about 100 px, one logit each; always with the statistics of its batch.

    Args:
        bands: Bands of either image.
        width: Channels of the first layer of each.
    """

    def __init__(self, bands: int, width: int = 32) -> None:
        super().__init__()
        self.c0_0 = Halving(bands, width, norm=False)
        self.c0_1 = Halving(bands, width, norm=False)
        self.c1 = Halving(2 * width, 4 * width)
        self.c2 = Halving(4 * width, 8 * width)
        self.c3 = Halving(8 * width, 16 * width)
        self.c4 = nn.Conv2d(16 * width, 1, 3, padding=1)

    def train(self, mode: bool = True) -> Self:
        """Stay in training mode, whatever is asked for: the published one is never in another."""
        return super().train()

    def forward(self, cloudy: Tensor, other: Tensor) -> Tensor:
        """Map two images ``(B, bands, H, W)`` in [0, 1] to logits ``(B, 1, H / 16, W / 16)``."""
        h = torch.cat([self.c0_0(cloudy), self.c0_1(other)], dim=1)
        logits: Tensor = self.c4(self.c3(self.c2(self.c1(h))))
        return logits


class Halving(nn.Module):
    """A 4 x 4 convolution of stride 2, batch normalisation, leaky ReLU."""

    def __init__(self, channels: int, out: int, norm: bool = True) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out, 4, stride=2, padding=1)
        self.batchnorm = nn.BatchNorm2d(out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, out, H / 2, W / 2)``."""
        h = self.c(x)
        return F.leaky_relu(h if self.batchnorm is None else self.batchnorm(h), SLOPE)
