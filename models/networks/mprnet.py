"""The published reference model ``mn``: MPRNet, three stages on quarters, halves and the whole image.

No convolution has a bias, and one slope is shared by every PReLU of the network.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVEL_STEP = 20  # channels added per level of an encoder
REFINE_STEP = 16  # channels added in the third stage
REDUCTION = 4  # of the channel attention
MULTIPLE = 8  # height and width, px: quarters are halved twice more


class MPRNet(nn.Module):
    """Multi-stage restoration network, ``(B, C, H, W)`` to the same, values in [0, 1].

    Args:
        bands: Bands of the image.
        width: Channels of the first level; levels have ``width + 20 k``, the third stage ``width + 16``.
    """

    def __init__(self, bands: int, width: int = 40) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((1,), 0.25))
        self.shallow1 = Shallow(bands, width)
        self.shallow2 = Shallow(bands, width)
        self.shallow3 = Shallow(bands, width)
        self.encoder1 = Encoder(width)
        self.decoder1 = Decoder(width)
        self.encoder2 = Encoder(width)
        self.cross = CrossStage(width)
        self.decoder2 = Decoder(width)
        self.sam1 = SupervisedAttention(bands, width)
        self.sam2 = SupervisedAttention(bands, width)
        self.merge1 = _conv(2 * width, width)
        self.merge2 = _conv(2 * width, width + REFINE_STEP)
        self.refine = Refine(width)
        self.tail = _conv(width + REFINE_STEP, bands)

    def forward(self, image01: Tensor) -> Tensor:
        """Restore an image ``(B, C, H, W)`` in [0, 1]: its third stage, clamped to that range.

        Raises:
            ValueError: H or W is not a multiple of 8.
        """
        return self.stages(image01)[0].clamp(0, 1)

    def stages(self, image01: Tensor) -> list[Tensor]:
        """Return the restored images ``[stage3, stage2, stage1]``, ``(B, C, H, W)`` each, not clamped."""
        _check_size(image01)
        slope = self.slope
        halves = _split(image01, dim=2)
        quarters = _split(halves, dim=3)

        encoded1 = [_join(e, dim=3) for e in self.encoder1(self.shallow1(quarters, slope), slope)]
        decoded1 = self.decoder1(encoded1, slope)
        attended1, stage1 = self.sam1(decoded1[0], halves)

        merged = self.merge1(torch.cat([self.shallow2(halves, slope), attended1], dim=1))
        crossed = self.cross(encoded1, decoded1)
        encoded2 = [_join(e, dim=2) for e in self.encoder2(merged, slope, crossed)]
        decoded2 = self.decoder2(encoded2, slope)
        attended2, stage2 = self.sam2(decoded2[0], image01)

        merged = self.merge2(torch.cat([self.shallow3(image01, slope), attended2], dim=1))
        stage3 = self.tail(self.refine(merged, encoded2, decoded2, slope)) + image01
        return [stage3, stage2, _join(stage1, dim=2)]


class ChannelAttentionBlock(nn.Module):
    """``x + CA(conv2(PReLU(conv1(x))))``; CA scales the channels by a sigmoid of the global means (CAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)
        self.squeeze = _conv(channels, channels // REDUCTION, 1)
        self.excite = _conv(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, n, H, W)`` to the same shape."""
        h = self.conv2(F.prelu(self.conv1(x), slope))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        result: Tensor = h * gate + x
        return result


class Chain(nn.Module):
    """Channel attention blocks one after the other."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ChannelAttentionBlock(channels) for _ in range(length))

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, n, H, W)`` to the same shape."""
        for block in self.blocks:
            x = block(x, slope)
        return x


class Shallow(nn.Module):
    """The first features of a stage: a convolution and a block."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.conv = _conv(bands, width)
        self.block = ChannelAttentionBlock(width)

    def forward(self, image: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, width, H, W)``."""
        features: Tensor = self.block(self.conv(image), slope)
        return features


class Resize(nn.Module):
    """Bilinear to half or twice the size, then a 1 x 1 convolution."""

    def __init__(self, channels: int, out: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.conv = _conv(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to ``(B, out, factor H, factor W)``."""
        resized = F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)
        result: Tensor = self.conv(resized)
        return result


