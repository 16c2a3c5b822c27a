"""From a finished run to one model file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import torch

from decr_scene.models.checkpoint import ModelConfig, SamplingConfig, save_model_file
from decr_scene.models.errors import TrainingError
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.loop import CHECKPOINT, averaged_weights


def export_model(config: RunConfig, run: Path, card: Path, out: Path) -> ModelConfig:
    """Write the averaged weights of a run, in half precision, with everything needed to use them.

    Args:
        config: The run, of a stage that has both networks.
        run: Its folder.
        card: TOML with ``name``, a ``[sampling]`` table and an ``[info]`` table.
        out: The model file.

    Returns:
        What was written, but for the weights.

    Raises:
        TrainingError: The run has no noise network, or the card is no TOML or lacks something.
    """
    if config.network is None or config.stage == "diffusion":
        raise TrainingError(f"a run of stage {config.stage} is no whole model: export a weight or joint run")
    told = _read_card(card)
    model = ModelConfig(
        name=told["name"],
        bands=config.bands,
        network=config.network,
        reference=config.reference,
        scaling={"uint8": [0, 255], "other": "quantiles of the valid pixels, 0.1 and 99.9 %"},
        sampling=SamplingConfig(**told["sampling"]),
        info=told["info"],
    )
    weights = averaged_weights(run / CHECKPOINT)
    save_model_file(out, model, {name: tensor.to(torch.float16) for name, tensor in weights.items()})
    return model


def _read_card(card: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(card.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{card} cannot be read: {error}") from error
    missing = [key for key in ("name", "sampling", "info") if key not in told]
    if missing:
        raise TrainingError(f"{card} lacks {', '.join(missing)}")
    return told
