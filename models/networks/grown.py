"""A noise predictor grown from a network of the first guess: it begins as that one, and learns to denoise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.networks.layers import (
    GroupNorm,
    ResidualBlock,
    TimeEmbedding,
    conv3x3,
    fold,
    zeroed,
)
from decr_scene.models.networks.reference import PlainUNet, ReferenceConfig

IMAGES = 3
"""Images that it sees besides the cloudy one: the noisy image, its difference from the guess, the guess."""


@dataclass(frozen=True)
class GrownConfig:
    """Shape of a noise predictor that is grown from a reference of ours.

    Args:
        trunk: The reference that it begins as; a context is left out.
        local: Channels of the blocks that see every pixel, of the step number too.
        blocks: Number of those blocks.
        spread: Standard deviation of the error of a first guess, on the [-1, 1] scale, as it is assumed.

    Raises:
        ValueError: The trunk is no reference of ours, or a value is out of range.
    """

    trunk: ReferenceConfig = field(default_factory=ReferenceConfig)
    local: int = 48
    blocks: int = 3
    spread: float = 0.08

    def __post_init__(self) -> None:
        if self.trunk.kind != "unet":
            raise ValueError(f"only a reference of kind 'unet' grows, got {self.trunk.kind!r}")
        if self.local < 2 or self.local % 2 or self.blocks < 0:
            raise ValueError(
                f"local must be an even number from 2, blocks 0 or more, got {self.local}, {self.blocks}"
            )
        if not self.spread > 0:
            raise ValueError(f"spread must be above 0, got {self.spread:g}")

    @property
    def multiple(self) -> int:
        """Return the number of pixels that height and width must be multiples of."""
        return self.trunk.patch << (len(self.trunk.multipliers) - 1)


class GrownDenoiser(nn.Module):
    """A reference with step numbers in its blocks, and blocks of its finest level that see the noise.

    All that is new begins at zero: before training it answers as the reference does, whatever the noise.
    A regression by itself is the right answer where the noisy image shows nothing; what is left to learn is
    how to read it where it shows something.

    Args:
        config: Its shape.
    """

    def __init__(self, config: GrownConfig) -> None:
        super().__init__()
        shape = replace(config.trunk, context=False)
        self.patch = shape.patch
        cells = shape.bands * shape.patch**2
        embedded = 4 * config.local
        self.embedding = TimeEmbedding(config.local)
        self.trunk = PlainUNet(shape)
        self.see = zeroed(conv3x3(IMAGES * cells, shape.width))
        self.steps = nn.ModuleList(zeroed(nn.Linear(embedded, 2 * c)) for c in self.trunk.block_channels)
        self.enter = conv3x3((IMAGES + 1) * cells + shape.width, config.local)
        self.blocks = nn.ModuleList(
            ResidualBlock(config.local, config.local, embedded, scale_shift=True)
            for _ in range(config.blocks)
        )
        self.norm = GroupNorm(config.local)
        self.head = zeroed(conv3x3(config.local, cells))
        self.direct = zeroed(nn.Conv2d((IMAGES + 1) * cells, cells, 1))
        self.gain = zeroed(nn.Linear(embedded, cells))

    def forward(
        self, images: Sequence[Tensor], cloudy: Tensor, t: Tensor, of_its_own: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Run the network.

        Args:
            images: What is known of the clear image, as many as `IMAGES`, ``(B, C, H, W)`` each, H and W
                multiples of `GrownConfig.multiple`.
            cloudy: ``(B, C, H, W)`` in [-1, 1].
            t: Step numbers, ``(B,)``.
            of_its_own: Whether a first guess of its own is asked for.

        Returns:
            The change from the cloudy image to a first guess of its own, if asked for, and its raw answer,
            ``(B, C, H, W)`` each.
        """
        dtype = self.enter.weight.dtype
        embedding: Tensor = self.embedding(t)
        seen = fold([*images, cloudy], self.patch, dtype)
        of_images, of_cloudy = torch.split(seen, [self.see.in_channels, self.trunk.enter.in_channels], dim=1)
        both = [step(embedding)[:, :, None, None].chunk(2, dim=1) for step in self.steps]
        steps = [(scale, shift) for scale, shift in both]
        h = self.trunk.features(of_cloudy, None, None, self.see(of_images), steps)
        local = self.enter(torch.cat([seen, h], dim=1))
        for block in self.blocks:
            local = block(local, embedding)
        raw = self.head(self.norm(local, silu=True))
        raw = raw + self.direct(seen) * (1 + self.gain(embedding)[:, :, None, None])
        change = self.trunk.change(cloudy, h) if of_its_own else None
        return change, F.pixel_shuffle(raw, self.patch)
