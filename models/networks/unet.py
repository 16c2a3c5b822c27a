"""The UNet of the diffusion networks: residual blocks that know the step number, attention at small sizes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.networks.layers import (
    GroupNorm,
    ResidualBlock,
    SelfAttention,
    TimeEmbedding,
    Upsample,
    conv3x3,
    zeroed,
)
from decr_scene.models.value_types import DEEPEST, WIDEST, check_range


@dataclass(frozen=True)
class UNetConfig:
    """Shape of one UNet; the defaults are the published noise predictor.

    Args:
        channels: Channels of the first level.
        multipliers: Channels of each level over ``channels``; every level halves the size.
        num_res_blocks: Residual blocks of a level on the way down (one more on the way up).
        attention_factors: Down-sampling factors, inside the UNet, at which there is attention; there always
            is in the middle.
        heads: Heads of every attention.
        scale_shift: The time embedding scales and shifts (else it is added).
        patch: The input is folded ``patch x patch`` pixels into channels first, the output unfolded last.

    Raises:
        ValueError: A value is out of range, or the heads do not divide the channels they attend to.
    """

    channels: int = 96
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 3)
    num_res_blocks: int = 2
    attention_factors: tuple[int, ...] = (4, 8)
    heads: int = 4
    scale_shift: bool = True
    patch: int = 1

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels must be an even number of at least 2, got {self.channels}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one positive number per level, got {self.multipliers}")
        for name, most in (("num_res_blocks", DEEPEST), ("heads", WIDEST), ("patch", DEEPEST)):
            check_range(name, getattr(self, name), 1, most)
        check_range("levels", len(self.multipliers), 1, DEEPEST)
        check_range("channels of a level", max(self.widths), 1, WIDEST)
        for width in self._attended_widths():
            if width % self.heads:
                raise ValueError(f"heads must divide the channels they attend to: {self.heads} and {width}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of each level."""
        return tuple(self.channels * m for m in self.multipliers)

    @property
    def multiple(self) -> int:
        """Return the number of pixels that height and width must be multiples of."""
        return self.patch << (len(self.multipliers) - 1)

    def attends(self, level: int) -> bool:
        """Return whether the blocks of a level have attention."""
        return 2**level in self.attention_factors

    def _attended_widths(self) -> list[int]:
        return [w for level, w in enumerate(self.widths) if self.attends(level)] + [self.widths[-1]]


PUBLISHED_WEIGHT = UNetConfig(
    channels=64, multipliers=(1, 1, 2), attention_factors=(4,), heads=1, scale_shift=False
)


class Block(nn.Module):
    """A residual block, followed by attention where its level has any."""

    def __init__(self, config: UNetConfig, channels: int, out: int, attends: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels, out, 4 * config.channels, config.scale_shift)
        self.attention = SelfAttention(out, config.heads) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, out, H, W)``."""
        h: Tensor = self.attention(self.residual(x, embedding))
        return h


class Middle(nn.Module):
    """Residual block, attention, residual block at the smallest size."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        self.first = Block(config, width, width, attends=True)
        self.second = Block(config, width, width, attends=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        h: Tensor = self.second(self.first(x, embedding), embedding)
        return h


class _Level(nn.Module):
    """The blocks of one size, then the way to the next; ``None``: there is none."""

    def __init__(self, blocks: list[Block], resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


class DownLevel(_Level):
    """The blocks of one size, then the way to half of it (``None`` at the smallest)."""

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Run ``h``, ``(B, C, H, W)``, and append every result on the way to ``skips``."""
        for block in self.blocks:
            h = block(h, embedding)
            skips.append(h)
        if self.resample is not None:
            h = self.resample(h)
            skips.append(h)
        return h


class UpLevel(_Level):
    """The blocks of one size, each fed with one kept tensor, then the way to twice the size."""

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Run ``h``, ``(B, C, H, W)``, and take from the end of ``skips``."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return h if self.resample is None else self.resample(h)


def _encoder(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """Build the levels from large to small, and list the channels of all that is kept for the decoder."""
    levels = nn.ModuleList()
    skips = [config.channels]
    for number, width in enumerate(config.widths):
        blocks = []
        for _ in range(config.num_res_blocks):
            blocks.append(Block(config, skips[-1], width, config.attends(number)))
            skips.append(width)
        is_last = number == len(config.widths) - 1
        levels.append(DownLevel(blocks, None if is_last else conv3x3(width, width, stride=2)))
        if not is_last:
            skips.append(width)
    return levels, skips


def _decoder(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """Build the levels from small to large.

    Every block takes one kept tensor besides the running one.
    """
    levels = nn.ModuleList()
    running = config.widths[-1]
    for number, width in reversed(list(enumerate(config.widths))):
        blocks = []
        for _ in range(config.num_res_blocks + 1):
            blocks.append(Block(config, running + skips.pop(), width, config.attends(number)))
            running = width
        levels.append(UpLevel(blocks, Upsample(width) if number else None))
    return levels


class UNet(nn.Module):
    """A diffusion UNet: residual blocks that know the step number, attention at the small sizes.

    Args:
        config: Its shape.
        in_channels: Channels of the input, before folding.
        out_channels: Channels of the output.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.config = config
        folded = config.patch**2
        self.embedding = TimeEmbedding(config.channels)
        self.stem = conv3x3(in_channels * folded, config.channels)
        self.encoder, skips = _encoder(config)
        self.middle = Middle(config)
        self.decoder = _decoder(config, skips)
        self.norm = GroupNorm(config.widths[0])
        self.head = zeroed(conv3x3(config.widths[0], out_channels * folded))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Run the network.

        Args:
            x: ``(B, in_channels, H, W)``; H and W multiples of ``config.multiple``.
            t: Step numbers, ``(B,)``.

        Returns:
            ``(B, out_channels, H, W)``.

        Raises:
            ValueError: The size is not such a multiple.
        """
        self._check_size(x)
        embedding: Tensor = self.embedding(t)
        h: Tensor = self.stem(F.pixel_unshuffle(x, self.config.patch).to(self.stem.weight.dtype))
        skips = [h]
        for level in self.encoder:
            h = level(h, embedding, skips)
        h = self.middle(h, embedding)
        for level in self.decoder:
            h = level(h, embedding, skips)
        return F.pixel_shuffle(self.head(self.norm(h, silu=True)), self.config.patch)

    def _check_size(self, x: Tensor) -> None:
        height, width = x.shape[-2:]
        multiple = self.config.multiple
        if height % multiple or width % multiple or not height or not width:
            raise ValueError(
                f"image is {height} x {width} px, the network takes multiples of {multiple}: pad or crop it"
            )
