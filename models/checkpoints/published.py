"""Convert published checkpoints, state dicts of DE and its reference, to one model of ours, and back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decr_scene.models.checkpoints.keymap import (
    WEIGHT_PREFIXES,
    export_state,
    import_state,
    network_keys,
    reference_keys,
)
from decr_scene.models.checkpoints.model_file import ModelConfig
from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.mdsa import MDSA
from decr_scene.models.networks.mprnet import MPRNet
from decr_scene.models.networks.noise_network import NetworkConfig, NoiseNetwork
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNetConfig

BAND_NAMES = ("red", "green", "blue", "nir")  # order of the published models, three or four of them

State = Mapping[str, Tensor]
Weights = Mapping[str, Any] | str | Path

DE_SIGNATURES = {"DE": "input_blocks.0.0.weight", "mn": "shallow_feat1.0.weight", "mdsa": "conv_in.weight"}
"""For DE and each of its references, an entry that its published weights alone have."""

_ORDER = "give the checkpoint of DE first, then that of its reference (mn or mdsa)"


def read_published(de_state: Weights, reference_state: Weights) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read the two published checkpoints of a DE model.

    Bands, widths and kind follow from the shapes.

    Args:
        de_state: Noise predictor and weight allocation: file, or mapping of published names to tensors.
        reference_state: ``mn`` or ``mdsa``, likewise.

    Returns:
        Configuration and tensors as of a model file.

    Raises:
        CheckpointError: One of them is no such checkpoint or incomplete, or they do not belong together.
    """
    de, reference = read_state(de_state, "DE checkpoint"), read_state(reference_state, "reference checkpoint")
    network_config, network = _import_network(de)
    reference_config, first_guess = _import_reference(reference)
    bands = network_config.bands
    if bands != reference_config.bands:
        mismatch = f"DE checkpoint of {bands} bands, reference of {reference_config.bands}"
        raise CheckpointError(f"{mismatch}: give two that were trained together")
    if bands not in (3, 4):
        raise CheckpointError(f"published models have 3 or 4 bands, this one {bands}")
    config = ModelConfig(f"DE-{reference_config.kind}", BAND_NAMES[:bands], network_config, reference_config)
    tensors = {f"network.{name}": tensor for name, tensor in network.items()}
    return config, tensors | {f"reference.net.{name}": tensor for name, tensor in first_guess.items()}


