"""A model for fewer bands, out of one for more: where another band stands in for one that is missing.

To a network whose near infrared is always a copy of red, the two are one band: what its first layers make of
either, they make of their sum. So weights that read the missing band are added to those that read its
stand-in, weights that give it are dropped, and the smaller model gives what the larger one gives with the
stand-in in its place, without the time for it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decr_scene.models.errors import CheckpointError

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.model_file import ModelConfig

FOLD_ENDING = ".toml"
"""Of a file that has a fold in the place of weights."""


@dataclass(frozen=True)
class Fold:
    """What is folded into what, and what the smaller model is called.

    Args:
        model: The file with the weights, in the folder of the fold's own.
        band: The band that is to go.
        into: The band that takes its place.
        name: Of the smaller model.
        about: One line about it; empty: made of the larger model's name.
    """

    model: Path
    band: str
    into: str
    name: str
    about: str = ""

    def config(self, larger: ModelConfig) -> ModelConfig:
        """Describe the smaller model.

        Raises:
            CheckpointError: The larger one lacks a band of the two, or has networks that cannot be folded.
        """
        spectrum = [band for band in larger.info.get("spectrum", larger.bands) if band != self.band]
        info = {
            "about": self.about or f"{larger.name} without {self.band}",
            "folded": f"{self.band} into {self.into}",
            "spectrum": spectrum,
        }
        fewer = fewer_bands(larger, self.band, self.into)
        return replace(fewer, name=self.name, info={**larger.info, **info})


def read_fold(path: str | Path) -> Fold:
    """Read a fold: TOML with ``model``, ``band``, ``into`` and ``about``.

    Raises:
        CheckpointError: There is no such file, or it is none.
    """
    path = Path(path)
    keys = ("model", "band", "into", "about")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no model file ({error}): name another, or copy it again") from error
    if set(values) != set(keys) or not all(isinstance(value, str) for value in values.values()):
        keys_there = ", ".join(values) or "nothing"
        raise CheckpointError(f"{path} has {keys_there}: a model in TOML has {', '.join(keys)}, each a text")
    if Path(values["model"]).name != values["model"] or values["model"].endswith(FOLD_ENDING):
        raise CheckpointError(
            f"{path} is made of {values['model']!r}: name a file with weights in the same folder"
        )
    return Fold(path.parent / values["model"], values["band"], values["into"], path.stem, values["about"])


def fewer_bands(config: ModelConfig, band: str, stand_in: str) -> ModelConfig:
    """Describe a model less one band, under its old name.

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
    fewer = len(config.bands) - 1
    return replace(
        config,
        bands=tuple(name for name in config.bands if name != band),
        network=replace(config.network, bands=fewer),
        reference=replace(config.reference, bands=fewer),
    )


def without_band(
    config: ModelConfig, tensors: Mapping[str, Tensor], band: str, stand_in: str
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Fold one band of a model into another.

    Args:
        config: A model with our own reference, without a detector.
        tensors: Its weights, or those alone that `touched` names.
        band: The band that is to go.
        stand_in: The band that takes its place.

    Raises:
        CheckpointError: The model lacks one of the two bands, or has networks that cannot be folded.
    """
    smaller = fewer_bands(config, band, stand_in)
    bands = len(config.bands)
    dropped, kept = config.bands.index(band), config.bands.index(stand_in)
    reads, gives = _layers(config)
    folded = dict(tensors)
    for name, (images, cells) in reads.items():
        folded[name] = _reading_less(tensors[name], bands, images, cells, dropped, kept)
    for name, cells in gives.items():
        for part in (f"{name}.weight", f"{name}.bias"):
            folded[part] = _giving_less(tensors[part], bands, cells, dropped)
    return smaller, folded


def touched(config: ModelConfig) -> list[str]:
    """List the weights that a fold changes: of layers that read bands, and of those that give them."""
    reads, gives = _layers(config)
    return [*reads, *(f"{name}.{part}" for name in gives for part in ("weight", "bias"))]


def _layers(config: ModelConfig) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """List the layers that read bands, and those that give them.

    Returns:
        By name, the images that a layer reads and the values a band of each; of the others, those a band.
    """
    assert config.network is not None, "fewer_bands has refused it"
    noise, weight, own = (
        part.patch**2 for part in (config.network.noise, config.network.weight, config.reference)
    )
    reads = {
        "network.noise_net.stem.weight": (3 if config.network.guided else 2, noise),
        "network.weight_net.stem.weight": (3, weight),
        "reference.enter.weight": (1, own),
    }
    gives = {"network.noise_net.head": noise, "network.weight_net.head": weight, "reference.leave": own}
    if config.reference.contrast:
        gives["reference.contrast"] = 1
    if config.reference.context:
        reads["reference.context.weight"] = (1, 1)
    return reads, gives


def _reading_less(weight: Tensor, bands: int, images: int, cells: int, dropped: int, kept: int) -> Tensor:
    """Add what reads the band to what reads its stand-in; channels are image, band, cell; others follow."""
    count = images * bands * cells
    parts = weight[:, :count].float().clone().reshape(len(weight), images, bands, cells, *weight.shape[2:])
    parts[:, :, kept] += parts[:, :, dropped]
    left = parts[:, :, [i for i in range(bands) if i != dropped]].flatten(1, 3)
    return torch.cat([left.to(weight.dtype), weight[:, count:]], dim=1)


def _giving_less(tensor: Tensor, bands: int, cells: int, dropped: int) -> Tensor:
    """Drop the channels that give the band; channels are band, cell."""
    parts = tensor.reshape(bands, cells, *tensor.shape[1:])
    return parts[[i for i in range(bands) if i != dropped]].flatten(0, 1)
