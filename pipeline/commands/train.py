"""`decr-scene train`: one stage of a model."""

from __future__ import annotations

import math
import os
from pathlib import Path

import click

from decr_scene.models.training.stages import STAGES
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.terminal.console import one_line_errors, print_line, warn
from decr_scene.pipeline.terminal.options import FILE, device_option, example, quiet_option, run_config_option


def _number(context: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse what is no number, which is neither above nor below anything."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number")
    return value


@click.command(epilog=example("decr-scene train reference --config run.toml --data images/ --out runs/ref"))
@click.argument(
    "stage",
    type=click.Choice(STAGES),
)
@run_config_option
@click.option("--data", type=FILE, required=True, help="Folder that the run's folders are relative to.")
@click.option("--out", type=FILE, required=True, help="Run folder; a run that is there is continued.")
@click.option(
    "--init", type=FILE, multiple=True, help="Run folder of an earlier stage, or a model; repeatable."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    callback=_number,
    help="Stop at a checkpoint after so many; the same call goes on.",
)
@click.option(
    "--cpu-minutes",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    callback=_number,
    help="End the run after so much processor time, all calls together: to compare systems.",
)
@click.option(
    "--loaders",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Processes that draw crops, so that a GPU need not wait for them; 0: a thread does.",
)
@device_option
@quiet_option()
@one_line_errors
def train(
    stage: str,
    config: Path,
    data: Path,
    out: Path,
    init: tuple[Path, ...],
    minutes: float,
    cpu_minutes: float,
    loaders: int,
    device: str,
    quiet: bool,
) -> None:
    """Train one STAGE of a model, or go on with it.

    On several GPUs: torchrun --nproc-per-node 4 -m decr_scene.pipeline train ...
    """
    from decr_scene.models.training.config import read_config, read_texts
    from decr_scene.pipeline.evaluation.pairs import warnings_of_tables
    from decr_scene.pipeline.training.doubts import (
        chosen_on_nothing,
        held_out_in_vain,
        of_other_bands,
        passed_over,
        untrained,
    )
    from decr_scene.pipeline.training.stage import train as train_stage

    run = read_config(config)
    if run.stage != stage:
        raise OptionError(f"{config} is a run of stage {run.stage}, not {stage}: name the stage of the file")
    texts = read_texts(config)
    if os.environ.get("RANK") in (None, "", "0"):  # of the processes of torchrun one tells
        told = [*of_other_bands(run, out, init), *passed_over(out, init), *held_out_in_vain(run, data)]
        told += [*untrained(run, out, init), *chosen_on_nothing(run)]
        told += warnings_of_tables(run.data, data, len(run.bands))
        for text in told:
            warn(text)
    figures = train_stage(run, data, out, init, quiet, device, texts, minutes, loaders, cpu_minutes, warn)
    if figures:
        print_line(" ".join(f"{name} {value:.3f}" for name, value in figures.items()))
