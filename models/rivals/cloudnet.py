"""Cloud-Net (Mohajerani and Saeedi 2019): a cloud detector for red, green, blue and near infrared.

Layers are counted as its published weights count them: convolution ``n`` is ``conv2d_n`` there.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 32
"""Height and width of an image are multiples of this."""

THRESHOLD = 12 / 255
"""Probability from which on its own evaluation calls a pixel cloud."""

WIDTH = 16
"""Channels of the first convolution of the published network."""

PLAIN = (1, 33)
"""Numbers of the convolutions that no batch normalisation follows."""

DROPOUT = 0.15


class CloudNet(nn.Module):
    """Probability of cloud; shadow is none.

    Args:
        bands: Bands of the image; the published weights are for red, green, blue, near infrared.
        width: Channels of the first convolution.
    """

    def __init__(self, bands: int = 4, width: int = WIDTH) -> None:
        super().__init__()
        sizes = _sizes(bands, width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, side, padding=side // 2) for a, b, side in sizes)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)
            for number, (_, out, _) in enumerate(sizes, 1)
            if number not in PLAIN
        )
        wide = [width * 2**level for level in range(6, 0, -1)]
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in itertools.pairwise(wide))

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, bands, H, W)`` in [0, 1] to ``(B, 1, H, W)``, of multiples of 32 px.

        Raises:
            ValueError: The size is no such multiple.
        """
        height, width = image.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"image is {height} x {width} px, Cloud-Net takes multiples of {MULTIPLE}: pad it"
            )
        c1, c2, c3, c4, c5, c6 = self.contracted(image)
        u = self._expand(c6, 1, [c4, c3, c2, c1], c5, (22, 23, 24))
        u = self._expand(u, 2, [c3, c2, c1], c4, (25, 26))
        u = self._expand(u, 3, [c2, c1], c3, (27, 28))
        u = self._expand(u, 4, [c1], c2, (29, 30))
        u = self._expand(u, 5, [], c1, (31, 32))
        return torch.sigmoid(self.convs[32](u))

    def contracted(self, image: Tensor) -> list[Tensor]:
        """Return the features of levels k = 1..6, ``(B, 2^k width, H / 2^(k-1), W / 2^(k-1))``."""
        levels = [self._contract(F.relu(self.convs[0](image)), 2)]
        for first in (5, 8, 11):
            levels.append(self._contract(F.max_pool2d(levels[-1], 2), first))
        levels.append(self._contract_deeper(F.max_pool2d(levels[-1], 2)))
        levels.append(self._contract(F.max_pool2d(levels[-1], 2), 19, DROPOUT))
        return levels

    def _contract(self, x: Tensor, first: int, dropout: float = 0.0) -> Tensor:
        a = self.convs[first](self._step(x, first))
        a = self._normed(F.dropout(a, dropout, self.training), first + 1)
        return F.relu(a + torch.cat([x, self._step(x, first + 2)], dim=1))

    def _contract_deeper(self, x: Tensor) -> Tensor:
        q = self._step(self._step(x, 14), 15)
        around = torch.cat([x, self._step(x, 17)], dim=1)
        return F.relu(self._step(q, 16) + around + self._step(q, 18))

    def _expand(
        self, below: Tensor, up: int, finer: list[Tensor], level: Tensor, numbers: tuple[int, ...]
    ) -> Tensor:
        """Go one level up, with the levels above it in ``finer``, the nearest first."""
        t = self.ups[up - 1](below)
        s = level
        if finer:
            s = F.relu(torch.stack([_repeated(f, 2 ** (i + 1)) for i, f in enumerate(finer)]).sum(0) + level)
        a = torch.cat([t, s], dim=1)
        for number in numbers:
            a = self._step(a, number)
        return F.relu(a + level + t)

    def _step(self, x: Tensor, number: int) -> Tensor:
        return self._normed(self.convs[number - 1](x), number)

    def _normed(self, x: Tensor, number: int) -> Tensor:
        return F.relu(self.norms[number - 2](x))


def _repeated(level: Tensor, times: int) -> Tensor:
    """Repeat the channels, at a fraction of the size."""
    return F.max_pool2d(torch.cat([level] * times, dim=1), times)


def _sizes(bands: int, width: int) -> list[tuple[int, int, int]]:
    """List channels in and out, and side in px, of all convolutions in their order."""
    sizes = [(bands, width, 3)]
    for level in range(1, 7):
        half, full = width * 2 ** (level - 1), width * 2**level
        deeper = level == 5
        sizes += [(half, full, 3), (full, full, 3), *([(full, full, 3)] if deeper else []), (half, half, 1)]
        sizes += [(full, full, 1)] if deeper else []
    for level in range(5, 0, -1):
        full = width * 2**level
        sizes += [(2 * full, full, 3), *[(full, full, 3)] * (2 if level == 5 else 1)]
    return [*sizes, (2 * width, 1, 1)]
