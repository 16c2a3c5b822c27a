"""A model for fewer bands, out of one for more: where another band stands in for one that is missing.

To a network whose near infrared is always a copy of red, the two are one band: what its first layers make of
either, they make of their sum. So weights that read the missing band are added to those that read its
stand-in, weights that give it are dropped, and the smaller model gives what the larger one gives with the
stand-in in its place, without the time for it.

The reference may instead see a mix of bands, ``sum c_b (b + 1) - 1`` on the [-1, 1] scale: a copy is what no
sensor delivers, and the near infrared sees through haze, so real haze is less bright in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decr_scene.models.checkpoints.fold import Mix, config_without_band
from decr_scene.models.networks.grown import IMAGES

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.model_file import ModelConfig
    from decr_scene.models.networks.reference import ReferenceConfig

ENTER, ENTER_BIAS = "reference.enter.weight", "reference.enter.bias"
"""What the reference sees an image by."""

Layers = tuple[dict[str, tuple[int, int]], dict[str, int]]
"""Layers that read bands, and those that give them."""


def without_band(
    config: ModelConfig, tensors: Mapping[str, Tensor], band: str, stand_in: str, mix: Mix = ()
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Fold one band of a model into another.

    Args:
        config: A model with our own reference.
        tensors: Its weights, or those alone that `touched` names.
        band: The band that is to go.
        stand_in: The band that takes its place.
        mix: What the reference sees in its place instead; empty: the stand-in. What lies beyond an image is
            grey to a network: to this one darker, by the light that is missing from a mix of less than 1. An
            anchor is mixed without that offset, as one that is not known is all zero.

    Raises:
        CheckpointError: The model lacks one of the bands, or has networks that cannot be folded.
    """
    smaller = config_without_band(config, band, stand_in, mix)
    bands, dropped = len(config.bands), config.bands.index(band)
    reads, gives = _layers(config)
    folded = dict(tensors)
    copied = _shares(config, ((stand_in, 1.0),))
    seen = _shares(config, mix) if mix else copied
    for name, (images, cells) in reads.items():
        shares = seen if name.startswith("reference.") else copied
        folded[name] = _reading_less(tensors[name], images, cells, dropped, shares)
    if seen.sum() != 1:
        of_band = _parts(tensors[ENTER], bands, *reads[ENTER])[:, 0, dropped].flatten(1).sum(1)
        bias = tensors[ENTER_BIAS]
        folded[ENTER_BIAS] = (bias.float() + (seen.sum() - 1) * of_band).to(bias.dtype)
    for name, cells in gives.items():
        for part in (f"{name}.weight", f"{name}.bias"):
            folded[part] = _giving_less(folded[part], bands, cells, dropped)
    return smaller, folded


def touched(config: ModelConfig) -> list[str]:
    """List the weights that a fold changes: of layers that read bands, and of those that give them."""
    reads, gives = _layers(config)
    return [*reads, ENTER_BIAS, *(f"{name}.{part}" for name in gives for part in ("weight", "bias"))]


def _layers(config: ModelConfig) -> Layers:
    """List the layers that read bands, and those that give them.

    Returns:
        For each layer that reads bands, by name, the number of images and of values a band; for each layer
        that gives bands, the number of values a band.
    """
    network, reference = config.network, config.reference
    assert network is not None, "config_without_band has refused it"
    reads, gives = _layers_of_reference("reference", reference)
    if config.detector is not None:
        reads["detector.enter.0.weight"] = (1, 1)
    if network.covered is None:
        reads["network.weight_net.stem.weight"] = (3, network.weight.patch**2)
        gives["network.weight_net.head"] = network.weight.patch**2
    if network.grown is None:
        reads["network.noise_net.stem.weight"] = (3 if network.guided else 2, network.noise.patch**2)
        gives["network.noise_net.head"] = network.noise.patch**2
        return reads, gives
    trunk, name = replace(network.grown.trunk, context=False), "network.noise_net"
    cells = trunk.patch**2
    also_reads, also_gives = _layers_of_reference(f"{name}.trunk", trunk)
    reads |= also_reads | {f"{name}.see.weight": (IMAGES, cells)}
    reads |= {f"{name}.{layer}.weight": (IMAGES + 1, cells) for layer in ("enter", "direct")}
    return reads, gives | also_gives | {f"{name}.{layer}": cells for layer in ("head", "direct", "gain")}


def _layers_of_reference(
    name: str, config: ReferenceConfig
) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """List the layers of one of our references, as `_layers` does."""
    cells = config.patch**2
    reads, gives = {f"{name}.enter.weight": (1, cells)}, {f"{name}.leave": cells}
    if config.contrast:
        gives[f"{name}.contrast"] = 1
    if config.context:
        reads[f"{name}.context.weight"] = (1, 1)
    return reads, gives


def _shares(config: ModelConfig, mix: Mix) -> Tensor:
    """Return the share of each band of the model, ``(bands,)``."""
    return torch.tensor([dict(mix).get(band, 0.0) for band in config.bands])


def _reading_less(weight: Tensor, images: int, cells: int, dropped: int, shares: Tensor) -> Tensor:
    """Share the weights that read the band out to those that read others.

    Channels are image, band, cell; others follow.
    """
    bands = len(shares)
    parts = _parts(weight, bands, images, cells)
    shared = parts[:, :, dropped, None] * shares.reshape(-1, *[1] * (parts.ndim - 3))
    left = (parts + shared)[:, :, [i for i in range(bands) if i != dropped]].flatten(1, 3)
    return torch.cat([left.to(weight.dtype), weight[:, images * bands * cells :]], dim=1)


def _parts(weight: Tensor, bands: int, images: int, cells: int) -> Tensor:
    """Return weights by what they read, float32 ``(out, images, bands, cells, ..)``."""
    count = images * bands * cells
    return weight[:, :count].float().reshape(len(weight), images, bands, cells, *weight.shape[2:])


def _giving_less(tensor: Tensor, bands: int, cells: int, dropped: int) -> Tensor:
    """Drop the channels that give the band, of channels by band and cell."""
    parts = tensor.reshape(bands, cells, *tensor.shape[1:])
    return parts[[i for i in range(bands) if i != dropped]].flatten(0, 1)
