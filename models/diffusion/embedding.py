"""Embed the step number for a network."""

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Embed the step number: ``[cos(t f_0), .., sin(t f_0), ..]``, ``f_i = 10000^(-i / (dim/2))``.

    Args:
        t: Step numbers, ``(B,)``.
        dim: Length of the embedding, even.

    Returns:
        float32 ``(B, dim)``, the cosines first.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    # The exponential in float64: in float32 its last bit depends on the processor, and is seen at t = 999.
    frequencies = (-math.log(10000) * index / half).double().exp().float()
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
