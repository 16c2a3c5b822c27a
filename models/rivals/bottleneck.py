"""The residual block that SpA-GAN and AMGAN-CR share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with dilation 2, 1 x 1, without biases; ReLU between, none at the end, no skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group1 = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(channels, channels, 1, bias=False),
                "conv2": nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False),
                "conv3": nn.Conv2d(channels, channels, 1, bias=False),
            }
        )

    def forward(self, f: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        for name in ("conv1", "conv2"):
            f = F.relu(self.group1[name](f))
        result: Tensor = self.group1["conv3"](f)
        return result


def plain3x3(channels: int, out: int, bias: bool) -> nn.Sequential:
    """Make a 3 x 3 convolution that keeps the size, under the name that published weights have for it."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=bias))
