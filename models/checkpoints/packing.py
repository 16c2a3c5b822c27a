"""Pack the kernels of a model's noise and weight networks in eight bits a weight, and unpack them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decr_scene.models.errors import CheckpointError

PACKED, SCALE = "network.", ".scale"
"""Prefix of the names of packed kernels, and suffix of the names of their scales."""

LARGEST = 127
"""Magnitude of the largest weight of an output channel in a packed kernel."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack kernels in eight bits, with a scale an output channel.

    Tensors of one dimension stay. Those of the reference stay too: their rounding would reach the answer
    unweighted, and cost 0.01 dB.
    """
    packed = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not name.startswith(PACKED):
            packed[name] = tensor
            continue
        channels = tensor.float().flatten(1)
        scale = (channels.abs().amax(dim=1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        packed[name] = (channels / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Unpack kernels to float32, without their scales.

    Other tensors stay.

    Raises:
        CheckpointError: ``what``, the file, lacks the scales of a kernel.
    """
    unpacked = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int8:
            continue
        scale = unpacked.pop(name + SCALE, None)
        if scale is None or scale.shape != tensor.shape[:1]:
            raise CheckpointError(f"{what}: the scales of {name} are missing: the file is damaged")
        unpacked[name] = (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
    return unpacked
