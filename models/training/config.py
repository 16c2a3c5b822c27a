"""Read the TOML of a training run into frozen dataclasses."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.models.clouds.veils import VeilRecipe
from decr_scene.models.data.config import DataConfig
from decr_scene.models.errors import TrainingError
from decr_scene.models.networks.critic import HALVINGS, CriticConfig
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.grown import GrownConfig
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig
from decr_scene.models.rivals.discriminator import HALVED
from decr_scene.models.training.optimisers import ADAMW, OPTIMISERS
from decr_scene.models.training.stages import STAGES
from decr_scene.models.value_types import build, read_toml_text, table_in

ALONE = {"adversarial": ("spagan", "amgan"), "variational": ("cvae",), "conditional": ("diffcr",)}
"""Kinds of reference that a stage trains by losses of their own: each is a model without a noise network."""

RESTORERS = ("mn", "mdsa")
"""Kinds of stage ``reference`` that were published as systems of their own, also without a noise network."""

WEIGHING = ("weight", "joint")
"""Stages that weigh a first guess against the diffusion."""

SCHEDULES = ("cosine", "constant")
LOSSES = ("charbonnier", "log_mse")
PRECISIONS = ("auto", "fp32", "bf16")
HELD_OUT = ("with", "without", "only")

MOST_CROPS = 1 << 16
"""Greatest number of crops that a process draws for one step."""

LEAST_CROP = 8
"""Least side of a crop, px: the windows of the losses are about as large."""


@dataclass(frozen=True)
class RunConfig:
    """A training run of one stage.

    Args:
        stage: ``reference``, ``diffusion`` (CNP alone), ``weight`` (CNP locked), ``joint``, ``detector``,
            ``adversarial`` (spagan, amgan), ``variational`` (cvae) or ``conditional`` (diffcr).
        bands: Names of the bands, in the order the networks see them.
        spectrum: Physical names for the cloud simulator where ``bands`` are only display channels.
        steps: Optimiser steps.
        data: Where the images are: a table ``[[data]]`` for each folder of pairs; or the name of another
            run's file beside this one, whose tables are taken (it may name a third in turn), and with them
            the tables ``[[more_data]]`` of this one. What ``[all_data]`` has, of this file before that of the
            other, holds for all of them that do not say otherwise, key by key, those of ``clouds`` and
            ``veils`` too.
        validation: As one of ``data``, for the figures of a validation.
        batch: Crops that a process takes at once.
        accumulate: Batches that a process gathers gradients over for one step. With ``torchrun`` each process
            does; a step sees ``processes x accumulate x batch`` crops, as if they were one batch.
        crop: Side of a crop, px.
        learning_rate: Of the optimiser, with a warm-up and the ``schedule``.
        warmup: Steps until the learning rate is full.
        weight_decay: Of the optimiser.
        seed: Of weights, crops and noise.
        precision: ``auto``, ``fp32`` or ``bf16``, for what the networks compute in.
        reference: The network of the first guess, a table of its own.
        network: The network of noise and weight, a table of its own; needed but for ``reference``.
        detector: The cloud detector, a table of its own, of stage ``detector``.
        optimiser: ``"adamw"``, or ``"muon"`` for what mixes features and AdamW for the rest, or
            ``"adam"`` with the betas of adversarial networks.
        ema: Rate of the moving average of the weights, which is what is kept.
        on_path: Train on the noisy images of a sampling run, which begins at the noised first guess, instead
            of the noised truth that no sampling ever sees (weight and joint stages).
        held_out: Draw images ``with`` those that are held out, ``without`` them, or ``only`` them; ``None``:
            without them where the reference or a detector is trained, with them after that. A network that
            weighs two guesses must see both where neither has been trained.
        loss: Of the reference, and on the path: ``charbonnier``, or ``log_mse``, by which an image that is
            easy to mend, or needs no mending, counts as much as one under dense cloud.
        steady: Weight of the shift of clear ground's mean in the loss of the reference.
        similar: Weight of ``1 - SSIM`` in the loss of the reference: detail that is seen through a veil gets
            the contrast that ground has, where the least square error fades it.
        part: Side of the square parts, px, that the noise network sees of a crop, each with its own noise and
            step; 0: it sees crops whole (diffusion stage).
        early: Share of the images whose step is below ``latest_start``, where sampling goes; that of the
            others is any (diffusion stage).
        latest_start: Sampling runs that are trained on begin at this step at most (``on_path``).
        checkpoint_every: Steps between two checkpoints.
        validate_every: Steps between two validations.
        compiled: Have torch compile the network that is trained: two minutes at the start, then a sixth to a
            quarter less time for each step; it takes a C++ compiler. Stages reference and diffusion.
        schedule: After the warm-up, ``"cosine"`` to a hundredth of the learning rate, or ``"constant"``.
        critic: A critic of the detail that the noise network adds, a table of its own (diffusion stage). It
            judges sampling runs, which begin between half of ``latest_start`` and all of it.
        signed: The attention learns where the clear image is brighter, as the code that made the published
            weights has it, and not where the two differ, as the papers have it (adversarial).
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
    held_out: str | None = None
    checkpoint_every: int = 200
    validate_every: int = 500
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    network: NetworkConfig | None = None
    detector: DetectorConfig | None = None
    accumulate: int = 1
    loss: str = "charbonnier"
    latest_start: int = 400
    steady: float = 0.0
    similar: float = 0.0
    optimiser: str = ADAMW
    compiled: bool = False
    schedule: str = "cosine"
    signed: bool = False
    part: int = 0
    early: float = 0.0
    critic: CriticConfig | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage {self.stage!r} is unknown, expected one of {STAGES}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser {self.optimiser!r} is unknown, expected one of {OPTIMISERS}")
        self._check_loss()
        self._check_ranges()
        if not self.data:
            raise ValueError("a run needs at least one [[data]] table")
        if self.held_out not in (None, *HELD_OUT):
            raise ValueError(f"held_out {self.held_out!r} is unknown, expected one of {HELD_OUT}")
        if min(self.batch, self.accumulate, self.steps, self.crop) < 1:
            raise ValueError("batch, accumulate, steps and crop must be 1 at least")
        if min(self.checkpoint_every, self.validate_every) < 1:
            raise ValueError("checkpoint_every and validate_every must be 1 at least")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown, expected one of {PRECISIONS}")
        if self.compiled and self.stage not in ("reference", "diffusion"):
            raise ValueError("compiled is of the stages reference and diffusion alone")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is unknown, expected one of {SCHEDULES}")
        if self.signed and self.stage != "adversarial":
            raise ValueError("signed is of stage adversarial alone")
        if self.detector is not None and self.stage != "detector":
            raise ValueError(f"[detector] is of stage detector alone, this run is of {self.stage}: drop it")
        if self.critic is not None:
            self._check_critic()
        if self.stage == "detector":
            self._check_detector()
        elif self.stage in ALONE:
            self._check_alone()
        elif self.stage == "reference":
            self._check_kind()
        elif self.network is None:
            raise ValueError(f"stage {self.stage} needs a [network] table")
        elif self.network.covered and self.stage in WEIGHING:
            raise ValueError(f"a network with 'covered' has no weight network for stage {self.stage}")
        for name in ("reference", "network"):
            part: ReferenceConfig | NetworkConfig | None = getattr(self, name)
            if part is not None and part.bands != len(self.bands):
                raise ValueError(
                    f"{name} has {part.bands} bands, the run {len(self.bands)}: drop the key bands in it"
                )
        if self.stage != "detector" and any(part.masks for part in (*self.data, self.validation) if part):
            raise ValueError("masks are for stage detector alone: name clear images")
        if self.stage != "detector":
            self.reference.check_crop(self.crop)
        if self.crop < LEAST_CROP:
            raise ValueError(f"crop must be {LEAST_CROP} px at least, got {self.crop}")
        if self.data and not any(part.share for part in self.data):
            raise ValueError("share of all [[data]] is 0: give one a weight above, or drop the key")

    @property
    def alone(self) -> bool:
        """Return whether what it trains is a model without a noise network."""
        restorer = self.stage == "reference" and self.reference.kind in RESTORERS
        return restorer or self.stage in ALONE

    @property
    def takes_held_out(self) -> str:
        """Return how the run takes images that are held out, one of `HELD_OUT`."""
        return self.held_out or ("with" if self.stage in WEIGHING else "without")

    def _check_ranges(self) -> None:
        """Refuse numbers that no training can go by, and bands that are not told apart."""
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be from 0 to below 2^63, got {self.seed}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate must be above 0, and 1 at most, got {self.learning_rate}")
        if not 0 <= self.weight_decay <= 1000:
            raise ValueError(f"weight_decay must be from 0 to 1000, got {self.weight_decay}")
        if self.batch * self.accumulate > MOST_CROPS:
            raise ValueError(
                f"a process holds the batch x accumulate crops of a step, {MOST_CROPS} at most, got "
                f"{self.batch} x {self.accumulate}: set one of the two lower"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be a rate from 0 to below 1, got {self.ema}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be 0 steps or more, got {self.warmup}")
        if self.spectrum and len(self.spectrum) != len(self.bands):
            names = ", ".join(self.spectrum)
            raise ValueError(f"spectrum must be a name for each of the {len(self.bands)} bands, got {names}")
        if not all(band.strip() for band in self.bands):
            raise ValueError(f"bands must be names, got {list(self.bands)}: one of them is empty")
        if len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands must be names that differ, got {', '.join(self.bands)}")

    def _check_loss(self) -> None:
        """Refuse values that are out of range, or that this stage would not read."""
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is unknown, expected one of {LOSSES}")
        if not 2 < self.latest_start < 1000:
            raise ValueError(f"latest_start must be a step from 3 to 999, got {self.latest_start}")
        if self.steady < 0 or (self.steady and self.stage != "reference"):
            raise ValueError(f"steady is a weight from 0, of stage reference alone, got {self.steady:g}")
        if self.similar < 0 or (self.similar and self.stage != "reference"):
            raise ValueError(f"similar is a weight from 0, of stage reference alone, got {self.similar:g}")
        if self.on_path and self.stage not in WEIGHING:
            raise ValueError(
                f"on_path is of stages {' and '.join(WEIGHING)} alone, this run is of {self.stage}: drop it"
            )
        if (self.part or self.early) and self.stage != "diffusion":
            raise ValueError("part and early are of stage diffusion alone")
        if not 0 <= self.early <= 1:
            raise ValueError(f"early must be in [0, 1], got {self.early:g}")
        if self.part < 0 or (self.part and self.crop % self.part):
            raise ValueError(f"part must be 0 or divide crop, {self.crop}, got {self.part}")
        if self.loss != LOSSES[0] and self.stage != "reference" and not self.on_path:
            raise ValueError(f"loss {self.loss!r} is of stage reference, and of others with on_path alone")

    def _check_critic(self) -> None:
        """Refuse a critic of runs that would not paint, or whose parts it cannot see."""
        if self.stage != "diffusion" or self.network is None or self.network.covered is None:
            raise ValueError("a critic is of stage diffusion, of a network with 'covered'")
        if not self.part or self.part % (1 << HALVINGS):
            raise ValueError(
                f"a critic sees parts of a multiple of {1 << HALVINGS} px, got part = {self.part}"
            )

    def _check_alone(self) -> None:
        """Refuse a reference of another kind than the stage's, or too few pixels for a discriminator."""
        if self.reference.kind not in ALONE[self.stage]:
            expected = " or ".join(ALONE[self.stage])
            raise ValueError(
                f"stage {self.stage} trains a [reference] of kind {expected}, found {self.reference.kind!r}"
            )
        patches = self.crop // HALVED
        if self.stage == "adversarial" and self.batch * patches**2 < 2:
            raise ValueError(
                f"the discriminator sees patches of {HALVED} px and needs two of them, got {self.batch} x "
                f"{patches**2}: set batch or crop higher"
            )

    def _check_kind(self) -> None:
        """Refuse a reference that learns by the losses of a stage of its own."""
        own = next((stage for stage, kinds in ALONE.items() if self.reference.kind in kinds), None)
        if own is not None:
            raise ValueError(
                f"a [reference] of kind {self.reference.kind!r} is trained by stage {own}, found stage "
                f'reference: set stage = "{own}", or another kind'
            )

    def _check_detector(self) -> None:
        if self.detector is None or self.detector.bands != len(self.bands):
            raise ValueError(f"stage detector needs a [detector] table for {len(self.bands)} bands")
        if self.detector.family != "unet":
            raise ValueError(
                f"stage detector trains a [detector] of family unet, found {self.detector.family!r}: "
                "drop family from it"
            )
        if self.validation is not None:
            raise ValueError("a detector is judged on the held-out images of [[data]]: drop [validation]")


def read_config(path: Path) -> RunConfig:
    """Read a run from TOML.

    Raises:
        TrainingError: The file is no TOML, has unknown keys, or its values do not fit together.
    """
    try:
        table: dict[str, Any] = tomllib.loads(read_toml_text(path))
        tables, shared = _data_of(table, path, ())
        table["data"] = [_filled(part, shared) for part in tables]
        return config_from_table(table)
    except KeyError as error:
        raise TrainingError(
            f"{path} lacks {error}, expected a run: the recipes in docs/recipes show one"
        ) from error
    except OSError as error:
        raise TrainingError(
            f"{error.filename or path} cannot be read ({error.strerror}), expected the TOML of a run"
        ) from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: {error}") from error


def read_texts(path: Path) -> dict[str, str]:
    """Read the TOML of a run that `read_config` has read, and of the runs whose data it takes, by name."""
    texts, name = {}, path.name
    while isinstance(name, str):
        texts[name] = read_toml_text(path.with_name(normpath(name)))
        name = tomllib.loads(texts[name])["data"]
    return texts


def _data_of(
    table: dict[str, Any], path: Path, above: tuple[str, ...]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Take the tables of data out of that of a run, with those of the run that it names, and ``[all_data]``.

    ``above`` are the files that name this one, the nearest last.
    """
    data, shared = table.pop("data"), table_in(table, "all_data")
    table.pop("all_data", None)
    if not isinstance(data, str):
        return _list_of_tables("data", data, ", or the name of another run's file"), shared
    if data in ("", "..") or Path(data).name != normpath(data):
        raise ValueError(
            f"data is {data!r}, expected the name alone of a run's file beside {path.name}: put it there"
        )
    tables, theirs = _tables_of(path.with_name(normpath(data)), (*above, path.name))
    return tables + _list_of_tables("more_data", table.pop("more_data", [])), _filled(shared, theirs)


def _list_of_tables(key: str, value: Any, otherwise: str = "") -> list[dict[str, Any]]:
    """Refuse what is not a list of tables, and return it."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return value
    found = "one table" if isinstance(value, dict) else repr(value)
    raise TypeError(f"{key} is {found}, expected tables [[{key}]]{otherwise}")


def _tables_of(path: Path, above: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read the tables of data of a run that others name, and its ``[all_data]``.

    Raises:
        ValueError: It cannot be read, or has no data of its own.
    """
    try:
        text = read_toml_text(path)
    except OSError as error:
        raise ValueError(f"data names a run: {path} cannot be read ({error.strerror})") from error
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"data names {path.name}, which is no TOML: {error}") from error
    if path.name in above or not isinstance(table.get("data"), (list, str)):
        raise ValueError(f"data names {path.name}, expected a run with tables [[data]] of its own")
    return _data_of(table, path, above)


def _filled(table: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return a table with what another has and it has not, tables inside alike."""
    inside = {
        key: _filled(table[key], value)
        for key, value in shared.items()
        if isinstance(value, dict) and isinstance(table.get(key), dict)
    }
    return {**shared, **table, **inside}


def config_from_table(table: dict[str, Any]) -> RunConfig:
    """Build a run from a parsed table, with networks of as many bands as the run."""
    table = dict(table)
    if not isinstance(table["bands"], (list, tuple)) or not table["bands"]:
        raise TypeError(f"bands is {table['bands']!r}, expected a list of names, one for each band")
    bands = {"bands": len(table["bands"])}
    table["data"] = tuple(_source(part, "data") for part in table["data"])
    if "validation" in table:
        table["validation"] = _source(table_in(table, "validation"), "validation")
    table["reference"] = build(ReferenceConfig, bands | table_in(table, "reference"), "reference")
    if "detector" in table:
        table["detector"] = build(DetectorConfig, bands | table_in(table, "detector"), "detector")
    if "critic" in table:
        table["critic"] = build(CriticConfig, table["critic"], "critic")
    if "network" in table:
        table["network"] = _network(bands | table_in(table, "network"))
    run: RunConfig = build(RunConfig, table)
    return run


def _network(table: dict[str, Any]) -> NetworkConfig:
    """Build the network of noise and weight of its table, which has its bands."""
    network = dict(table)
    if "grown" in network:
        grown = table_in(network, "grown", "network.")
        trunk = {"bands": network["bands"], **table_in(grown, "trunk", "network.grown.")}
        built: ReferenceConfig = build(ReferenceConfig, trunk, "network.grown.trunk")
        network["grown"] = build(GrownConfig, {**grown, "trunk": built}, "network.grown")
    for part, replacement in (("noise", "grown"), ("weight", "covered")):
        if part in network:
            network[part] = build(UNetConfig, network[part], f"network.{part}")
        elif replacement not in network:
            raise ValueError(f"network lacks {part!r}, expected that table, or {replacement!r} in its place")
    result: NetworkConfig = build(NetworkConfig, network, "network")
    return result


def _source(table: dict[str, Any], name: str) -> DataConfig:
    """Build a source of images of its table, which messages call ``name``."""
    clouds: CloudRecipe = build(CloudRecipe, table_in(table, "clouds"), "clouds")
    veils: VeilRecipe = build(VeilRecipe, table_in(table, "veils"), "veils")
    source: DataConfig = build(DataConfig, {**table, "clouds": clouds, "veils": veils}, name)
    both = source.clear and source.cloudy and normpath(source.clear) == normpath(source.cloudy)
    if both and not source.simulate:
        raise ValueError(
            f"{name}: clear and cloudy are both {source.clear!r}, expected the folder of the clear images "
            "and that of the cloudy ones: name the other, or drop cloudy and set simulate = 1.0"
        )
    return source
