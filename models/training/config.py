"""One TOML per training run, turned into frozen dataclasses at the door."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decr_scene.models.errors import TrainingError
from decr_scene.models.reference import ReferenceConfig
from decr_scene.models.unet import NetworkConfig, UNetConfig

STAGES = ("reference", "diffusion", "weight", "joint")


@dataclass(frozen=True)
class DataConfig:
    """One source of training images.

    Args:
        cloudy: Folder of cloudy images, relative to the data root; ``None`` for clear images alone.
        clear: Folder of clear images with the same names.
        share: How often this source is drawn, relative to the others.
        simulate: Share of the crops whose cloud is simulated over the clear image.
        tone: Bring each clear image into the tone of its cloudy one.
        scales: Scales at which crops are drawn, each 1 / whole number (area-averaged).
        bands: Bands to take, by position in the file, 0-based; ``None`` = all as they are.
        brightness: Range of the gain that images of this source are multiplied with (on [0, 1]).
        tint: Greatest gain, as a power of e, that each band is multiplied with on its own: another sensor's.
        keep_clear: Real pairs only: where cloudy and clear, in one tone and smoothed, differ by less than the
            first number (DN of 255), the cloudy image is its own truth; from the second on, the clear one is.
        holdout: Names (without ending) from-to, inclusive, kept for the stages that judge the reference.
    """

    clear: str
    cloudy: str | None = None
    share: float = 1.0
    simulate: float = 0.0
    tone: bool = True
    scales: tuple[float, ...] = (1.0,)
    bands: tuple[int, ...] | None = None
    brightness: tuple[float, float] = (0.9, 1.1)
    tint: float = 0.0
    keep_clear: tuple[float, float] | None = None
    holdout: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.cloudy is None and self.simulate != 1.0:
            raise ValueError(f"clear images without cloudy ones need simulate = 1.0, got {self.simulate}")
        if any(round(1 / s) < 1 or abs(1 / s - round(1 / s)) > 1e-6 for s in self.scales):
            raise ValueError(f"scales must be 1 / whole numbers, got {self.scales}")
        if self.keep_clear is not None and not 0 <= self.keep_clear[0] < self.keep_clear[1]:
            raise ValueError(f"keep_clear must be two rising numbers of DN, got {self.keep_clear}")

    def held_out(self, name: str) -> bool:
        """Whether the image of this name is kept from training the reference."""
        return any(first <= name <= last for first, last in self.holdout)


@dataclass(frozen=True)
class RunConfig:
    """A training run of one stage.

    Args:
        stage: ``reference``, ``diffusion`` (CNP alone), ``weight`` (CNP locked) or ``joint``.
        bands: Names of the bands, in the order the networks see them.
        spectrum: Physical names for the cloud simulator where ``bands`` are only display channels.
        steps: Optimiser steps.
        batch: Crops a step.
        crop: Side of a crop, px.
        learning_rate: Of AdamW, with a warm-up and a cosine to a hundredth of it.
        ema: Rate of the moving average of the weights, which is what is kept.
        on_path: Train on the noisy images of a sampling run, which begins at the noised first guess, instead
            of the noised truth that no sampling ever sees (weight and joint stages).
        held_out_only: Draw only images that the reference has never seen (weight and joint stages).
        checkpoint_every: Steps between two checkpoints.
        validate_every: Steps between two validations.
    """

    stage: str
    bands: tuple[str, ...]
    steps: int
    data: tuple[DataConfig, ...]
    validation: DataConfig | None = None
    spectrum: tuple[str, ...] = ()
    batch: int = 8
    crop: int = 256
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "auto"
    on_path: bool = False
    held_out_only: bool = False
    checkpoint_every: int = 200
    validate_every: int = 500
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    network: NetworkConfig | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage {self.stage!r} is unknown, expected one of {STAGES}")
        if not self.data:
            raise ValueError("a run needs at least one [[data]] table")
        if self.network is None and self.stage != "reference":
            raise ValueError(f"stage {self.stage} needs a [network] table")
        parts: list[ReferenceConfig | NetworkConfig] = [self.reference]
        for part in [*parts, self.network]:
            if part is not None and part.bands != len(self.bands):
                raise ValueError(
                    f"{type(part).__name__} has {part.bands} bands, the run has {len(self.bands)}"
                )


def read_config(path: Path) -> RunConfig:
    """Read a run from TOML.

    Raises:
        TrainingError: The file is no TOML, has unknown keys, or its values do not fit together.
    """
    try:
        with path.open("rb") as file:
            return config_from_table(tomllib.load(file))
    except (tomllib.TOMLDecodeError, TypeError, ValueError, KeyError) as error:
        raise TrainingError(f"{path}: {error}") from error


def config_from_table(table: dict[str, Any]) -> RunConfig:
    """Build a run from a parsed table; ``bands`` of the networks follow the run's."""
    table = dict(table)
    bands = len(table["bands"])
    table["data"] = tuple(_build(DataConfig, part) for part in table["data"])
    if "validation" in table:
        table["validation"] = _build(DataConfig, table["validation"])
    table["reference"] = _build(ReferenceConfig, {"bands": bands, **table.get("reference", {})})
    if "network" in table:
        network = {"bands": bands, **table["network"]}
        for part in ("noise", "weight"):
            network[part] = _build(UNetConfig, network[part])
        table["network"] = _build(NetworkConfig, network)
    return _build(RunConfig, table)


def _build(kind: type[Any], table: dict[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"unknown keys {unknown} for {kind.__name__}, expected some of {sorted(known)}")
    return kind(**{key: _frozen(value) for key, value in table.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