def published_states(config: ModelConfig, tensors: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return state dicts of DE and of its reference, as the published code reads them.

    Raises:
        CheckpointError: The published code has no such network or reference.
    """
    if config.network is None:
        raise CheckpointError(f"model {config.name!r} has no published form: it has no noise network")
    widths = config.network.noise.channels, config.network.weight.channels
    if config.network != _published_network(config.network.bands, *widths):
        raise CheckpointError(f"model {config.name!r} has no published form: its network is built otherwise")
    with torch.device("meta"):
        network, reference = NoiseNetwork(config.network), _reference_net(config.reference)
    de = {n.removeprefix("network."): t for n, t in tensors.items()}
    first_guess = {n.removeprefix("reference.net."): t for n, t in tensors.items()}
    return export_state(de, network_keys(network)), export_state(first_guess, reference_keys(reference))


def _published_network(bands: int, noise: int, weight: int) -> NetworkConfig:
    """Return the configuration of the published networks at the given base channels."""
    return NetworkConfig(bands, UNetConfig(channels=noise), replace(PUBLISHED_WEIGHT, channels=weight))


def _import_network(state: State) -> tuple[NetworkConfig, dict[str, Tensor]]:
    kind = _kind(state)
    if kind != "DE":
        found = kind or f"something else (no {DE_SIGNATURES['DE']})"
        raise CheckpointError(f"DE checkpoint expected, found {found}: {_ORDER}")
    prefix = _weight_prefix(state)
    stem, weight_stem = state["input_blocks.0.0.weight"], state.get(f"{prefix}input_blocks.0.0.weight")
    if weight_stem is None:
        raise CheckpointError(
            f"DE checkpoint: {prefix}input_blocks.0.0.weight is missing, the file is incomplete"
        )
    for name, tensor in (("", stem), (prefix, weight_stem)):
        if tensor.ndim != 4:
            raise CheckpointError(
                f"DE checkpoint: {name}{DE_SIGNATURES['DE']} has shape {tuple(tensor.shape)}, "
                "expected one of 4 axes: copy the file again"
            )
    try:
        config = _published_network(stem.shape[1] // 2, stem.shape[0], weight_stem.shape[0])
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"DE checkpoint: these are not the published networks: {error}") from error
    with torch.device("meta"):
        network = NoiseNetwork(config)
    return config, import_state(state, network_keys(network, prefix), "DE checkpoint")


def _weight_prefix(state: State) -> str:
    prefixes = [prefix for prefix in WEIGHT_PREFIXES if any(name.startswith(prefix) for name in state)]
    if not prefixes:
        raise CheckpointError(
            "DE checkpoint holds the noise predictor alone (stage 1): DE needs the weight allocation too, "
            "give a checkpoint of stage 2 or 3"
        )
    if len(prefixes) > 1:
        raise CheckpointError(
            f"DE checkpoint holds two weight allocations, {' and '.join(prefixes)}: keep one"
        )
    return prefixes[0]


def _import_reference(state: State) -> tuple[ReferenceConfig, dict[str, Tensor]]:
    kind = _kind(state)
    if kind not in ("mn", "mdsa"):
        found = kind or f"something else (neither {DE_SIGNATURES['mn']} nor {DE_SIGNATURES['mdsa']})"
        raise CheckpointError(f"reference checkpoint expected, found {found}: {_ORDER}")
    stem = state[DE_SIGNATURES[kind]]
    if stem.ndim != 4:
        raise CheckpointError(
            f"reference checkpoint ({kind}): {DE_SIGNATURES[kind]} has shape {tuple(stem.shape)}, "
            "expected one of 4 axes: copy the file again"
        )
    config = ReferenceConfig(kind=kind, bands=stem.shape[1], width=stem.shape[0])
    with torch.device("meta"):
        keys = reference_keys(_reference_net(config))
    return config, import_state(state, keys, f"reference checkpoint ({kind})")


def _reference_net(config: ReferenceConfig) -> MPRNet | MDSA:
    if config.kind == "mn":
        return MPRNet(config.bands, config.width)
    if config.kind == "mdsa":
        return MDSA(config.bands, config.width)
    raise CheckpointError(f"a reference of kind {config.kind!r} has no published form: only mn and mdsa have")


def _kind(state: State) -> str | None:
    return next((kind for kind, name in DE_SIGNATURES.items() if name in state), None)


_NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
}
"""Types of the tensors of a state dict; whole numbers are counts."""


def _stored_as(value: Tensor) -> str:
    """Say of what type and layout a tensor is."""
    where = ", without values" if value.is_meta else ""
    return f"{value.dtype} ({value.layout}{where})".replace("torch.", "")


def read_state(source: Weights, what: str) -> dict[str, Tensor]:
    """Read the tensors of a source, in float32 and without a wrapper's ``module.`` before their names."""
    entries = source if isinstance(source, Mapping) else _unpickled(Path(source), what)
    invalid = [
        name for name, value in entries.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if invalid or not entries:
        kind = "tensor" if invalid and isinstance(invalid[0], str) else "name of a tensor"
        problem = f"its {invalid[0]!r} is no {kind}" if invalid else "it is empty"
        raise CheckpointError(f"{what} is no state dict, {problem}: give a mapping of names to tensors")
    odd = [
        name
        for name, value in entries.items()
        if value.layout != torch.strided or value.is_meta or value.dtype not in _NUMBERS
    ]
    if odd:
        raise CheckpointError(f"{what}: {odd[0]} is no array of numbers but {_stored_as(entries[odd[0]])}")
    damaged = [name for name, value in entries.items() if not bool(torch.isfinite(value).all())]
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise CheckpointError(
            f"{what}: {damaged[0]}{more} has values that are not finite: the training failed, or the file is "
            "damaged"
        )
    wrapped = all(name.startswith("module.") for name in entries)
    return {(n.removeprefix("module.") if wrapped else n): t.detach().float() for n, t in entries.items()}


def _unpickled(path: Path, what: str) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{what} {path}: no such file")
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CheckpointError(f"{what} {path} is no file of weights, or a damaged one: {reason}") from error
    if not isinstance(entries, Mapping):
        raise CheckpointError(f"{what} {path} holds a {type(entries).__name__}, expected a state dict")
    return entries
