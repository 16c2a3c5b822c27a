"""From a finished run to one model file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decr_scene.models.checkpoints.model_file import (
    SCALING,
    ModelConfig,
    SamplingConfig,
    save_model_file,
)
from decr_scene.models.descriptions import unlike
from decr_scene.models.errors import CheckpointError, TrainingError
from decr_scene.models.release.calibration import read_calibration
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.loop import CHECKPOINT
from decr_scene.models.training.weights import OPPONENTS, read_trained
from decr_scene.models.value_types import build, check_types, read_toml_text

_OF_A_CARD = ("name", "packed", "sampling", "info")


def export_model(
    config: RunConfig,
    run: Path,
    card: Path,
    out: Path,
    detector: Path | None = None,
    reference: Path | None = None,
) -> ModelConfig:
    """Write the averaged weights of a run, in half precision, with everything needed to use them.

    Args:
        config: The run, of stage weight or joint, of diffusion with ``covered``, or of a model alone.
        run: Its folder, or a file of its weights.
        card: TOML with ``name``, maybe ``packed``, a ``[sampling]`` table and an ``[info]`` table.
        out: The model file.
        detector: Folder of a finished detector run, whose weights become part of the model.
        reference: Folder or file of a run whose reference becomes part of the model; ``None``: the run's own.

    Returns:
        The configuration written.

    Raises:
        TrainingError: The run is no whole model or was trained on other bands, or the card is no TOML or
            lacks something.
    """
    lacks_weight = config.stage == "diffusion" and config.network is not None and not config.network.covered
    if not config.alone and (config.network is None or lacks_weight):
        raise TrainingError(
            f"a run of stage {config.stage} is no whole model: export a weight or joint run, "
            "or a diffusion run whose network has 'covered'"
        )
    values = _read_card(card)
    model = ModelConfig(
        name=values["name"],
        bands=config.bands,
        network=None if config.alone else config.network,
        reference=config.reference,
        scaling=SCALING,
        sampling=values["sampling"],
        info=values["info"],
        packed=values.get("packed", False),
    )
    weights = _weights_of_bands(_weights_of(run), config.bands)
    if reference is not None:
        other = _weights_of_bands(_weights_of(reference), config.bands)
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("reference.")}
        weights |= {name: tensor for name, tensor in other.items() if name.startswith("reference.")}
    tensors = {n: tensor.to(torch.float16) for n, tensor in weights.items() if not n.startswith(OPPONENTS)}
    if detector is not None:
        model, tensors = with_detector(model, tensors, detector)
    save_model_file(out, model, tensors)
    return model


def doubts(config: RunConfig, run: Path, tables: tuple[str, ...] = ("reference", "network")) -> list[str]:
    """Tell of a run, a folder or a file of its weights, why it may not be what its model says.

    ``tables`` are those of the configuration whose networks are taken from it.
    """
    trained, told = read_trained(_weights_of(run)), []
    if not trained.is_finished:
        told.append(f"{run} is not finished: these are the weights that it has reached")
    others = [] if trained.described is None else unlike(config, trained.described, tables)
    if others:
        told.append(
            f"{run} was trained with other values than this configuration's {', '.join(others)}: its weights "
            "may be of no use so"
        )
    return told


def _weights_of_bands(path: Path, bands: Sequence[str]) -> dict[str, Tensor]:
    """Read weights that were trained on these bands, or do not say on which.

    Raises:
        TrainingError: They were trained on others.
    """
    trained = read_trained(path)
    if trained.bands not in (None, tuple(bands)):
        raise TrainingError(
            f"{path} was trained on {', '.join(trained.bands or ())}, the model has {', '.join(bands)}: "
            "take the run's own configuration, or another run"
        )
    return trained.weights


def _weights_of(run: Path) -> Path:
    return run / CHECKPOINT if run.is_dir() else run


def with_detector(
    model: ModelConfig, tensors: dict[str, Tensor], run: Path
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Add the detector of a finished run to a model, or put it in the place of the model's own.

    Its kernels are in half precision, its norms as they were trained.

    Raises:
        TrainingError: The folder holds no finished detector run, or one that was trained on other bands.
        CheckpointError: The model is of other bands than the detector.
    """
    config, figures = read_calibration(run)
    weights = _weights_of_bands(run / CHECKPOINT, model.bands)
    own = {
        name: t.half() if t.ndim == 4 else t for name, t in weights.items() if name.startswith("detector.")
    }
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("detector.")}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    return replace(model, detector=config, info={**model.info, "detector": rounded}), rest | own


def _read_card(card: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(read_toml_text(card))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{card} cannot be read: {error}") from error
    missing = [key for key in ("name", "sampling", "info") if key not in values]
    if missing:
        raise TrainingError(f"{card} lacks {', '.join(missing)}")
    unknown = sorted(set(values) - set(_OF_A_CARD))
    if unknown:
        raise TrainingError(
            f"{card} has unknown keys {', '.join(unknown)}, expected some of {', '.join(_OF_A_CARD)}"
        )
    try:
        check_types(ModelConfig, {key: value for key, value in values.items() if key != "sampling"})
        values["sampling"] = build(SamplingConfig, values["sampling"], "sampling")
        json.dumps(values["info"])
    except (CheckpointError, TypeError, ValueError) as error:
        raise TrainingError(f"{card}: {error}") from error
    return values
