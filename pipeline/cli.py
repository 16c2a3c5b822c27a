"""The commands: click, and nothing else. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decr_scene.pipeline.cli_options import (
    FILE,
    SCENES,
    RangeType,
    SweepType,
    device_option,
    example,
    overwrite_option,
    quiet_option,
    restoring_options,
    run_config_option,
    sampling_options,
    writing_options,
)
from decr_scene.pipeline.console import (
    debugging,
    one_line_errors,
    show_debug_log,
    summarise,
    summarise_batch,
    tell_error,
    tell_json,
    tell_table,
)
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.models_command import models

if TYPE_CHECKING:
    from decr_scene.pipeline.comparison import System
    from decr_scene.pipeline.settings import Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="decr-scene")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Remove clouds from whole georeferenced satellite scenes."""
    legitimate = ("Dataset has no geotransform", "The given matrix is equal to Affine.identity")
    for message in legitimate:
        warnings.filterwarnings("ignore", message=message)
    # for the workers that are processes of their own
    os.environ.setdefault("PYTHONWARNINGS", ",".join(f"ignore:{message}" for message in legitimate))


main.add_command(models)


@main.command(epilog=example("decr-scene process scene.tif --out clean.tif"))
@click.argument("scene", type=FILE)
@click.option("--out", type=FILE, required=True, help="The output, a cloud-optimised GeoTIFF.")
@click.option("--polygons", type=FILE, help="Write footprint and restored areas to this .gpkg or .geojson.")
@restoring_options
@writing_options
@one_line_errors
def process(scene: Path, out: Path, quiet: bool, **options: Any) -> None:
    """Remove the clouds of SCENE and write OUT, with a report beside it."""
    from decr_scene.pipeline.progress import tile_progress
    from decr_scene.pipeline.run import process_scene

    with tile_progress(scene.name, quiet) as progress:
        report = process_scene(scene, out, progress=progress, **options)
    if not quiet:
        summarise(report)


@main.command(epilog=example("decr-scene batch incoming/ --out clean/"))
@click.argument("folder", type=FILE, metavar="DIR")
@click.option("--out", type=FILE, required=True, metavar="DIR", help="Where the outputs go; made if need be.")
@click.option("--pattern", default=SCENES, show_default=True, help="Names of the scenes, comma-separated.")
@click.option("--recursive", is_flag=True, help="Enter the folders in DIR; --out gets the same tree.")
@restoring_options
@writing_options
@one_line_errors
def batch(folder: Path, out: Path, quiet: bool, **options: Any) -> None:
    """Remove the clouds of all scenes in DIR, with a ledger, batch.json, beside the outputs.

    The same call again does what is missing, failed or out of date and leaves the rest alone. An output that
    is not of this program, or of another input, is only replaced with --overwrite.
    """
    from decr_scene.pipeline.batch import process_directory
    from decr_scene.pipeline.progress import batch_progress

    if debugging():
        show_debug_log()
    try:
        with batch_progress(folder.name, quiet) as (progress, scene_progress):
            report = process_directory(
                folder, out, progress=progress, scene_progress=scene_progress, **options
            )
    except KeyboardInterrupt:
        tell_error(f"interrupted; {out / 'batch.json'} says what is done, the same command goes on")
        sys.exit(130)
    summarise_batch(report, folder, out, quiet)


@main.command(epilog=example("decr-scene inspect scene.tif --model default"))
@click.argument("scene", type=FILE)
@restoring_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--ccp", is_flag=True, help="Cloud coverage probability alone, of a scene or of a folder of images."
)
@click.option("--out", type=FILE, help="With --ccp: write a row per image (.csv) or the histogram (.png).")
@one_line_errors
def inspect(scene: Path, as_json: bool, ccp: bool, out: Path | None, **options: Any) -> None:
    """Say what would be done to SCENE, without doing it; or with --ccp how cloudy it is."""
    from decr_scene.pipeline.inspection import inspect_scene

    if ccp:
        _show_coverage(scene, as_json, out, options)
        return
    if out is not None:
        raise OptionError("--out goes with --ccp: inspect alone writes nothing")
    found = inspect_scene(scene, **options)
    if as_json:
        tell_json(found)
    else:
        tell_table(found)


def _show_coverage(place: Path, as_json: bool, out: Path | None, options: dict[str, Any]) -> None:
    from decr_scene.pipeline.coverage import measure_coverage
    from decr_scene.pipeline.target import check_target

    if out is not None and out.suffix.lower() not in (".csv", ".png"):
        raise OptionError(f"{out} must end in .csv or .png")
    if out is not None:
        check_target(None, out, overwrite=True)
    found = measure_coverage(place, **options)
    if out is not None:
        found.write(out)
    if as_json:
        tell_json({"images": len(found.names), "mean": found.mean, "shares": found.shares()})
    else:
        click.echo(found.to_text())


