"""AMGAN-CR's generator (Xu et al. 2022): a recurrent attention, then residual blocks that it steers.

The mask is not limited, and is trained towards places that are brighter in the clear image than in the cloudy
one: it is no cloud mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.rivals.bottleneck import Bottleneck, plain3x3

ROUNDS = 4
DETECTING = range(1, 6)
GATES = ("i", "f", "g", "o")

WIDTH = 32
"""Channels of the published network."""


class AMGAN(nn.Module):
    """Generator in [0, 1]; its answer is not limited.

    Args:
        bands: Bands in and out.
        width: Channels throughout.
    """

    def __init__(self, bands: int, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.conv_in = plain3x3(bands, width, bias=False)
        self.conv_ins = plain3x3(bands + 1, width, bias=False)
        self.det_conv0 = plain3x3(bands + 1, width, bias=True)
        for number in DETECTING:
            first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
            self.add_module(f"det_conv{number}", nn.Sequential(first, nn.ReLU(), second, nn.ReLU()))
        for gate in GATES:
            self.add_module(f"conv_{gate}", plain3x3(2 * width, width, bias=True))
        self.det_conv_mask = plain3x3(width, 1, bias=True)
        for number in range(1, 6):
            self.add_module(f"res_block{number}", Bottleneck(width))
        self.conv_out = plain3x3(width, bands, bias=False)

    def forward(self, cloudy: Tensor) -> Tensor:
        """Map ``(B, bands, H, W)`` in [0, 1] to the same, any size."""
        return self.attended(cloudy)[0]

    def attended(self, cloudy: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the answer, and the mask ``(B, 1, H, W)`` after each round."""
        masks = self._masks(cloudy)
        x = F.relu(self.conv_ins(torch.cat([cloudy, masks[-1]], dim=1)))
        f = self._part("res_block1", F.relu(self.conv_in(cloudy)))
        for number in (1, 2, 3):
            f = F.relu(self._part(f"res_block{number}", f) * masks[-1] + x)
        for number in (4, 5):
            f = F.relu(self._part(f"res_block{number}", f) + f)
        return self.conv_out(f), masks

    def _masks(self, cloudy: Tensor) -> list[Tensor]:
        """Run a convolutional LSTM on the image and its own last mask."""
        b, _, height, width = cloudy.shape
        mask = cloudy.new_full((b, 1, height, width), 0.5)
        h = c = cloudy.new_zeros((b, self.width, height, width))
        masks = []
        for _ in range(ROUNDS):
            a = F.relu(self.det_conv0(torch.cat([cloudy, mask], dim=1)))
            for number in DETECTING:
                a = F.relu(self._part(f"det_conv{number}", a) + a)
            i, f, g, o = (self._part(f"conv_{gate}", torch.cat([a, h], dim=1)) for gate in GATES)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            mask = self.det_conv_mask(h)
            masks.append(mask)
        return masks

    def _part(self, name: str, f: Tensor) -> Tensor:
        answer: Tensor = self.get_submodule(name)(f)
        return answer
