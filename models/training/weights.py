"""Weights of earlier runs: the averages that are kept, their mean over runs, and a start from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from decr_scene.models.checkpoints.fold import MODEL_ENDINGS
from decr_scene.models.checkpoints.keymap import shapes
from decr_scene.models.checkpoints.model_file import read_model_file, write_whole
from decr_scene.models.errors import TrainingError
from decr_scene.models.training.config import RunConfig

TRUNK = "network.noise_net.trunk."
"""Prefix of the weights of a grown noise predictor that are those of a reference."""

OPPONENTS = ("discriminator.", "critic.")
"""Prefixes of the weights of networks that others are trained against, and that no model has."""


class Trained(NamedTuple):
    """What a run has come to: averaged weights, its bands, if they are known, whether it ended, what it was.

    The last describes its configuration, by `descriptions.describe`; ``None``: it is no single run.
    """

    weights: dict[str, Tensor]
    bands: tuple[str, ...] | None
    is_finished: bool
    described: str | None = None


def read_trained(path: Path) -> Trained:
    """Read a run's checkpoint, or a model file, by whose names the weights are.

    Checkpoints of earlier versions do not say of which bands they are, nor whether they are the last.
    """
    if path.suffix in MODEL_ENDINGS:
        config, tensors = read_model_file(path)
        return Trained({name: tensor.float() for name, tensor in tensors.items()}, config.bands, True)
    state = read_checkpoint(path)
    bands = state.get("bands")
    described = str(state.get("config"))
    return Trained(
        state["ema"],
        None if bands is None else tuple(bands),
        state.get("finished", True),
        described if described.startswith(RunConfig.__name__) else None,
    )


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Read the moving average of a run's weights, or those of a model file, by the names of the latter."""
    return read_trained(checkpoint).weights


def average_runs(runs: Sequence[Path], out: Path) -> None:
    """Write the mean of several runs' weights, for stages to start from (Wortsman et al. 2022, model soups).

    Args:
        runs: Checkpoints or model files of equal networks: runs that continue one another, or started from
            the same weights. The mean of unrelated weights is of no use.
        out: A file for ``initial`` of `Trainer.start`; no run can be continued from it.

    Raises:
        TrainingError: Fewer than two runs, one that cannot be read, networks that differ, or ``out`` ends as
            a model does.
    """
    if out.suffix in MODEL_ENDINGS:
        raise TrainingError(f"{out} is the name of a model, a mean is a checkpoint: let it end with .pt")
    if len(runs) < 2:
        raise TrainingError(f"a mean takes two runs at least, got {len(runs)}")
    trained = [read_trained(run) for run in runs]
    weights = [each.weights for each in trained]
    for run, state in zip(runs, weights, strict=True):
        if shapes(state) != shapes(weights[0]):
            raise TrainingError(
                f"{run} holds other networks than {runs[0]}: average runs of one configuration"
            )
    mean = {  # but for counts, such as the batches that a norm has seen
        name: torch.stack([state[name] for state in weights]).mean(dim=0)
        if first.is_floating_point()
        else first
        for name, first in weights[0].items()
    }
    written: dict[str, Any] = {"config": f"the mean of {', '.join(map(str, runs))}", "ema": mean}
    bands = {each.bands for each in trained}
    if len(bands - {None}) > 1:
        named = ", ".join(map(str, runs))
        raise TrainingError(f"{named} are of different bands: average runs of one configuration")
    written["bands"] = None if None in bands else trained[0].bands
    written["finished"] = all(each.is_finished for each in trained)
    write_checkpoint(out, written)


def adopt(modules: nn.ModuleDict, path: Path) -> None:
    """Take from another stage's checkpoint, or a model, every network that it has too, whole.

    The run's network may be deeper: a block that the checkpoint lacks begins as the identity.
    """
    weights = {name: w for name, w in averaged_weights(path).items() if name.split(".")[0] in modules}
    if not weights:
        raise TrainingError(f"{path} holds none of this run's networks, {', '.join(modules)}")
    own = modules.state_dict()
    weights = _trunk_of(weights, own) | weights
    for name, tensor in weights.items():
        expected = tuple(own[name].shape) if name in own else "none"
        if expected != tuple(tensor.shape):
            raise TrainingError(
                f"{path} does not fit this run's networks: {name} has shape {tuple(tensor.shape)} there, "
                f"expected {expected}: check both configurations"
            )
    modules.load_state_dict({**own, **weights})


def _trunk_of(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a grown noise predictor begins as: the reference that there is, with no context known."""
    named = ((f"{TRUNK}{n.removeprefix('reference.')}", w) for n, w in weights.items())
    trunk = {name: weight for name, weight in named if name in own}
    bias = weights.get("reference.context.bias")  # that it adds where nothing is known
    entrance = f"{TRUNK}enter.bias"
    return trunk if bias is None or entrance not in trunk else {**trunk, entrance: trunk[entrance] + bias}


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    with write_whole(path) as partial, partial.open("wb") as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        TrainingError: It is none, or a damaged one.
    """
    try:
        with ZipFile(path) as parts:
            damaged = parts.testzip()  # torch does not look at the sums of what it reads
        state = torch.load(path, map_location="cpu", weights_only=True)
    except BadZipFile:
        raise TrainingError(f"{path} is no checkpoint of this program, or cut short") from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"{path} is no readable checkpoint of this program: {reason}") from error
    if damaged is not None:
        raise TrainingError(f"{path} is damaged, in {damaged}")
    if not isinstance(state, dict) or "ema" not in state:
        raise TrainingError(f"{path} is a file of torch, but no checkpoint of this program")
    return state
