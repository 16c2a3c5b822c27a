"""Convert published weights of the other systems to the tensors of our networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decr_scene.models.checkpoints.keymap import Entry, KeyMap, import_state
from decr_scene.models.checkpoints.model_file import COUNTERS, SCALING, ModelConfig, SamplingConfig
from decr_scene.models.checkpoints.published import BAND_NAMES, DE_SIGNATURES, read_state
from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.rivals.amgan import AMGAN
from decr_scene.models.rivals.cloudnet import PLAIN, THRESHOLD, CloudNet
from decr_scene.models.rivals.cvae import CVAE, PATCH
from decr_scene.models.rivals.diffcr import DiffCR
from decr_scene.models.rivals.discriminator import Discriminator
from decr_scene.models.rivals.spagan import SpAGAN

Weights = Mapping[str, Any] | str | Path
State = Mapping[str, Tensor]

SIGNATURES = {
    "spagan": "gen.gen.SAM1.conv1.weight",
    "amgan": "gen.gen.det_conv0.0.weight",
    "cvae": "encoder.mu.weight",
    "cloudnet": "conv2d_1.weight",
    "diffcr": "cond_intro.weight",
    "gandis": "dis.dis.c0_0.c.weight",
    **DE_SIGNATURES,
}
"""For each system, an entry that its published weights alone have."""

STEMS: dict[str, dict[str, int]] = {
    "spagan": {"gen.gen.conv_in.0.weight": 4},
    "amgan": {"gen.gen.conv_in.0.weight": 4},
    "cvae": {"decoder.layer1.0.weight": 4, "encoder.patch_embedding.position_embeddings": 3},
    "cloudnet": {"conv2d_1.weight": 4},
    "diffcr": {"intro.weight": 4},
    "gandis": {"dis.dis.c0_0.c.weight": 4},
}
"""For each system, the entries whose shapes show bands and widths, and how many axes they have."""

RESTORERS = ("spagan", "amgan", "cvae", "diffcr")
"""Systems whose weights become a model; those of ``cloudnet`` become the detector of one."""

BANDS = {"spagan": ("blue", "green", "red")}
"""Order of the bands of published weights for three of them, where it is not red, green, blue."""

DIFFCR_STEPS = 20

NETWORK_PREFIX = "denoise_fn."
"""Prefix of the names of DiffCR's network, where a checkpoint holds more than that."""


