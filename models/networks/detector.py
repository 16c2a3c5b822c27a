"""Detect the places to restore: a small network separates cloud and cloud shadow from clear ground.

Its images are several times coarser than those of the restoration, so it costs next to nothing.
Its norms use the statistics of the training: an answer depends on its surroundings, within `REACH` of its own
pixels, and not on the window that it was computed in. Windows that overlap by so much join without a seam.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.rivals.cloudnet import MULTIPLE, CloudNet
from decr_scene.models.value_types import WIDEST, check_range

REACH = 64
"""No answer depends on reduced pixels farther away than this, with the depth that `DetectorConfig` allows."""

SPECK = 5
"""Least width of cloud, reduced pixels, odd: narrower ones are roofs, roads or glints."""

LANES = 16
"""Numbers of fp32 that a vector of AVX-512 holds."""

COARSE_PIXELS = 256
"""Pixels of the coarsest level, of all images, below which a CPU's sums may follow the number of threads.

Seen of fp32 convolutions of what is laid out pixel by pixel, on an Intel CPU with AMX: images of up to
14 x 14 px differ, from 16 x 16 none by 1 to 64 threads.
"""

RESTORE, CLOUD = 0, 1
"""The two answers: cloud, thin cloud or shadow; cloud or thin cloud alone."""


@dataclass(frozen=True)
class DetectorConfig:
    """A detector, but for its weights.

    Args:
        bands: Bands of the image.
        widths: Channels of each level; each level has half the resolution of the one before.
        factor: The image is averaged over ``factor`` x ``factor`` pixels first.
        threshold: From this probability on, a pixel is taken to need restoring.
        family: ``"unet"`` (ours) or ``"cloudnet"``: its first width alone counts, and it detects no shadow.
        veils: Thin veils are overlooked: what the model changes much is restored where none is seen, too.
        false_alarms: Greatest share of clear pixels, of each kind of held-out images, that the threshold
            takes for cloudy.

    Raises:
        ValueError: No such network.
    """

    bands: int = 4
    widths: tuple[int, ...] = (16, 32, 48, 64)
    factor: int = 4
    threshold: float = 0.5
    family: str = "unet"
    veils: bool = False
    false_alarms: float = 0.08

    def __post_init__(self) -> None:
        if self.family not in ("unet", "cloudnet"):
            raise ValueError(f"detector family {self.family!r} is unknown, expected unet or cloudnet")
        if self.bands < 1:
            raise ValueError(f"a detector needs bands, got bands = {self.bands}")
        if not 1 <= len(self.widths) <= 4 or min(self.widths) < 1:
            raise ValueError(f"a detector needs 1 to 4 widths from 1, got widths = {self.widths}")
        check_range("bands", self.bands, 1, WIDEST)
        check_range("channels of a level", max(self.widths), 1, WIDEST)
        if not 1 <= self.factor <= 16:
            raise ValueError(f"a detector needs a factor from 1 to 16, got {self.factor}")
        for name in ("threshold", "false_alarms"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"a detector needs {name} between 0 and 1, got {getattr(self, name):g}")


class Detector(Protocol):
    """A detector of cloud and shadow."""

    config: DetectorConfig

    def probability(self, reduced: Tensor) -> Tensor:
        """Map ``(B, bands, h, w)`` averaged images in [-1, 1] to ``(B, 2, h, w)``: `RESTORE` and `CLOUD`."""
        ...


class CloudDetector(nn.Module):
    """A plain UNet with batch normalisation."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.enter = _step(config.bands, widths[0])
        self.encoder = nn.ModuleList(_step(width, width) for width in widths)
        self.down = nn.ModuleList(_step(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = nn.Sequential(*(_step(widths[-1], widths[-1]) for _ in range(2)))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.decoder = nn.ModuleList(_step(width, width) for width in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 2, 1)
        self.multiple = 2 ** (len(widths) - 1)

    def forward(self, reduced: Tensor) -> Tensor:
        """Map averaged images ``(B, bands, h, w)`` in [-1, 1], any size, to logits ``(B, 2, h, w)``."""
        height, width = reduced.shape[-2:]
        h = self.enter(_extended(reduced, self.multiple))
        skips = []
        for level, encoder in enumerate(self.encoder):
            h = encoder(h)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        h = h + self.middle(h)
        for level in reversed(range(len(skips))):
            wide = F.interpolate(self.up[level](h), scale_factor=2.0, mode="nearest")
            h = self.decoder[level](wide + skips[level])
        return self._logits(h)[..., :height, :width]

    def _logits(self, h: Tensor) -> Tensor:
        """Compute `leave` among many answers: of a few, the number of threads may decide the last bits."""
        missing, bias = max(0, LANES - self.leave.out_channels), self.leave.bias
        assert bias is not None, "as it is built"
        weight = F.pad(self.leave.weight, (0, 0, 0, 0, 0, 0, 0, missing))
        return F.conv2d(h, weight, F.pad(bias, (0, missing)))[:, : self.leave.out_channels]

    @torch.inference_mode()
    def probability(self, reduced: Tensor) -> Tensor:
        """Return the probabilities, float32 ``(B, 2, h, w)``, of `RESTORE` and `CLOUD`, without specks."""
        logits = self(self._repeated(reduced))[: len(reduced)]
        return without_specks(logits.float().sigmoid())

    def _repeated(self, reduced: Tensor) -> Tensor:
        """Repeat small images on a CPU, or threads decide the last bits (`COARSE_PIXELS`)."""
        coarse = len(reduced) * math.prod(math.ceil(size / self.multiple) for size in reduced.shape[-2:])
        times = math.ceil(COARSE_PIXELS / max(1, coarse))
        return reduced.repeat(times, 1, 1, 1) if reduced.is_cpu and times > 1 else reduced


class CloudNetDetector(nn.Module):
    """Cloud-Net on images in [-1, 1]; its one answer, cloud, is used for both.

    Its weights are for Landsat 8's numbers over 65535: a scene of those is scaled so by ``--scale 0,65535``.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.net = CloudNet(config.bands, config.widths[0])

    @torch.inference_mode()
    def probability(self, reduced: Tensor) -> Tensor:
        """Return the probability of cloud twice, ``(B, 2, h, w)``."""
        height, width = reduced.shape[-2:]
        cloud: Tensor = self.net((_extended(reduced, MULTIPLE).float() + 1) / 2)
        return cloud[..., :height, :width].expand(-1, 2, -1, -1)


AnyDetector = CloudDetector | CloudNetDetector


def build_detector(config: DetectorConfig) -> AnyDetector:
    """Build the network with fresh weights."""
    return CloudNetDetector(config) if config.family == "cloudnet" else CloudDetector(config)


def without_specks(probability: Tensor) -> Tensor:
    """Open ``(B, C, H, W)`` (greyscale) by squares of `SPECK` px, to the same shape.

    A single pixel taken for cloud would have a whole tile restored. On held-out pairs of `rice2` this halves
    the tiles without cloud that are, and finds as much cloud at the same rate of false alarms.
    """
    worst = -F.max_pool2d(-probability, SPECK, 1, SPECK // 2)
    return F.max_pool2d(worst, SPECK, 1, SPECK // 2)


def reduced_image(image: Tensor, factor: int) -> Tensor:
    """Average ``factor`` x ``factor`` pixels of ``(B, C, H, W)``.

    The last ones of a side may be fewer.
    """
    return F.avg_pool2d(image, factor, ceil_mode=True) if factor > 1 else image


def _step(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out, momentum=0.05),
        nn.ReLU(inplace=True),
    )


def _extended(image: Tensor, multiple: int) -> Tensor:
    """Repeat the bottom and right edges up to a multiple."""
    bottom, right = (-side % multiple for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
