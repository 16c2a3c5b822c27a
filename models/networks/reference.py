"""Build networks of the first guess, with one interface: a clear image for a cloudy one.

All of them map ``(B, C, H, W)`` in [-1, 1] to the same. The published networks work in [0, 1];
`PublishedReference` converts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.networks.group_norm import Step, group_norm
from decr_scene.models.networks.layers import bilinear, fold, sum_into, zeroed
from decr_scene.models.networks.mdsa import MDSA, TOO_SMALL
from decr_scene.models.networks.mprnet import MULTIPLE, MPRNet
from decr_scene.models.networks.published_reference import (
    DiffusedReference,
    DrawnReference,
    PublishedReference,
)
from decr_scene.models.rivals.amgan import AMGAN
from decr_scene.models.rivals.cvae import CVAE, PATCH
from decr_scene.models.rivals.diffcr import DiffCR
from decr_scene.models.rivals.spagan import SpAGAN
from decr_scene.models.value_types import DEEPEST, WIDEST, check_range


@dataclass(frozen=True)
class ReferenceConfig:
    """Which reference network, and how large.

    Args:
        kind: ``"unet"`` (ours); ``"mn"`` or ``"mdsa"`` (published with DE); ``"spagan"``, ``"amgan"``,
            ``"cvae"`` or ``"diffcr"`` (other systems).
        bands: Bands in and out.
        width: Channels of the first level (published: 40 for mn, 16 for mdsa, 64 for diffcr, else 32).
        multipliers: Channels of each level over ``width``; ours only.
        blocks: Residual blocks a level; ours only.
        middle_blocks: Residual blocks at the coarsest level; ours only.
        patch: Factor of the pixel-unshuffle that the image enters by; ours only.
        contrast: The network also predicts the growth of local contrast; ours only.
        context: The network also gets the context of the whole scene; ours only.
        side: Side of the images, px, that it takes and no others; cvae only.
        smooth: Up-sampled features are smoothed, so that no grid of the network is visible; ours only.
    """

    kind: str = "unet"
    bands: int = 4
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 2
    middle_blocks: int = 4
    patch: int = 2
    contrast: bool = False
    context: bool = False
    side: int = 256
    smooth: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _BUILDERS:
            raise ValueError(f"reference kind {self.kind!r} is unknown, expected one of {sorted(_BUILDERS)}")
        check_range("bands", self.bands, 1, WIDEST)
        check_range("width", self.width, 1, WIDEST)
        for name, depth in (("blocks", self.blocks), ("middle_blocks", self.middle_blocks)):
            check_range(name, depth, 0, DEEPEST)
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one positive number per level, got {self.multipliers}")
        check_range("levels", len(self.multipliers), 1, DEEPEST)
        check_range("patch", self.patch, 1, DEEPEST)
        check_range("channels of a level", self.width * max(self.multipliers), 1, WIDEST)
        if self.kind == "unet" and self.width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, got {self.width}")
        if self.kind in SQUEEZED and self.width < LEAST_WIDTH:
            raise ValueError(f"width of {self.kind} must be {LEAST_WIDTH} at least, got {self.width}")
        if self.context and self.kind != "unet":
            raise ValueError(f"a reference of kind {self.kind!r} takes no context")
        if self.kind == "cvae" and (self.side < PATCH or self.side % PATCH):
            raise ValueError(f"side must be a positive multiple of {PATCH}, got {self.side}")

    @property
    def only_side(self) -> int | None:
        """Return the one side of images that it takes, px, or ``None`` if it takes any."""
        return self.side if self.kind == "cvae" else None

    def check_crop(self, side: int) -> None:
        """Refuse crops of ``side`` px that the network does not take.

        Raises:
            ValueError: It takes no such images.
        """
        if self.only_side not in (None, side):
            raise ValueError(f"crop must be the reference's side, {self.only_side}, got {side}")
        if self.kind == "mn" and side % MULTIPLE:
            raise ValueError(f"crop must be a multiple of {MULTIPLE} for a reference of kind mn, got {side}")
        if self.kind == "mdsa" and side <= TOO_SMALL:
            raise ValueError(f"crop must be above {TOO_SMALL} for a reference of kind mdsa, got {side}")

    @property
    def takes_windows(self) -> bool:
        """Return whether large windows give the same answer as small ones, except at their border."""
        return self.kind == "unet"

    @property
    def draws(self) -> bool:
        """Return whether one image has many answers, of which noise chooses one."""
        return self.kind in ("cvae", "diffcr")


SQUEEZED, LEAST_WIDTH = ("mn", "mdsa", "cvae"), 4
"""Kinds whose channel attention takes a quarter of the channels, and their least width."""

GROUPS = 8
"""Groups of the normalisation in our own reference; widths are multiples of it."""

FEW_CHANNELS = 16
"""Channels below which an image is smoothed faster laid out channel by channel."""

CONTRAST_BLOCK = 8
"""Side of the blocks from whose mean the contrast of a pixel is measured, px."""

MOST_CONTRAST = 2.0
"""Greatest power of e that contrast grows by."""

CONTEXT_BANDS = 3
"""Channels of a context besides the bands of its anchor: cloud, shadow, nearness of clear ground."""

CLOUD_BAND, NEARNESS_BAND = 0, 2

ANCHOR_LOGIT = (-5.0, 5.0)
"""Logit of the anchor's share before training: on ground without cloud, and what cloud adds to it."""


