"""How CVAE learns: the mean of several answers against the clear image, and a latent near the normal one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 10
"""Answers whose mean is judged."""

KL, EDGE = 0.01, 0.18
"""Factors of the divergence and of the edges."""

BEND = 0.5
"""Error from which on the smooth L1 is straight."""

EDGE_BANDS = 3
"""Only the first of the bands have edges: a near infrared has none."""


def variational_parts(answer: Tensor, clear: Tensor, mu: Tensor, log_var: Tensor) -> dict[str, Tensor]:
    """Return the three parts of the loss, each with its factor.

    ``SmoothL1(a, x) + 0.01 KL + 0.18 |Lap a - Lap x|``; ``KL = -1/2 sum(1 + log_var - mu^2 - e^log_var)``
    over the latent and the batch, and ``Lap`` eight times a pixel less its eight neighbours.

    Args:
        answer: ``(B, C, H, W)`` in [0, 1], the mean of several.
        clear: The same.
        mu: ``(B, L)``.
        log_var: ``(B, L)``.
    """
    divergence = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum()
    edges = F.l1_loss(_laplacian(answer[:, :EDGE_BANDS]), _laplacian(clear[:, :EDGE_BANDS]))
    return {
        "smooth_l1": F.smooth_l1_loss(answer, clear, beta=BEND),
        "kl": KL * divergence,
        "edge": EDGE * edges,
    }


def _laplacian(image: Tensor) -> Tensor:
    kernel = torch.full((image.shape[1], 1, 3, 3), -1.0, dtype=image.dtype, device=image.device)
    kernel[:, :, 1, 1] = 8
    return F.conv2d(image, kernel, padding=1, groups=image.shape[1])
