"""CVAE (Ding et al. 2022): ground under cloud is drawn from a latent distribution of the image.

One image has many answers, whose spread can be measured. All images must have one size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 50
"""Numbers that an answer is drawn with."""

SIDE, WIDTH = 256, 32
"""Side of the images, px, and channels of the first convolution, of the published network."""

PATCH = 16
HEADS, LAYERS = 8, 4

STAGES = ((1, 2, 2), (8, 16), (8, 4), (2, 1), (4, 8))
"""Channels of each stage's convolutions over ``width``; the last stage has one more, to the bands."""


class CVAE(nn.Module):
    """Encoder and decoder in [0, 1]; the answer is within 1 of the cloudy image and is not limited.

    Args:
        bands: Bands in and out.
        width: Channels of the first convolution; all others and the tokens go with it.
        side: Side of the images, px; a multiple of 16.
    """

    def __init__(self, bands: int, width: int = WIDTH, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.encoder = Encoder(bands, width, side)
        self.decoder = Decoder(bands, width, side)

    def forward(self, cloudy: Tensor, eps: Tensor | None = None) -> Tensor:
        """Return the clear image, ``(B, bands, side, side)``.

        Args:
            cloudy: ``(B, bands, side, side)`` in [0, 1].
            eps: Standard normal ``(B, 50)``; ``None``: zero, the middle of the distribution.

        Raises:
            ValueError: The image has another size.
        """
        mu, log_var = self.encode(cloudy)
        return self.decode(cloudy, mu if eps is None else draw_latent(mu, log_var, eps))

    def encode(self, cloudy: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the latent, ``(B, 50)`` each.

        Raises:
            ValueError: The image has another size.
        """
        if cloudy.shape[-2:] != (self.side, self.side):
            height, width = cloudy.shape[-2:]
            raise ValueError(
                f"image is {height} x {width} px, CVAE takes {self.side} x {self.side}: cut or resize it"
            )
        mu, log_var = self.encoder(cloudy)
        return mu, log_var

    def decode(self, cloudy: Tensor, z: Tensor) -> Tensor:
        """Return ``y + tanh(decoder(z, y))``, ``(B, bands, side, side)``."""
        change: Tensor = self.decoder(z, cloudy)
        return cloudy + torch.tanh(change)


def draw_latent(mu: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """Draw ``mu + eps exp(log_var / 2)``, same shape."""
    return mu + eps * torch.exp(log_var / 2)


class Encoder(nn.Module):
    """A small vision transformer with two tokens of its own, which become mean and variance."""

    def __init__(self, bands: int, width: int, side: int) -> None:
        super().__init__()
        features = 16 * width
        self.patch_embedding = Embedding(bands, features, (side // PATCH) ** 2)
        self.encoder = Transformer(features)
        self.mu = nn.Linear(features, LATENT)
        self.log_var = nn.Linear(features, LATENT)

    def forward(self, cloudy: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(B, bands, H, W)`` to mean and log variance, ``(B, 50)`` each."""
        tokens = self.encoder(self.patch_embedding(cloudy))
        return self.mu(tokens[:, 0]), self.log_var(tokens[:, 1])


class Embedding(nn.Module):
    """Patches row by row, after the two tokens, each with its position embedding."""

    def __init__(self, bands: int, features: int, patches: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.randn(1, patches + 2, features))
        self.mu_tokens = nn.Parameter(torch.randn(1, 1, features))
        self.log_var_tokens = nn.Parameter(torch.randn(1, 1, features))
        self.patch_embedding = nn.Conv2d(bands, features, PATCH, stride=PATCH)

    def forward(self, cloudy: Tensor) -> Tensor:
        """Map ``(B, bands, H, W)`` to ``(B, patches + 2, features)``."""
        patches = self.patch_embedding(cloudy).flatten(2).transpose(1, 2)
        own = (token.expand(len(patches), -1, -1) for token in (self.mu_tokens, self.log_var_tokens))
        return torch.cat([*own, patches], dim=1) + self.position_embeddings


class Transformer(nn.Module):
    """Layers and a last norm, ``(B, N, features)`` to the same."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(features) for _ in range(LAYERS))
        self.encoder_norm = nn.LayerNorm(features)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, N, features)`` to the same shape."""
        for layer in self.layers:
            tokens = layer(tokens)
        normed: Tensor = self.encoder_norm(tokens)
        return normed


class Layer(nn.Module):
    """``t + attention(norm(t))``, then ``t + mlp(norm(t))``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(features)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(features, 3 * features), "out": nn.Linear(features, features)}
        )
        self.mlp_norm = nn.LayerNorm(features)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(features, 2 * features), "fc2": nn.Linear(2 * features, features)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, N, features)`` to the same shape."""
        tokens = tokens + self._attention(self.attn_norm(tokens))
        changed: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.mlp_norm(tokens))))
        return tokens + changed

    def _attention(self, tokens: Tensor) -> Tensor:
        b, n, features = tokens.shape
        q, k, v = self.attn["qkv"](tokens).view(b, n, 3, HEADS, features // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, features)
        answer: Tensor = self.attn["out"](attended)
        return answer


class Decoder(nn.Module):
    """Decode from a sixteenth of the size; every stage also gets the cloudy image at its size."""

    def __init__(self, bands: int, width: int, side: int) -> None:
        super().__init__()
        self.side, self.bands = side, bands
        self.fc1 = nn.Linear(LATENT, 16 * width)
        self.fc2 = nn.Linear(16 * width, bands * (side // PATCH) ** 2)
        channels = bands
        for number, factors in enumerate(STAGES, 1):
            outs = [factor * width for factor in factors]
            last = number == len(STAGES)
            self.add_module(f"layer{number}", _convolutions(channels + bands, outs, bands if last else None))
            channels = outs[-1]
            if not last:
                self.add_module(f"attn_layer{number}", ChannelAttention(channels))
                up = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
                self.add_module(f"up{number}", up)

    def hidden(self, z: Tensor) -> Tensor:
        """Return the first map, ``(B, bands, side / 16, side / 16)``."""
        small = self.side // PATCH
        start: Tensor = self.fc2(self.fc1(z))
        return start.view(len(z), self.bands, small, small)

    def forward(self, z: Tensor, cloudy: Tensor) -> Tensor:
        """Map ``(B, 50)`` and ``(B, bands, side, side)`` to the latter's shape."""
        h = self.hidden(z)
        for number in range(1, len(STAGES)):
            small = F.interpolate(cloudy, size=h.shape[-2:], mode="bicubic", align_corners=True)
            h = self.get_submodule(f"layer{number}")(torch.cat([h, small], dim=1))
            h = self.get_submodule(f"up{number}")(self.get_submodule(f"attn_layer{number}")(h))
        answer: Tensor = self.get_submodule(f"layer{len(STAGES)}")(torch.cat([h, cloudy], dim=1))
        return answer


class ChannelAttention(nn.Module):
    """Multiply each channel by a factor in (0, 1), computed from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze, excite = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.channel_attn = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        factor: Tensor = self.channel_attn(x.mean(dim=(2, 3), keepdim=True))
        return x * factor


def _convolutions(channels: int, outs: list[int], bands: int | None) -> nn.Sequential:
    """Make 3 x 3 convolutions with a PReLU after each, and maybe one to the bands without."""
    layers: list[nn.Module] = []
    for out in outs:
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.PReLU(out)]
        channels = out
    if bands is not None:
        layers.append(nn.Conv2d(channels, bands, 3, padding=1))
    return nn.Sequential(*layers)
