"""Read and write our model file: one safetensors file with the weights and their configuration.

It holds tensors under ``reference.`` and, if it has them, ``network.`` and ``detector.``, and in its
metadata, under the key ``decr_scene``, all that is needed to build and to use the model. Where that has
``packed``, kernels under ``network.`` are eight bits a weight, with one scale an output channel beside them.

A model may also be described as a fold of another (`fold.Fold`), in a few lines of TOML beside that
one's file: it is read, and digested, as if that model had a file of weights of its own.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor, nn

from decr_scene.models.checkpoints.expected_error import ExpectedError
from decr_scene.models.checkpoints.fewer_bands import touched, without_band
from decr_scene.models.checkpoints.fold import Fold
from decr_scene.models.checkpoints.header import METADATA_KEY, fold_of, metadata_text, opened
from decr_scene.models.checkpoints.keymap import check_shapes, shapes
from decr_scene.models.checkpoints.packing import SCALE, pack, unpack
from decr_scene.models.diffusion.denoiser import WEIGHT_FLOOR
from decr_scene.models.diffusion.schedule import TRAIN_STEPS
from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.detector import DetectorConfig, build_detector
from decr_scene.models.networks.grown import GrownConfig
from decr_scene.models.networks.noise_network import NetworkConfig, NoiseNetwork
from decr_scene.models.networks.reference import ReferenceConfig, build_reference
from decr_scene.models.networks.unet import UNetConfig
from decr_scene.models.value_types import check_types

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT, PACKED_FORMAT = 1, 2
"""Versions of the format; a program that cannot unpack kernels refuses packed files by it."""

COUNTERS = ("num_batches_tracked",)
"""Suffixes of the names of the only tensors that are whole numbers."""

SCALING: Mapping[str, Any] = {
    "uint8": [0, 255],
    "other": "quantiles of the valid pixels, 0.1 and 99.9 %, with cloud white",
}
"""How digital numbers become [-1, 1] for a model that says nothing else: as the pipeline scales a scene."""

State = Mapping[str, Tensor]
C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True)
class SamplingConfig:
    """Defaults of a model's sampling; those of this class are the published setting.

    Args:
        steps: Calls of the network.
        start: Step at which the run begins, from the noised reference; ``None`` or `TRAIN_STEPS`: from noise
            alone.
        weight_floor: Least weight of the reference, the paper's eta.
        halo: How far beyond a tile its reference sees, px, where a scene is restored tile by tile.
        texture: Standard deviation, px, of the Gaussian than which all that the diffusion gives is finer;
            0: it gives all.
        gain: Factor of what the sample changes of the reference: few steps give detail too little energy.
        light: Light of the reference in a band, a part of white on the model's scale, from which on what the
            sample changes counts in full; darker ground has as much less contrast, and is given as much
            less; 0: it counts in full everywhere.
        turns: Turns of the image, up to a whole one, whose references are averaged: 1, 2 or 4, each at the
            cost of one.
    """

    steps: int = 50
    start: int | None = None
    weight_floor: float = WEIGHT_FLOOR
    halo: int = 0
    texture: float = 0.0
    gain: float = 1.0
    light: float = 0.0
    turns: int = 1

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("steps", self.steps, 1, 1000),
            ("start", self.start, 1, 1000),
            ("weight_floor", self.weight_floor, 0, 1),
            ("halo", self.halo, 0, 512),
            ("texture", self.texture, 0, 64),
            ("gain", self.gain, 0, 8),
            ("light", self.light, 0, 1),
        ):
            if value is not None and not low <= value <= high:
                raise CheckpointError(f"{name} must be in {low} to {high}, got {value}")
        if not isinstance(self.turns, int) or self.turns not in (1, 2, 4):
            raise CheckpointError(f"turns must be 1, 2 or 4, got {self.turns}")

    def replaced(
        self,
        steps: int | None = None,
        start: int | None = None,
        weight_floor: float | None = None,
        halo: int | None = None,
        gain: float | None = None,
    ) -> "SamplingConfig":
        """Replace the values that are not ``None``; with other steps the model's own gain does not count.

        Raises:
            CheckpointError: A value is out of range.
        """
        values: dict[str, Any] = {"steps": steps, "start": start, "weight_floor": weight_floor, "halo": halo}
        changed = replace(self, **{name: value for name, value in values.items() if value is not None})
        same = (changed.steps, changed.first_step) == (self.steps, self.first_step)
        return replace(changed, gain=(self.gain if same else 1.0) if gain is None else gain)

    @property
    def first_step(self) -> int | None:
        """Return the step that starts from the noised reference, or ``None`` if that is pure noise."""
        return None if self.start == TRAIN_STEPS else self.start


@dataclass(frozen=True)
class ModelConfig:
    """Everything of a model but its weights.

    Args:
        name: For messages and reports.
        bands: The bands it takes, in order.
        network: Its noise network; ``None``: the answer is that of the reference.
        reference: Its reference network.
        scaling: Conversion of digital numbers to [-1, 1] and back, as the pipeline reads it.
        sampling: Defaults of its sampling.
        detector: Its cloud detector, if it has one.
        info: Training data, licence, metrics: for the reader.
        packed: Its file holds the kernels of the noise and weight networks in eight bits a weight.
        error: The error to be expected of its answers, if it was measured.

    Raises:
        CheckpointError: Network, reference, detector and band names are not of the same number of bands, or
            two bands have one name.
    """

    name: str
    bands: tuple[str, ...]
    network: NetworkConfig | None
    reference: ReferenceConfig
    scaling: Mapping[str, Any] = field(default_factory=dict)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    detector: DetectorConfig | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False
    error: ExpectedError | None = None

    def __post_init__(self) -> None:
        network = self.reference.bands if self.network is None else self.network.bands
        counts = (len(self.bands), network, self.reference.bands)
        if len(set(counts)) > 1:
            counted = "{} band names, a network of {} bands, a reference of {}".format(*counts)
            raise CheckpointError(f"model {self.name!r} has {counted}: they do not belong together")
        if len(set(self.bands)) < len(self.bands):
            listed = ", ".join(self.bands)
            raise CheckpointError(
                f"model {self.name!r} has the bands {listed}, expected each under a name of its own"
            )
        if self.detector is not None and self.detector.bands != len(self.bands):
            counted = f"{len(self.bands)} band names and a detector of {self.detector.bands} bands"
            raise CheckpointError(f"model {self.name!r} has {counted}: they do not belong together")


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of a model: network, reference and, if any, detector."""
    with torch.device("meta"):
        return shapes(build_modules(config).state_dict())