@main.command(epilog=example("decr-scene train reference --config run.toml --data images/ --out runs/ref"))
@click.argument("stage", type=click.Choice(["reference", "diffusion", "weight", "joint", "detector"]))
@run_config_option
@click.option("--data", type=FILE, required=True, help="Folder that the run's folders are relative to.")
@click.option("--out", type=FILE, required=True, help="Run folder; a run that is there is continued.")
@click.option(
    "--init", type=FILE, multiple=True, help="Run folder of an earlier stage, or a model; repeatable."
)
@device_option
@quiet_option()
@one_line_errors
def train(
    stage: str, config: Path, data: Path, out: Path, init: tuple[Path, ...], device: str, quiet: bool
) -> None:
    """Train one STAGE of a model, or go on with it.

    On several GPUs: torchrun --nproc-per-node 4 -m decr_scene.pipeline train ...
    """
    from decr_scene.models.training.config import read_config
    from decr_scene.pipeline.training import train as train_stage

    run = read_config(config)
    if run.stage != stage:
        raise OptionError(f"{config} is a run of stage {run.stage}, not {stage}: name the stage of the file")
    figures = train_stage(run, data, out, init, quiet, device, config.read_text())
    if figures:
        click.echo(" ".join(f"{name} {value:.3f}" for name, value in figures.items()))


@main.command(epilog=example("decr-scene simulate clear.tif --out pairs/ --coverage 0.3,0.6"))
@click.argument("scenes", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="Folder that gets cloudy/, clear/ and mask/.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the clouds.")
@click.option("--coverage", type=RangeType(), help="Range of the share of cloud.")
@click.option("--thickness", type=RangeType(), help="Range of the greatest optical thickness.")
@click.option("--scale", type=RangeType(), help="Range of the largest structures, px.  [default: 20,400]")
@click.option("--finest", type=RangeType(), help="Range of the finest structures, px.  [default: 0.5,6]")
@click.option("--bands", help="What the bands are, such as red,green,blue,nir.")
@overwrite_option("files that exist")
@one_line_errors
def simulate(scenes: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Draw clouds over clear SCENES: pairs with a mask, for training and measuring."""
    from decr_scene.pipeline.simulation import simulate_scene

    if twice := [stem for stem, count in Counter(scene.stem for scene in scenes).items() if count > 1]:
        raise OptionError(f"{twice[0]} is the name of several scenes, of pairs in one folder: rename one")
    for scene in scenes:
        drawn = simulate_scene(scene, out, **options)
        click.echo(f"{drawn.cloudy}: {100 * drawn.cover:.0f} % cloud")


@main.command(epilog=example("decr-scene evaluate --model rice2 --data pairs/rice2/test"))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("rice2",),
    show_default=True,
    help="Bundled name or file; several, given one by one, are compared.",
)
@click.option("--data", type=FILE, required=True, help="Folder with cloudy/ (cloud/) and clear/ (label/).")
@click.option("--reduce", type=click.IntRange(1), default=1, show_default=True, help="Average n x n pixels.")
@click.option(
    "--protocol",
    type=click.Choice(["plain", "paper"]),
    default="plain",
    show_default=True,
    help="paper: resized to 256 px, PSNR and SSIM with its truncation.",
)
@click.option(
    "--bands", help="What the bands are, where neither the files say it nor they are in the model's order."
)
@sampling_options
@click.option(
    "--mask",
    type=click.Choice(["none", "auto"]),
    default="none",
    show_default=True,
    help="auto: what the model hardly changes keeps its values.",
)
@click.option("--lpips", is_flag=True, help="LPIPS as well; needs torchvision and its AlexNet.")
@click.option("--ablation", is_flag=True, help="No prior, a fixed one, the weight network, reference alone.")
@click.option("--sweep", type=SweepType(), help="Of steps, start or weight-floor, such as steps=5,10,20.")
@click.option("--csv", "table", type=FILE, help="Write one row per image, or per row of a comparison.")
@click.option("--sheet", type=FILE, help="Write a PNG with cloudy, reference, DE and truth of some images.")
@click.option("--trace", type=FILE, help="Write the mean weight of the first guess at every step as CSV.")
@quiet_option()
@one_line_errors
def evaluate(
    models: tuple[str, ...],
    ablation: bool,
    sweep: tuple[str, tuple[float, ...]] | None,
    sheet: Path | None,
    trace: Path | None,
    steps: int | None,
    start: int | None,
    weight_floor: float | None,
    **options: Any,
) -> None:
    """Measure input, reference alone and DE on held-out pairs.

    With several models, --ablation or --sweep: one row for each system instead.
    """
    from decr_scene.pipeline.comparison import compare
    from decr_scene.pipeline.evaluation import evaluate_pairs
    from decr_scene.pipeline.settings import Settings

    settings = Settings(steps, start, weight_floor)
    systems = _compared(models, ablation, sweep, settings)
    if systems is None:
        options.update(steps=steps, start=start, weight_floor=weight_floor, sheet=sheet, trace=trace)
        click.echo(evaluate_pairs(models[0], **options).to_text())
        return
    if sheet is not None or trace is not None:
        raise OptionError("--sheet and --trace are of one model at one setting: drop them, or the comparison")
    click.echo(compare(systems, **options).to_text())


def _compared(
    models: tuple[str, ...],
    ablation: bool,
    sweep: tuple[str, tuple[float, ...]] | None,
    settings: Settings,
) -> list[System] | None:
    """The systems of the comparison that is asked for, if one is."""
    from decr_scene.pipeline import comparison

    if (len(models) > 1) + ablation + (sweep is not None) > 1:
        raise OptionError("several models, --ablation and --sweep are three comparisons: take one")
    if len(models) > 1:
        return comparison.compare_models(models, settings)
    if ablation:
        return comparison.ablation(models[0], settings)
    if sweep is not None:
        return comparison.sweep(models[0], settings, *sweep)
    return None
