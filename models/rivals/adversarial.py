"""How SpA-GAN and AMGAN-CR learn: against a discriminator, with L1 and an attention that has a target.

As in their published code: images are in [0, 1], and means are over all pixels, bands and images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = {
    "spagan": {"gan": 1.0, "l1": 100.0, "att": 1.0},
    "amgan": {"gan": 0.1, "l1": 10.0, "att": 10.0},
}
"""Factors of the parts of each generator's loss."""

INITIAL_SPREAD = 0.02
"""Standard deviation of convolutions, and of the factors of norms around one, before training."""


def attention_target(cloudy: Tensor, clear: Tensor, signed: bool = False) -> Tensor:
    """Return ``clip(sum over bands of |x - y|, 0, 1)`` in DN of 255, as in the papers.

    Args:
        cloudy: ``(B, C, H, W)`` in [0, 1].
        clear: The same.
        signed: Where the clear image is brighter, ``x - y``, as the code that made the published weights has
            it: 0 under bright cloud and 1 in shadow.

    Returns:
        ``(B, 1, H, W)``.
    """
    difference = clear - cloudy if signed else (clear - cloudy).abs()
    return (difference.sum(dim=1, keepdim=True) * 255).clamp(0, 1)


def discriminator_losses(
    discriminator: nn.Module, cloudy: Tensor, clear: Tensor, answer: Tensor
) -> dict[str, Tensor]:
    """Return ``softplus(D(y, G))`` and ``softplus(-D(y, x))``.

    No gradient reaches the answer ``G``.
    """
    return {
        "fake": F.softplus(discriminator(cloudy, answer.detach())).mean(),
        "real": F.softplus(-discriminator(cloudy, clear)).mean(),
    }


def generator_parts(
    kind: str,
    discriminator: nn.Module,
    cloudy: Tensor,
    clear: Tensor,
    answer: Tensor,
    attention: Tensor,
    signed: bool = False,
) -> dict[str, Tensor]:
    """Return ``softplus(-D(y, G))``, ``|G - x|`` and ``(A - M)^2``, each with its factor of `FACTORS`."""
    parts = {
        "gan": F.softplus(-discriminator(cloudy, answer)).mean(),
        "l1": F.l1_loss(answer, clear),
        "att": F.mse_loss(attention, attention_target(cloudy, clear, signed)),
    }
    return {name: FACTORS[kind][name] * part for name, part in parts.items()}


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draw initial weights: convolutions from N(0, 0.02), norms' factors from N(1, 0.02), their biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, INITIAL_SPREAD)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, INITIAL_SPREAD)
            nn.init.zeros_(module.bias)
