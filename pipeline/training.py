"""`decr-scene train`: images read as scenes are, a progress bar, and the model file at the end."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.data import load_source
from decr_scene.models.training.loop import CHECKPOINT, Trainer, validation_pairs
from decr_scene.pipeline.radiometry import fit_radiometry


def read_image(path: Path) -> NDArray[np.float32]:
    """Read any raster GDAL knows as ``(C, H, W)`` in [-1, 1], with the scaling that a scene would get."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            pixels, valid = source.read(), source.read_masks() > 0
    radiometry = fit_radiometry(pixels.dtype, len(pixels), pixels, valid)
    return radiometry.to_model(pixels, valid)


def train(
    config: RunConfig, data: Path, out: Path, initial: tuple[Path, ...] = (), quiet: bool = False
) -> dict[str, float]:
    """Run one stage to its end, or go on with it.

    Args:
        config: The run.
        data: Root that the run's folders are relative to.
        out: Run folder: checkpoint and metrics.
        initial: Run folders of earlier stages.
        quiet: No progress bar.

    Returns:
        Figures of the last validation.
    """
    after_reference = config.stage in ("weight", "joint")
    sources = [
        load_source(
            part, data, read_image, config.held_out_only, held_out=after_reference or not part.holdout
        )
        for part in config.data
    ]
    held = load_source(config.validation, data, read_image) if config.validation else None
    trainer = Trainer.start(config, out, [folder / CHECKPOINT for folder in initial])
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=quiet,
    ) as bar:
        task = bar.add_task(config.stage, total=config.steps, completed=trainer.step)
        smooth: dict[str, float] = {}

        def report(step: int, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                smooth[name] = value if name.endswith(("_db", "_dn")) else _follow(smooth.get(name), value)
            text = " ".join(f"{name} {value:.4g}" for name, value in smooth.items())
            bar.update(task, completed=step, description=f"{config.stage} {text}")

        return trainer.run(sources, validation_pairs(held) if held else [], report)


def _follow(mean: float | None, value: float) -> float:
    return value if mean is None else 0.98 * mean + 0.02 * value
