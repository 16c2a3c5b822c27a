"""Run a stage of training for `decr-scene train`: images read as scenes, a run folder, a progress bar."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decr_scene.models.allocation import keep_freed_memory
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import source_files
from decr_scene.models.data.loading import load_source
from decr_scene.models.data.source import Pair, PairSource
from decr_scene.models.devices import pick_device
from decr_scene.models.errors import TrainingError
from decr_scene.models.networks.detector import CloudDetector
from decr_scene.models.release.calibration import calibrate
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.labels import labelled
from decr_scene.models.training.logs import RunLog
from decr_scene.models.training.loop import CHECKPOINT, Trainer, validation_pairs
from decr_scene.pipeline.errors import LockedError
from decr_scene.pipeline.files import os_faults
from decr_scene.pipeline.raster.images import RasterImage, read_image
from decr_scene.pipeline.system.locks import HeldError, Lock
from decr_scene.pipeline.training.doubts import painted_nowhere
from decr_scene.pipeline.training.run_folder import open_run_folder, weights_of

LOCK = ".lock"
"""File in a run folder that the process holds which trains there."""


def train(
    config: RunConfig,
    data: Path,
    out: Path,
    initial: tuple[Path, ...] = (),
    quiet: bool = False,
    device: str = "auto",
    texts: Mapping[str, str] | None = None,
    minutes: float = math.inf,
    loaders: int = 0,
    cpu_minutes: float = math.inf,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Run one stage to its end, or go on with it.

    Under ``torchrun`` it runs this process's share.

    Args:
        config: The run.
        data: Root that the run's folders are relative to.
        out: Run folder: checkpoint, metrics, samples, and the origin of the run.
        initial: Run folders of earlier stages, means of them, model files, or names of bundled models.
        quiet: No progress bar.
        device: ``auto``, ``cpu`` or ``cuda``.
        texts: TOML of the run, and of the run whose data it takes, by name, to be kept with it.
        minutes: Time after which it stops at a checkpoint; the same call continues.
        loaders: Processes that draw crops; none: a thread does.
        cpu_minutes: Processor time of all calls together after which the run is over.
        tell: Called with what is doubtful about the run at its end.

    Returns:
        Figures of the last validation; of a detector, of the images kept from its training. Nothing in any
        process but the first.
    """
    own_device = _own_device(device)
    with _process_group(own_device) as rank, ExitStack() as held:
        sources, validation = sources_of(config, data)
        has_begun = (out / CHECKPOINT).exists()  # then its own weights are taken
        before = [] if has_begun else [weights_of(place) for place in initial]
        if rank == 0:
            held.enter_context(_alone_in(out))
        trainer = Trainer.start(config, out, before, own_device)
        if rank == 0:
            open_run_folder(out, texts, data, _files(config, data), before)
        if rank:
            return trainer.run(
                sources, [], lambda step, figures: None, None, minutes, loaders, cpu_minutes=cpu_minutes
            )
        log = RunLog(out, trainer.step, config.bands, curves=True, pictures=True)
        seen: set[str] = set()
        try:
            pairs = validation_pairs(validation) if validation else []
            figures = _run(trainer, sources, pairs, log, quiet, minutes, loaders, cpu_minutes, seen)
        finally:
            log.close()
        done = trainer.is_over(cpu_minutes)
        for text in painted_nowhere(config, out, seen) if done else []:
            tell(text)
        return _calibrated(config, trainer, data) if config.stage == "detector" and done else figures


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which the system releases when the process ends, however it ends.

    Raises:
        LockedError: Another process trains there.
    """
    with os_faults(f"cannot write to {folder}", folder.absolute().parent):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(folder / LOCK)
        except HeldError as busy:
            raise LockedError(
                f"{str(busy) or 'another run'} is training in {folder}: wait for it, or choose another --out"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _run(
    trainer: Trainer,
    sources: list[PairSource],
    validation: list[Pair],
    log: RunLog,
    quiet: bool,
    minutes: float,
    loaders: int,
    cpu_minutes: float,
    seen: set[str],
) -> dict[str, float]:
    """Train under a progress bar, and add to ``seen`` the names of the figures that were ever above 0."""
    config = trainer.config
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=quiet,
    ) as bar:
        name = f"{config.stage}, finished before" if trainer.step == config.steps else config.stage
        task = bar.add_task(name, total=config.steps, completed=trainer.step)
        smooth: dict[str, float] = {}

        def report(step: int, figures: dict[str, float]) -> None:
            seen.update(name for name, value in figures.items() if value > 0)
            for name, value in figures.items():
                smooth[name] = value if name.endswith(("_db", "_dn")) else _follow(smooth.get(name), value)
            text = " ".join(f"{name} {value:.4g}" for name, value in smooth.items())
            bar.update(task, completed=step, description=f"{config.stage} {text}")

        return trainer.run(sources, validation, report, log, minutes, loaders, cpu_minutes=cpu_minutes)


def sources_of(config: RunConfig, data: Path) -> tuple[list[PairSource], PairSource | None]:
    """Read the sources of a run and its validation.

    All faults of them are told at once.
    """
    sources, validation, faults = [], None, []
    for part in config.data:
        try:
            sources.append(
                load_source(
                    part,
                    data,
                    read_image,
                    held_out=config.takes_held_out,
                    bands=len(config.bands),
                    crop=config.crop,
                    opener=RasterImage.open,
                )
            )
        except TrainingError as error:
            faults.append(str(error))
    try:
        if config.validation is not None:
            validation = load_source(
                config.validation,
                data,
                read_image,
                held_out="only" if config.validation.holdout else "with",
                bands=len(config.bands),
                opener=RasterImage.open,
            )
    except TrainingError as error:
        faults.append(f"validation: {error}")
    if faults:
        raise TrainingError("; ".join(faults))
    if config.detector is not None:
        sources = [labelled(source) for source in sources]
    return sources, validation


def _files(config: RunConfig, data: Path) -> list[Path]:
    parts: list[DataConfig] = [*config.data, *([config.validation] if config.validation else [])]
    return [file for part in parts for file in source_files(part, data, len(config.bands))]


def _own_device(name: str) -> torch.device:
    """Choose the device of this process.

    Under ``torchrun`` each has a GPU of its own.
    """
    device = pick_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if device.type == "cuda" else device


@contextmanager
def _process_group(device: torch.device) -> Iterator[int]:
    """Join the processes of ``torchrun``, if there are any, and yield the number of this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def _calibrated(config: RunConfig, trainer: Trainer, data: Path) -> dict[str, float]:
    """Choose the threshold of a detector on the images held out: simulated cloud, and pairs and masks."""
    detector = trainer.ema["detector"]
    assert isinstance(detector, CloudDetector)
    held_out = [part for part in config.data if part.holdout and part.judged]
    images = [load_source(part, data, read_image, held_out="only") for part in held_out]
    kinds = {
        "simulated": [labelled(source, 1.0, plain=True) for source in images if source.config.simulate],
        "real": [labelled(source, 0.0, plain=True) for source in images if source.config.cloudy],
    }
    spectrum = config.spectrum or config.bands
    sources = {kind: parts for kind, parts in kinds.items() if parts}
    return calibrate(detector.cpu().eval(), sources, config.crop, spectrum, trainer.folder)


def _follow(mean: float | None, value: float) -> float:
    return value if mean is None else 0.98 * mean + 0.02 * value
