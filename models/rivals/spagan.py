"""SpA-GAN's generator (Pan 2020, arXiv 2009.13015): bottlenecks steered by one spatial attention.

As in its published weights, where its paper differs: a direction is one step to one neighbour, and no
recurrence. The attention is trained towards places that are brighter in the clear image than in the cloudy
one, which is shadow: it is no cloud mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.rivals.bottleneck import Bottleneck, plain3x3

BLOCKS = 17
ATTENDED = ((4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15))
"""Numbers of the bottlenecks that share one attention map."""

WIDTH = 32
"""Channels of the published weights."""


class SpAGAN(nn.Module):
    """Generator in [0, 1]; its answer is not limited.

    Args:
        bands: Bands in and out. The published weights are for blue, green, red in this order.
        width: Channels throughout.
    """

    def __init__(self, bands: int, width: int = WIDTH) -> None:
        super().__init__()
        self.conv_in = plain3x3(bands, width, bias=False)
        self.SAM1 = SpatialAttention(width)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"res_block{number}", Bottleneck(width))
        self.conv_out = plain3x3(width, bands, bias=False)

    def forward(self, cloudy: Tensor) -> Tensor:
        """Map ``(B, bands, H, W)`` in [0, 1] to the same, any size."""
        return self.attended(cloudy)[0]

    def attended(self, cloudy: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the answer, and the four attention maps ``(B, 1, H, W)`` in (0, 1) on its way."""
        f = F.relu(self.conv_in(cloudy))
        for number in (1, 2, 3):
            f = F.relu(self._block(number, f) + f)
        maps = []
        for numbers in ATTENDED:
            maps.append(self.SAM1(f))
            for number in numbers:
                f = F.relu(self._block(number, f) * maps[-1] + f)
        for number in (16, 17):
            f = F.relu(self._block(number, f) + f)
        return self.conv_out(f), maps

    def _block(self, number: int, f: Tensor) -> Tensor:
        answer: Tensor = self.get_submodule(f"res_block{number}")(f)
        return answer


class SpatialAttention(nn.Module):
    """Attention of the bottlenecks, two passes over neighbours: ``(B, C, H, W)`` to ``(B, 1, H, W)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.irnn1 = Neighbours(width)
        self.irnn2 = Neighbours(width)
        self.conv1 = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(4 * width, width, 1)
        self.conv3 = nn.Conv2d(4 * width, width, 1)
        self.conv_out = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        """Return the map ``(B, 1, H, W)``, in (0, 1)."""
        z = self.conv2(self.irnn1(self.conv1(f)))
        z = F.relu(self.conv3(self.irnn2(z)))
        return torch.sigmoid(self.conv_out(z))


class Neighbours(nn.Module):
    """``relu(w x(neighbour) + b + x)`` for the neighbours up, right, down and left, on the channels.

    The row or column that has no such neighbour stays as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for side in ("left", "right", "up", "down"):
            self.add_module(f"{side}_weight", nn.Conv2d(width, width, 1, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, 4 C, H, W)``."""
        up = torch.cat([x[..., :1, :], self._look("up", x[..., :-1, :], x[..., 1:, :])], dim=2)
        down = torch.cat([self._look("down", x[..., 1:, :], x[..., :-1, :]), x[..., -1:, :]], dim=2)
        left = torch.cat([x[..., :1], self._look("left", x[..., :-1], x[..., 1:])], dim=3)
        right = torch.cat([self._look("right", x[..., 1:], x[..., :-1]), x[..., -1:]], dim=3)
        return torch.cat([up, right, down, left], dim=1)

    def _look(self, side: str, neighbour: Tensor, own: Tensor) -> Tensor:
        if not own.numel():  # an image one pixel wide; a convolution refuses nothing at all
            return own
        weighed: Tensor = self.get_submodule(f"{side}_weight")(neighbour)
        return F.relu(weighed + own)
