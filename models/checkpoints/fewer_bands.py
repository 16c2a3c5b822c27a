"""A model for fewer bands, out of one for more: where another band stands in for one that is missing.

To a network whose near infrared is always a copy of red, the two are one band: what its first layers make of
either, they make of their sum. So weights that read the missing band are added to those that read its
stand-in, weights that give it are dropped, and the smaller model gives what the larger one gives with the
stand-in in its place, without the time for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from decr_scene.models.checkpoints.model_file import ModelConfig
from decr_scene.models.errors import CheckpointError


def without_band(
    config: ModelConfig, tensors: Mapping[str, Tensor], band: str, stand_in: str
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Fold one band of a model into another.

    Args:
        config: A model with our own reference, without a detector.
        tensors: Its weights.
        band: The band that is to go.
        stand_in: The band that takes its place.

    Raises:
        CheckpointError: The model lacks one of the two bands, or has networks that cannot be folded.
    """
    for name in (band, stand_in):
        if name not in config.bands:
            raise CheckpointError(f"model {config.name} has bands {', '.join(config.bands)}, no {name!r}")
    if band == stand_in:
        raise CheckpointError(f"{band!r} cannot stand in for itself: name another band")
    if config.network is None or config.reference.kind != "unet" or config.detector is not None:
        raise CheckpointError(f"model {config.name} has a detector or a published reference: not folded")
    bands = len(config.bands)
    gone, kept = config.bands.index(band), config.bands.index(stand_in)
    reads, gives = _layers(config)
    folded = dict(tensors)
    for name, (images, cells) in reads.items():
        folded[name] = _reading_less(tensors[name], bands, images, cells, gone, kept)
    for name, cells in gives.items():
        for part in (f"{name}.weight", f"{name}.bias"):
            folded[part] = _giving_less(tensors[part], bands, cells, gone)
    fewer = bands - 1
    smaller = replace(
        config,
        bands=tuple(name for name in config.bands if name != band),
        network=replace(config.network, bands=fewer),
        reference=replace(config.reference, bands=fewer),
    )
    return smaller, folded


def _layers(config: ModelConfig) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Layers that read bands, with how many images they read and the values a band has of each; that give."""
    assert config.network is not None, "without_band has refused it"
    noise, weight, own = (
        part.patch**2 for part in (config.network.noise, config.network.weight, config.reference)
    )
    reads = {
        "network.noise_net.stem.weight": (2, noise),
        "network.weight_net.stem.weight": (3, weight),
        "reference.enter.weight": (1, own),
    }
    gives = {"network.noise_net.head": noise, "network.weight_net.head": weight, "reference.leave": own}
    if config.reference.contrast:
        gives["reference.contrast"] = 1
    if config.reference.context:
        reads["reference.context.weight"] = (1, 1)
    return reads, gives


def _reading_less(weight: Tensor, bands: int, images: int, cells: int, gone: int, kept: int) -> Tensor:
    """Add what reads the band to what reads its stand-in; channels are image, band, cell; others follow."""
    count = images * bands * cells
    parts = weight[:, :count].float().clone().reshape(len(weight), images, bands, cells, *weight.shape[2:])
    parts[:, :, kept] += parts[:, :, gone]
    left = parts[:, :, [i for i in range(bands) if i != gone]].flatten(1, 3)
    return torch.cat([left.to(weight.dtype), weight[:, count:]], dim=1)


def _giving_less(tensor: Tensor, bands: int, cells: int, gone: int) -> Tensor:
    """Drop the channels that give the band; channels are band, cell."""
    parts = tensor.reshape(bands, cells, *tensor.shape[1:])
    return parts[[i for i in range(bands) if i != gone]].flatten(0, 1)