def read_rival(source: Weights, kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Read published weights.

    Bands and widths follow from the shapes.

    Args:
        source: File, or mapping of published names to tensors.
        kind: One of `RESTORERS`, ``cloudnet`` or ``gandis``.

    Returns:
        The network, without values, and its tensors by its own names.

    Raises:
        CheckpointError: They are of another system, or incomplete.
    """
    state = read_state(source, f"{kind} checkpoint")
    inner = {
        name.removeprefix(NETWORK_PREFIX): t for name, t in state.items() if name.startswith(NETWORK_PREFIX)
    }
    state = inner or state
    found_kind = next((each for each, name in SIGNATURES.items() if name in state), None)
    if found_kind != kind:
        raise CheckpointError(
            f"{kind} checkpoint expected, found {_description(found_kind, state, kind)}: "
            f"give the weights of {kind}, or name their --kind"
        )
    _check_stems(state, kind)
    try:
        with torch.device("meta"):
            network = _NETWORKS[kind](state)
    except (IndexError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(
            f"{kind} checkpoint: these are not the published networks ({type(error).__name__}: {error}): "
            "copy the file again"
        ) from error
    tensors = import_state(state, rival_keys(network), f"{kind} checkpoint")
    uncounted = [name for name in network.state_dict() if name not in tensors]
    return network, tensors | {name: torch.zeros((), dtype=torch.int64) for name in uncounted}


def rival_model(
    source: Weights, kind: str, bands: tuple[str, ...] | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Make a model of published weights alone.

    Args:
        source: As `read_rival`.
        kind: One of `RESTORERS`.
        bands: Their bands in order; ``None``: as published, red, green, blue[, nir] or as in `BANDS`.

    Returns:
        Configuration and tensors as of a model file.

    Raises:
        CheckpointError: As `read_rival`; or the weights are of another number of bands.
    """
    network, tensors = read_rival(source, kind)
    reference = _reference_of(kind, network)
    count = reference.bands
    if bands is None:
        if count not in (3, 4):
            raise CheckpointError(
                f"{kind} checkpoint has {count} bands, expected 3 or 4: name them with --bands"
            )
        bands = BANDS.get(kind, BAND_NAMES[:3]) if count == 3 else BAND_NAMES
    if len(bands) != count:
        raise CheckpointError(
            f"{kind} checkpoint has {count} bands, {len(bands)} names were given ({', '.join(bands)}): "
            "name as many"
        )
    config = ModelConfig(
        kind,
        bands,
        None,
        reference,
        scaling=SCALING,
        sampling=SamplingConfig(steps=DIFFCR_STEPS if kind == "diffcr" else 50, weight_floor=0),
        info={"about": f"published weights of {kind}, alone"},
    )
    return config, {f"reference.net.{name}": tensor for name, tensor in tensors.items()}


def with_cloudnet(
    config: ModelConfig, tensors: State, source: Weights
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Replace the detector of a model by Cloud-Net.

    Raises:
        CheckpointError: As `read_rival`; or the model has not the four bands of Cloud-Net.
    """
    _, own = read_rival(source, "cloudnet")
    first = own["convs.0.weight"]
    if set(config.bands) != set(BAND_NAMES) or first.shape[1] != len(BAND_NAMES):
        raise CheckpointError(
            f"Cloud-Net looks at {', '.join(BAND_NAMES)}; these weights take {first.shape[1]} bands, model "
            f"{config.name} has {', '.join(config.bands)}: take a model of those four"
        )
    own["convs.0.weight"] = first[:, [BAND_NAMES.index(band) for band in config.bands]].contiguous()
    detector = DetectorConfig(len(BAND_NAMES), (first.shape[0],), 1, THRESHOLD, "cloudnet")
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("detector.")}
    return (
        replace(config, detector=detector),
        rest | {f"detector.net.{name}": tensor for name, tensor in own.items()},
    )


def rival_keys(network: nn.Module) -> KeyMap:
    """Map the names in a published checkpoint to those of its network, with entries that it never uses."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if isinstance(network, CloudNet):
        counted = {name: shape for name, shape in shapes.items() if not name.endswith(COUNTERS)}
        return {_keras(name): Entry(name, shape) for name, shape in counted.items()}
    prefix = "gen.gen." if isinstance(network, SpAGAN | AMGAN) else ""
    prefix = "dis.dis." if isinstance(network, Discriminator) else prefix
    keys: KeyMap = {prefix + name: Entry(name, shape) for name, shape in shapes.items()}
    unused: dict[str, tuple[int, ...]] = {}
    if isinstance(network, SpAGAN):
        unused = _unused_attention(shapes["conv_in.0.weight"][0])
    elif isinstance(network, AMGAN):
        unused = _unused_block(network.width)
    return keys | {prefix + name: Entry(None, shape) for name, shape in unused.items()}


def _reference_of(kind: str, network: nn.Module) -> ReferenceConfig:
    """Return the configuration that builds such a network."""
    state = network.state_dict()
    if isinstance(network, CVAE):
        width, both = state["decoder.layer1.0.weight"].shape[:2]
        return ReferenceConfig(kind, both // 2, width, side=network.side)
    stem = state["intro.weight" if kind == "diffcr" else "conv_in.0.weight"]
    return ReferenceConfig(kind, stem.shape[1], stem.shape[0])


def _description(found_kind: str | None, state: State, kind: str) -> str:
    return found_kind or f"something else (no {SIGNATURES[kind]}; its first entry is {next(iter(state))})"


def _check_stems(state: State, kind: str) -> None:
    """Refuse weights whose first convolutions do not show bands and widths, and name all at fault."""
    faults = [f"{name} is missing" for name in STEMS[kind] if name not in state]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, expected one of {axes} axes"
        for name, axes in STEMS[kind].items()
        if name in state and state[name].ndim != axes
    ]
    if faults:
        raise CheckpointError(f"{kind} checkpoint: {'; '.join(faults)}: copy the file again")


def _keras(name: str) -> str:
    """Return the published name of one of Cloud-Net's tensors."""
    part, index, leaf = name.split(".")
    number = int(index) + 1
    if part == "norms":
        assert number + 1 not in PLAIN, "norm n belongs to convolution n + 1"
        return f"batch_normalization_{number}.{leaf}"
    return f"{'conv2d' if part == 'convs' else 'conv2d_transpose'}_{number}.{leaf}"


def _unused_attention(width: int) -> dict[str, tuple[int, ...]]:
    half = width // 2
    shapes: dict[str, tuple[int, ...]] = {"SAM1.conv_in.weight": (width, width, 3, 3)}
    for number, out, channels, side in ((1, half, width, 3), (2, half, half, 3), (3, 4, half, 1)):
        shapes[f"SAM1.attention_layer.conv{number}.weight"] = (out, channels, side, side)
        shapes[f"SAM1.attention_layer.conv{number}.bias"] = (out,)
    return shapes


def _unused_block(width: int) -> dict[str, tuple[int, ...]]:
    sides = {"conv1": 1, "conv2": 3, "conv3": 1}
    return {f"res_block6.group1.{n}.weight": (width, width, side, side) for n, side in sides.items()}


def _of_stem(name: str, network: Callable[[int, int], nn.Module]) -> Callable[[State], nn.Module]:
    """Return a builder of networks by bands and width of their first convolution."""

    def build(state: State) -> nn.Module:
        width, bands = state[name].shape[:2]
        return network(bands, width)

    return build


def _cvae(state: State) -> CVAE:
    width, both = state["decoder.layer1.0.weight"].shape[:2]
    tokens = state["encoder.patch_embedding.position_embeddings"].shape[1]
    return CVAE(both // 2, width, round((tokens - 2) ** 0.5) * PATCH)


_NETWORKS: dict[str, Callable[[State], nn.Module]] = {
    "spagan": _of_stem("gen.gen.conv_in.0.weight", SpAGAN),
    "amgan": _of_stem("gen.gen.conv_in.0.weight", AMGAN),
    "cvae": _cvae,
    "cloudnet": _of_stem("conv2d_1.weight", CloudNet),
    "diffcr": _of_stem("intro.weight", DiffCR),
    "gandis": _of_stem("dis.dis.c0_0.c.weight", Discriminator),
}