class CrossStage(nn.Module):
    """What the second encoder gets of the first stage: per level, 1 x 1 of encoder plus 1 x 1 of decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_conv(n, n, 1) for n in _widths(width))
        self.decoder = nn.ModuleList(_conv(n, n, 1) for n in _widths(width))

    def forward(self, encoded: list[Tensor], decoded: list[Tensor]) -> list[Tensor]:
        """Map the features of three levels to the same shapes."""
        levels = zip(self.encoder, self.decoder, encoded, decoded, strict=True)
        return [from_encoder(e) + from_decoder(d) for from_encoder, from_decoder, e, d in levels]


class Encoder(nn.Module):
    """Two blocks at each of three sizes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = _widths(width)
        self.levels = nn.ModuleList(Chain(n, 2) for n in widths)
        self.down = nn.ModuleList(Resize(a, b, 0.5) for a, b in pairwise(widths))

    def forward(self, x: Tensor, slope: Tensor, crossed: list[Tensor] | None = None) -> list[Tensor]:
        """Map ``(B, width, H, W)`` to the features of the three levels, each plus its ``crossed``."""
        encoded: list[Tensor] = []
        for number, level in enumerate(self.levels):
            x = level(self.down[number - 1](x) if number else x, slope)
            x = x if crossed is None else x + crossed[number]
            encoded.append(x)
        return encoded


class Decoder(nn.Module):
    """Back from the smallest of three sizes, two blocks at each, with a block in every skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = _widths(width)
        self.levels = nn.ModuleList(Chain(n, 2) for n in widths)
        self.up = nn.ModuleList(Resize(b, a, 2.0) for a, b in pairwise(widths))
        self.skips = nn.ModuleList(ChannelAttentionBlock(n) for n in widths[:-1])

    def forward(self, encoded: list[Tensor], slope: Tensor) -> list[Tensor]:
        """Map the features of three levels, largest first, to the same shapes."""
        decoded = [self.levels[2](encoded[2], slope)]
        for number in (1, 0):
            skipped = self.skips[number](encoded[number], slope)
            decoded.insert(0, self.levels[number](self.up[number](decoded[0]) + skipped, slope))
        return decoded


class SupervisedAttention(nn.Module):
    """Makes an image of the features, and gates the features by that image (SAM)."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.mix = _conv(width, width, 1)
        self.to_image = _conv(width, bands, 1)
        self.from_image = _conv(bands, width, 1)

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Gate features ``(B, width, H, W)`` by the image ``(B, C, H, W)`` they make, and return both."""
        restored: Tensor = self.to_image(features) + image
        gate = torch.sigmoid(self.from_image(restored))
        return self.mix(features) * gate + features, restored


class RefineBlock(nn.Module):
    """Eight channel attention blocks and a convolution, plus the input (ORB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.chain = Chain(channels, 8)
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Map ``(B, n, H, W)`` to the same shape."""
        result: Tensor = x + self.conv(self.chain(x, slope))
        return result


class Refine(nn.Module):
    """The third stage at full size, fed after each of its blocks with one level of the second (ORSNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefineBlock(width + REFINE_STEP) for _ in range(3))
        self.encoder = nn.ModuleList(Feed(width, level) for level in range(3))
        self.decoder = nn.ModuleList(Feed(width, level) for level in range(3))

    def forward(self, x: Tensor, encoded: list[Tensor], decoded: list[Tensor], slope: Tensor) -> Tensor:
        """Map ``(B, width + 16, H, W)`` and the features of three levels to ``(B, width + 16, H, W)``."""
        feeds = zip(self.blocks, self.encoder, self.decoder, encoded, decoded, strict=True)
        for block, from_encoder, from_decoder, e, d in feeds:
            x = block(x, slope) + from_encoder(e) + from_decoder(d)
        return x


class Feed(nn.Module):
    """Features of one level, enlarged to full size and widened to the third stage."""

    def __init__(self, width: int, level: int) -> None:
        super().__init__()
        widths = _widths(width)
        self.up = nn.ModuleList(Resize(widths[n], widths[n - 1], 2.0) for n in range(level, 0, -1))
        self.conv = _conv(width, width + REFINE_STEP, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width + 20 level, H / 2^level, W / 2^level)`` to ``(B, width + 16, H, W)``."""
        for up in self.up:
            x = up(x)
        result: Tensor = self.conv(x)
        return result


def _widths(width: int) -> list[int]:
    return [width + LEVEL_STEP * level for level in range(3)]


def _conv(channels: int, out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)


def _split(x: Tensor, dim: int) -> Tensor:
    """Put the two halves of every image one behind the other in the batch: ``(B, ..)`` to ``(2B, ..)``."""
    return torch.cat(x.chunk(2, dim), dim=0)


def _join(x: Tensor, dim: int) -> Tensor:
    """Undo :func:`_split`, ``(2B, ..)`` -> ``(B, ..)``."""
    return torch.cat(x.chunk(2, 0), dim=dim)


def _check_size(image: Tensor) -> None:
    height, width = image.shape[-2:]
    if height % MULTIPLE or width % MULTIPLE or not height or not width:
        raise ValueError(f"image is {height} x {width} px, mn takes multiples of {MULTIPLE}: pad or crop it")
