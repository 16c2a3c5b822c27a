"""The critic of the detail that a diffusion adds: a discriminator between it and the ground's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.value_types import WIDEST, check_range

SLOPE = 0.2
"""Slope of its leaky ReLUs."""

HALVINGS = 3
"""Halvings of the size: there is a logit for each square of ``2**HALVINGS`` px, which depends on 56 px."""


@dataclass(frozen=True)
class CriticConfig:
    """Shape of a critic, how it learns, and the weights of the losses that it gives the noise network.

    Args:
        texture: Standard deviation, px, of what is too coarse for the diffusion, as in sampling.
        width: Channels of the first layer.
        opinion: Weight of the logits that an image gets, the adversarial loss, beside the denoising loss.
        features: Weight of the L1 distance of its features (Wang et al. 2018).
        distance: Weight of the L1 distance to the truth itself.
        pace: Its learning rate over that of the run.
        calm: Weight of the square of its gradient at the ground (R1: Mescheder et al. 2018).
        roughness: Weight of the difference from the ground's detail in strength, octave by octave, wherever
            that detail lies (`roughness_loss`).

    Raises:
        ValueError: A value is out of range.
    """

    texture: float = 4.0
    width: int = 48
    opinion: float = 2.0
    features: float = 0.0
    distance: float = 0.0
    pace: float = 2.0
    calm: float = 1.0
    roughness: float = 4.0

    def __post_init__(self) -> None:
        if self.width < 1 or not min(self.texture, self.pace) > 0:
            raise ValueError(
                f"width, texture and pace must be above 0, got {self.width}, {self.texture:g}, {self.pace:g}"
            )
        for name, most in (("width", WIDEST), ("texture", 128), ("pace", 1000)):
            check_range(name, getattr(self, name), 0, most)
        weights = self.opinion, self.features, self.distance, self.calm, self.roughness
        if min(weights) < 0:
            raise ValueError("opinion, features, distance, calm and roughness are weights from 0")


class Critic(nn.Module):
    """A convolutional network that gives one logit for each square of an image.

    Args:
        config: Its shape.
        bands: Bands of an image.
    """

    def __init__(self, config: CriticConfig, bands: int) -> None:
        super().__init__()
        widths = [config.width * min(4, 1 << level) for level in range(HALVINGS + 1)]
        first = nn.Conv2d(2 * bands + 1, widths[0], 3, padding=1)
        halving = [nn.Conv2d(above, below, 4, stride=2, padding=1) for above, below in pairwise(widths)]
        last = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.layers = nn.ModuleList([first, *halving, last])
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor, about: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge images.

        Args:
            images: What is judged, ``(B, bands, H, W)``, H and W multiples of ``2**HALVINGS``.
            about: What it is judged beside, for answers and ground alike, ``(B, bands + 1, H, W)``.

        Returns:
            Logits ``(B, 1, H / 8, W / 8)``, higher for the ground's, and the features of each layer.
        """
        h = torch.cat([images, about], dim=1)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h)
        return self.head(h), features