def build_modules(config: ModelConfig) -> nn.ModuleDict:
    """Build all networks of a model by their names in its file, with fresh weights."""
    modules: dict[str, nn.Module] = {"reference": build_reference(config.reference)}
    if config.network is not None:
        modules = {"network": NoiseNetwork(config.network), **modules}
    if config.detector is not None:
        modules["detector"] = build_detector(config.detector)
    return nn.ModuleDict(modules)


def save_model_file(path: str | Path, config: ModelConfig, tensors: State) -> None:
    """Write a model file, whole or not at all.

    Floating-point types are kept, but for packed kernels.

    Raises:
        CheckpointError: The tensors are not those of the configuration, or the file cannot be written.
    """
    path = Path(path)
    _check(config, shapes(tensors), str(path))
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if config.packed:
        own = pack(own)
    try:
        with write_whole(path) as partial:
            save_file(own, partial, metadata={METADATA_KEY: _to_json(config)})
            partial.chmod(0o644)  # safetensors makes files that only their owner may read
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"{path} cannot be written ({reason}): check the folder and the disk"
        raise CheckpointError(message) from error


def read_model_file(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a model file.

    Returns:
        The configuration, and the tensors as they were saved, on the CPU; packed kernels as float32.

    Raises:
        CheckpointError: There is no such file, it is damaged or of another kind, or its tensors are not
            those of its configuration.
    """
    config, tensors = _read_stored(path)
    if config.packed:
        tensors = unpack(tensors, str(path))
    _check(config, shapes(tensors), str(path))
    _check_values(tensors, str(path))
    return config, tensors


def model_sha256(path: str | Path) -> str:
    """Digest a model file, in hexadecimal.

    Of a fold it is the digest of the file that it stands for.

    Raises:
        CheckpointError: There is no such file; of a fold, it or what it is made of is damaged.
    """
    fold = fold_of(path)
    if fold is not None:
        return _fold_sha256(fold, _stamp(fold.model))
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): copy it again") from error


def read_model_config(path: str | Path) -> ModelConfig:
    """Read the configuration of a model file alone.

    Raises:
        CheckpointError: There is no such file, it is damaged or of another kind.
    """
    fold = fold_of(path)
    if fold is not None:
        return fold.config(read_model_config(fold.model))
    text = metadata_text(path)
    try:
        return _from_json(text)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has an unreadable configuration ({type(error).__name__}: {error}): copy it again"
        ) from error


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write a file under, renamed when the ``with`` succeeds, else removed."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_stored(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read configuration and tensors as they are stored, packed or not.

    Of a fold they are as its own file would store them.
    """
    fold = fold_of(path)
    if fold is not None:
        return _folded(*_read_stored(fold.model), fold)
    with opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    return read_model_config(path), tensors


@lru_cache(maxsize=8)
def _fold_sha256(fold: Fold, stamp: tuple[int, ...]) -> str:
    """Digest a fold of a model file in one state, once: a run asks when it begins and when it loads."""
    config, tensors = _folded(*_read_stored(fold.model), fold)
    return hashlib.sha256(save(tensors, metadata={METADATA_KEY: _to_json(config)})).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    """Return device, inode, bytes, and times of the last change of content and of status, ns."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _folded(larger: ModelConfig, stored: State, fold: Fold) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Fold the weights that it touches, packed anew where they were packed.

    All others stay as they are stored.
    """
    config = fold.config(larger)
    names = [name for layer in touched(larger) for name in (layer, layer + SCALE) if name in stored]
    try:
        part = unpack({name: stored[name] for name in names}, str(fold.model))
        _, part = without_band(larger, part, fold.band, fold.into, fold.mix)
    except (KeyError, RuntimeError) as error:
        message = f"{fold.model} has other tensors than its configuration says ({error}): copy it again"
        raise CheckpointError(message) from error
    part = {name: tensor.contiguous() for name, tensor in part.items()}
    return config, {**stored, **(pack(part) if config.packed else part)}


def _check(config: ModelConfig, actual: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Refuse tensors that are not those of the configuration."""
    detector = any(name.startswith("detector.") for name in actual)
    if detector != (config.detector is not None):
        problem = "without a configuration of it" if detector else "is configured, its tensors are missing"
        raise CheckpointError(f"{what}: a detector {problem}")
    check_shapes(actual, expected_shapes(config), what)


def _check_values(tensors: State, what: str) -> None:
    """Refuse weights that are not finite: a network of them would silently find no cloud anywhere."""
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point and not name.endswith(COUNTERS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{what}: {name} is of {kind}, expected floating point: export it again")
        if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(
                f"{what}: {name} has values that are not finite: the training failed, or the file is damaged"
            )


def _to_json(config: ModelConfig) -> str:
    values = asdict(config)
    if values["error"] is None:
        del values["error"]  # earlier versions of the program refuse keys that they do not know
    for key, without in (("texture", 0), ("gain", 1), ("light", 0), ("turns", 1)):
        if values["sampling"][key] == without:
            del values["sampling"][key]
    for key in ("grown", "covered"):
        if values["network"] is not None and values["network"][key] is None:
            del values["network"][key]
    if not values.pop("packed"):
        return json.dumps({"format": FORMAT, **values})
    return json.dumps({"format": PACKED_FORMAT, **values, "packed": True})


def _from_json(text: str) -> ModelConfig:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}, expected names and values")
    version = values.pop("format", None)
    if type(version) is not int or version < FORMAT:
        raise ValueError(f"format {version!r}, expected {FORMAT} to {PACKED_FORMAT}")
    if version > PACKED_FORMAT:
        raise CheckpointError(
            f"it is of format {version}, and this program reads up to {PACKED_FORMAT}: update the program"
        )
    network = values["network"]
    if network is not None:
        parts: dict[str, Any] = {key: _build(UNetConfig, network[key]) for key in ("noise", "weight")}
        if grown := network.get("grown"):
            trunk = _build(ReferenceConfig, grown["trunk"])
            parts["grown"] = _build(GrownConfig, grown | {"trunk": trunk})
        network = _build(NetworkConfig, network | parts)
    return _build(
        ModelConfig,
        values
        | {
            "network": network,
            "reference": _build(ReferenceConfig, values["reference"]),
            "sampling": _build(SamplingConfig, values["sampling"]),
            "detector": _build(DetectorConfig, values["detector"]) if values.get("detector") else None,
            "error": _build(ExpectedError, values["error"]) if values.get("error") else None,
        },
    )


def _build(kind: type[C], values: dict[str, Any]) -> C:
    """Build a dataclass of its JSON form, in which tuples have become lists."""
    built = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    if unknown := sorted(built.keys() - kind.__dataclass_fields__):
        raise CheckpointError(f"{', '.join(unknown)} is nothing that this program knows: update the program")
    check_types(kind, built)
    return kind(**built)