class _Norm(nn.GroupNorm):
    """SiLU of group normalisation as `group_norm`, of `GROUPS` groups."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor, side: float | None = None, step: Step | None = None) -> Tensor:
        """Return SiLU of ``(B, C, H, W)`` normalised, in the type of ``x``.

        ``side`` and ``step`` are those of `group_norm`.
        """
        own = self.num_groups, self.weight, self.bias, self.eps
        return group_norm(x, *own, step, silu=True, side=side)


class PlainBlock(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``, the last convolution zero at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first_norm = _Norm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = _Norm(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        zeroed(self.second)

    def forward(self, x: Tensor, side: float | None = None, step: Step | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape.

        Args:
            x: Features.
            side: That of `group_norm`; ``None``: normalisation sees the whole image.
            step: Scale less 1, and shift, that a step number gives the second norm, ``(B, C, 1, 1)`` each.
        """
        h = self.second_norm(self.first(self.first_norm(x, side)), side, step)
        return sum_into(self.second(h), x)


class PlainUNet(nn.Module):
    """A residual UNet that works on pixel-unshuffled images and adds its answer to the cloudy input.

    Group normalisation lets it see the tile as a whole, and how much of it is cloud; without, it is 2 dB
    worse (docs/decisions). By this the tone may differ from tile to tile, which is evened out when the
    answers of all tiles are feathered into one field. In a window of many tiles each pixel is normalised by
    as much of its surroundings as a tile would show, so that the tone is that of tiles. Any size is taken:
    the image is mirrored up to the next multiple of `multiple` and cut again.

    Thin cloud takes contrast from the ground by ``T = exp(-tau)``. Where the configuration has ``contrast``,
    the answer is ``y + k (y - mean(y)) + r``: the network gives ``k``, one value per folded pixel and band,
    and ``r``, so that the ground has its contrast again without every edge being part of ``r``.

    Unfolding channels into pixels leaves a grid of 2, 4, 8 px on ground without texture; where the
    configuration has ``smooth``, each step up is smoothed.

    Where the configuration has ``context``, the network is also given the anchor, which is the tone of the
    clear ground around, and where the scene as a whole shows cloud and shadow. Its answer is then mixed with
    the anchor, ``(1 - g) (y + change) + g anchor``, by a share ``g`` that it gives for each folded pixel.
    """

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        channels = [config.width * m for m in config.multipliers]
        self.patch = config.patch
        self.multiple = config.patch * 2 ** (len(channels) - 1)
        fine, coarse = [c for c in channels[:-1] for _ in range(config.blocks)], [channels[-1]]
        self.block_channels = [*fine, *(coarse * config.middle_blocks), *reversed(fine)]
        self.enter = nn.Conv2d(config.bands * config.patch**2, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(_stack(c, config.blocks) for c in channels[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(channels))
        self.middle = _stack(channels[-1], config.middle_blocks)
        self.up = nn.ModuleList(nn.Conv2d(b, a * 4, 1) for a, b in itertools.pairwise(channels))
        self.decoder = nn.ModuleList(_stack(c, config.blocks) for c in channels[:-1])
        self.leave = nn.Conv2d(channels[0], config.bands * config.patch**2, 3, padding=1)
        zeroed(self.leave)
        self.contrast = nn.Conv2d(channels[0], config.bands, 3, padding=1) if config.contrast else None
        if self.contrast is not None:
            zeroed(self.contrast)
        self.smooth = config.smooth
        self.context = self.gate = None
        if config.context:
            self.context = nn.Conv2d(config.bands + CONTEXT_BANDS, channels[0], 3, padding=1)
            self.gate = nn.Conv2d(channels[0], 1, 3, padding=1)
            zeroed(self.context)
            zeroed(self.gate)

    def forward(self, cloudy: Tensor, context: Tensor | None = None, norm_side: int | None = None) -> Tensor:
        """Return the first guess, not clipped while training.

        Args:
            cloudy: ``(B, C, H, W)`` in [-1, 1].
            context: ``(B, C + CONTEXT_BANDS, h, w)`` of the same area at any resolution: the anchor in
                [-1, 1], the probabilities of cloud and shadow, the nearness of clear ground, all zero where
                nothing is known; ``None``: nothing is. A network without ``context`` ignores it.
            norm_side: Side of the square around a pixel that normalisation sees, px; ``None``, and for
                images that are no larger: the whole image.
        """
        height, width = cloudy.shape[-2:]
        padded = _mirror(cloudy, self.multiple)
        upsampled = None
        if self.context is not None:
            if context is None:
                context = cloudy.new_zeros((len(cloudy), self.context.in_channels, 1, 1))
            upsampled = _mirror(bilinear(context, height, width), self.multiple)
        side = None if norm_side is None or max(height, width) <= norm_side else norm_side / self.patch
        result = self._answer(padded, upsampled, side)[..., :height, :width]
        return result if self.training else result.clamp(-1, 1)

    def _answer(self, image: Tensor, context: Tensor | None, side: float | None) -> Tensor:
        """Return the answer for a padded image ``(B, C, H, W)`` and its context of the same size."""
        folded = None if context is None else F.avg_pool2d(context, self.patch)
        h = self.features(fold([image], self.patch, self.enter.weight.dtype), folded, side)
        answer = sum_into(self.change(image, h), image)
        if context is None or folded is None:
            return answer
        share = bilinear(self._share_of_anchor(h, folded), *image.shape[-2:])
        return torch.lerp(answer, context[:, : image.shape[1]], share)

    def _share_of_anchor(self, h: Tensor, folded: Tensor) -> Tensor:
        """Return the anchor's share of the answer, ``(B, 1, h, w)``, 0 where no clear ground is known."""
        assert self.gate is not None
        bands = folded.shape[1] - CONTEXT_BANDS
        cloud, near = (folded[:, bands + i : bands + i + 1].float() for i in (CLOUD_BAND, NEARNESS_BAND))
        base, rise = ANCHOR_LOGIT
        return torch.sigmoid(self.gate(h).float() + base + rise * cloud) * (near * 4).clamp(max=1)

    def features(
        self,
        cells: Tensor,
        folded: Tensor | None,
        side: float | None,
        more: Tensor | None = None,
        steps: Sequence[Step] | None = None,
    ) -> Tensor:
        """Compute the features that every answer is made of, ``(B, width, H / patch, W / patch)``.

        Args:
            cells: The image with squares of `patch` px folded into channels, in the type of the weights,
                ``(B, C patch^2, H / patch, W / patch)``, H and W multiples of `multiple`.
            folded: A context of the features' size; ``None``: nothing is known.
            side: As that of `PlainBlock`, at the features' size.
            more: Features that are added to those of the image, ``(B, width, H / patch, W / patch)``.
            steps: Scale and shift of each block, in the order of `block_channels`.
        """
        h = self.enter(cells)
        if self.context is not None and folded is not None:
            h = sum_into(h, self.context(folded.to(cells.dtype)))
        if more is not None:
            h = sum_into(h, more)
        remaining = iter(steps if steps is not None else [None] * len(self.block_channels))
        sides = [None if side is None else side / 2**level for level in range(len(self.down) + 1)]
        skips = []
        for level, (blocks, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            h = _run_blocks(blocks, h, sides[level], remaining)
            skips.append(h)
            h = down(h)
        h = _run_blocks(self.middle, h, sides[-1], remaining)
        for level in reversed(range(len(skips))):
            h = sum_into(self._enlarged(self.up[level](h), 2), skips[level])
            h = _run_blocks(self.decoder[level], h, sides[level], remaining)
        return h

    def change(self, image: Tensor, h: Tensor) -> Tensor:
        """Compute what is added to the image, ``(B, C, H, W)``, from its `features`."""
        change = self._enlarged(self.leave(h).float(), self.patch)
        if self.contrast is not None:
            change = sum_into(change, self._contrast_change(image, self.contrast(h).float()))
        return change

    def _enlarged(self, x: Tensor, factor: int) -> Tensor:
        """Unfold channels into pixels, ``(B, C / f^2, f H, f W)``, smoothed by ``[1, 2, 1] / 4`` if set."""
        x = F.pixel_shuffle(x, factor)
        return _smoothed(x) if self.smooth and factor > 1 else x

    def _contrast_change(self, image: Tensor, power: Tensor) -> Tensor:
        """Return ``(e^power - 1) (y - mean(y))``, same shape, the power spread bilinearly over the pixels."""
        size = image.shape[-2:]
        power = bilinear(power, *size)
        mean = bilinear(F.avg_pool2d(image, CONTRAST_BLOCK, ceil_mode=True), *size)
        return torch.expm1(power.clamp(-MOST_CONTRAST, MOST_CONTRAST)) * (image - mean)


def build_reference(config: ReferenceConfig) -> nn.Module:
    """Build the network that ``config`` describes, with fresh weights."""
    return _BUILDERS[config.kind](config)


def _stack(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(PlainBlock(channels) for _ in range(blocks)))


def _run_blocks(blocks: nn.Module, h: Tensor, side: float | None, steps: Iterator[Step | None]) -> Tensor:
    for block in blocks.children():
        h = block(h, side, next(steps))
    return h


def _smoothed(x: Tensor) -> Tensor:
    """Smooth ``(B, C, H, W)`` by ``[1, 2, 1] / 4`` along both axes, as if the last pixels went on."""
    channels = x.shape[1]
    in_bf16 = x.is_cpu and x.dtype == torch.bfloat16
    if torch.is_grad_enabled() or (channels >= FEW_CHANNELS and not in_bf16):
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1, padding=1, count_include_pad=False), 2, 1)
    if channels >= FEW_CHANNELS:
        weight = x.new_tensor([1.0, 2.0, 1.0]) / 4
        kernel = (weight[:, None] * weight).expand(channels, 1, 3, 3).contiguous()
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    x = F.pad(x.contiguous(), (1, 1, 1, 1), mode="replicate")
    x = torch.add(x[..., :-2, :] + x[..., 2:, :], x[..., 1:-1, :], alpha=2)
    return torch.add(x[..., :-2] + x[..., 2:], x[..., 1:-1], alpha=2) / 16


def _mirror(image: Tensor, multiple: int) -> Tensor:
    """Extend bottom and right to a multiple, mirrored where the image is large enough, else repeated."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return image
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, bottom), mode=mode)


_BUILDERS: dict[str, Callable[[ReferenceConfig], nn.Module]] = {
    "unet": PlainUNet,
    "mn": lambda config: PublishedReference(MPRNet(config.bands, config.width)),
    "mdsa": lambda config: PublishedReference(MDSA(config.bands, config.width)),
    "spagan": lambda config: PublishedReference(SpAGAN(config.bands, config.width)),
    "amgan": lambda config: PublishedReference(AMGAN(config.bands, config.width)),
    "cvae": lambda config: DrawnReference(CVAE(config.bands, config.width, config.side)),
    "diffcr": lambda config: DiffusedReference(DiffCR(config.bands, config.width)),
}
