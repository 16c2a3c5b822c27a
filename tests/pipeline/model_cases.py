"""Model files so small that they are made in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    expected_shapes,
    save_model_file,
)
from decr_scene.models.networks.detector import DetectorConfig, build_detector
from decr_scene.models.networks.noise_network import NetworkConfig, NoiseNetwork
from decr_scene.models.networks.reference import ReferenceConfig, build_reference
from decr_scene.models.networks.unet import UNetConfig

UNET = UNetConfig(channels=8, multipliers=(1, 1, 1, 1), attention_factors=(8,), heads=1, num_res_blocks=1)


def tiny_model(
    path: Path,
    seed: int = 0,
    bands: tuple[str, ...] = ("red", "green", "blue"),
    halo: int = 0,
    context: bool = False,
    patch: int = 2,
    detector: DetectorConfig | None = None,
    covered: tuple[float, float] | None = None,
    texture: float = 0.0,
    adds: float = 0.0,
    spectrum: tuple[str, ...] = (),
) -> Path:
    """A model of random weights, so that every answer differs from its input; ``adds`` to its first guess."""
    unet = replace(UNET, patch=patch)
    config = ModelConfig(
        name="tiny",
        bands=bands,
        network=NetworkConfig(bands=len(bands), noise=unet, weight=unet, covered=covered),
        reference=ReferenceConfig(
            bands=len(bands), width=8, multipliers=(1, 2), blocks=1, middle_blocks=1, context=context
        ),
        scaling={"uint8": [0, 255]},
        sampling=SamplingConfig(
            steps=2, start=200, weight_floor=0.0 if covered else 0.3, halo=halo, texture=texture
        ),
        info={"spectrum": list(spectrum)} if spectrum else {},
        detector=detector,
    )
    rng = torch.Generator().manual_seed(seed)
    modules = torch.nn.ModuleDict(
        {"network": NoiseNetwork(config.network), "reference": build_reference(config.reference)}
    )
    if detector is not None:
        modules["detector"] = build_detector(detector)
    tensors = {
        name: 0.05 * torch.randn(tensor.shape, generator=rng) for name, tensor in modules.state_dict().items()
    }
    tensors["reference.leave.bias"] += adds
    save_model_file(path, config, tensors)
    return path


def idle_model(
    path: Path, bands: tuple[str, ...] = ("red", "green", "blue"), name: str = "idle", **reference: bool
) -> Path:
    """A reference alone whose weights are 0, so that its answer is its input."""
    kind = ReferenceConfig(
        bands=len(bands), width=8, multipliers=(1, 2), blocks=1, middle_blocks=1, **reference
    )
    config = ModelConfig(name=name, bands=bands, network=None, reference=kind, scaling={"uint8": [0, 255]})
    tensors = {name: torch.zeros(shape) for name, shape in expected_shapes(config).items()}
    save_model_file(path, config, tensors)
    return path
