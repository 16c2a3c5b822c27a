"""The command line: click, and nothing else. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OptionError

if TYPE_CHECKING:
    from decr_scene.pipeline.batch import BatchReport
    from decr_scene.pipeline.run import Report

FILE = click.Path(path_type=Path)
COMPRESSIONS = ["auto", "deflate", "zstd", "lzw", "lzma", "none"]
SCENES = "*.tif,*.tiff,*.jp2,*.vrt"


class SweepType(click.ParamType[tuple[str, tuple[float, ...]]]):
    """``name=v1,v2,...``."""

    name = "NAME=V,V,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        """Parse a name and numbers."""
        if isinstance(value, tuple):
            return value
        name, _, numbers = value.partition("=")
        try:
            return name, tuple(float(number) for number in numbers.split(","))
        except ValueError:
            self.fail(f"{value!r} is no sweep, expected such as steps=5,10,20", param, ctx)


class RangeType(click.ParamType[tuple[float, float]]):
    """``low,high``."""

    name = "LOW,HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Parse two numbers."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers, expected such as 0,10000", param, ctx)
        return low, high


def example(text: str) -> str:
    """An epilog that shows one call."""
    return f"Example: {text}"


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a user can cause into one line: exit code 2 for a wrong call, 1 for a failed job."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        try:
            return command(*args, **kwargs)
        except DecrSceneError as error:
            if context.find_root().params.get("debug"):
                raise
            click.echo(f"decr-scene: {' '.join(str(error).split())}{_what_is_kept(context)}", err=True)
            context.exit(2 if isinstance(error, (OptionError, LookupError)) else 1)
        except Exception as error:
            if context.find_root().params.get("debug"):
                raise
            told = f"{type(error).__name__}: {error}"
            click.echo(f"decr-scene: unexpected {' '.join(told.split())}; --debug shows where", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            kept = _what_is_kept(context) or "; nothing was written"
            click.echo(f"decr-scene: interrupted{kept}", err=True)
            context.exit(130)

    return wrapped


def _what_is_kept(context: click.Context) -> str:
    """A word on what a failed run has left to go on from, if it has."""
    out = context.params.get("out")
    if not isinstance(out, Path):
        return ""
    from decr_scene.pipeline.writer import journal_path

    return "; finished blocks are kept, the same command goes on" if journal_path(out).exists() else ""


def restoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what is done to the pixels; shared by every command that restores or plans to."""
    options = [
        click.option("--model", default="default", show_default=True, help="Bundled name, file or identity."),
        click.option("--steps", type=int, help="Diffusion steps; the model's own default otherwise."),
        click.option(
            "--start", type=int, help="Step to start at from the noised first guess; 1000: noise alone."
        ),
        click.option("--weight-floor", type=float, help="Least weight of the first guess (the paper's eta)."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the noise."),
        click.option(
            "--samples",
            type=int,
            default=1,
            show_default=True,
            help="Results of each tile: from 2 on, how far they differ is written beside the output.",
        ),
        click.option("--overlap", type=int, default=64, show_default=True, help="Overlap of tiles, px."),
        click.option("--batch-size", type=int, default=8, show_default=True, help="Tiles in a batch."),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
        ),
        click.option(
            "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True
        ),
        click.option("--bands", help="What the bands are, such as blue,green,red,nir."),
        click.option("--scale", type=RangeType(), help="DN that become -1 and 1, instead of fitted limits."),
        click.option(
            "--mask",
            default="auto",
            show_default=True,
            help="A raster whose non-zero pixels are cloud; none: whatever the model changes; auto: where "
            "the model's cloud detector, if any, sees cloud or shadow, and clear ground keeps its bits.",
        ),
        click.option(
            "--aoi", metavar="FILE", help="A vector file with polygons: only inside does anything change."
        ),
        click.option(
            "--pan",
            metavar="FILE",
            help="The panchromatic raster to sharpen the scene with; none: not even that of its folder.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where it is done and how it is written; shared by the commands that write scenes."""
    options = [
        click.option(
            "--workers", type=click.IntRange(1), default=1, show_default=True, help="Model workers here."
        ),
        click.option("--scheduler", help="Address of a running Dask cluster, such as tcp://host:8786."),
        click.option(
            "--compress",
            type=click.Choice(COMPRESSIONS),
            default="auto",
            show_default=True,
            help="auto: as the scene.",
        ),
        click.option(
            "--blocksize", type=int, default=512, show_default=True, help="Side of output blocks, px."
        ),
        click.option("--quicklook", is_flag=True, help="Write a picture before/after beside the output."),
        click.option("--stac", is_flag=True, help="Write a STAC Item beside the output."),
        click.option(
            "--resume/--no-resume",
            default=True,
            show_default=True,
            help="Go on where an interrupted run stopped.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
        click.option("--quiet", is_flag=True, help="No progress bar and no summary."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="decr-scene")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Remove clouds from whole georeferenced satellite scenes."""
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")  # legitimate here


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
        _summarise(report)


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

    if click.get_current_context().find_root().params.get("debug"):
        _show_debug_log()
    try:
        with batch_progress(folder.name, quiet) as (progress, scene_progress):
            report = process_directory(
                folder, out, progress=progress, scene_progress=scene_progress, **options
            )
    except KeyboardInterrupt:
        click.echo(
            f"decr-scene: interrupted; {out / 'batch.json'} says what is done, the same command goes on",
            err=True,
        )
        sys.exit(130)
    _summarise_batch(report, folder, out, quiet)


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
    import json

    from decr_scene.pipeline.inspection import inspect_scene

    if ccp:
        _show_coverage(scene, as_json, out, options)
        return
    if out is not None:
        raise OptionError("--out goes with --ccp: inspect alone writes nothing")
    found = inspect_scene(scene, **options)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        click.echo(f"{name:>12}  {_text(value)}")


@main.group()
def models() -> None:
    """Bundled and local models."""


@models.command("list", epilog=example("decr-scene models list"))
@one_line_errors
def models_list() -> None:
    """List the bundled models."""
    from decr_scene.models.checkpoint import read_model_config
    from decr_scene.models.model import bundled_models, find_model

    click.echo(f"{'identity':<12} any bands; returns its input")
    for name in bundled_models():
        path = find_model(name)
        config = read_model_config(path)
        megabytes = path.stat().st_size / 1e6
        click.echo(
            f"{name:<12} {', '.join(config.bands)}; {megabytes:.1f} MB; {config.info.get('about', '')}"
        )


@models.command("show", epilog=example("decr-scene models show default"))
@click.argument("name")
@one_line_errors
def models_show(name: str) -> None:
    """Show what a model file says of itself."""
    import json
    from dataclasses import asdict

    from decr_scene.models.checkpoint import read_model_config
    from decr_scene.models.model import find_model

    click.echo(json.dumps(asdict(read_model_config(find_model(name))), indent=2))


@models.command(
    "import", epilog=example("decr-scene models import de.pt --reference mn.pth --out mine.safetensors")
)
@click.argument("checkpoint", type=FILE)
@click.option("--reference", type=FILE, required=True, help="Published weights of mn or mdsa.")
@click.option("--out", type=FILE, required=True, help="The model file to write.")
@click.option("--bands", help="Names of the bands, in the weights' order; red,green,blue[,nir] otherwise.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@one_line_errors
def models_import(checkpoint: Path, reference: Path, out: Path, bands: str | None, overwrite: bool) -> None:
    """Turn the published DE CHECKPOINT and its reference into one model file."""
    from decr_scene.models.checkpoint import save_model_file
    from decr_scene.models.published import read_published
    from decr_scene.pipeline.writer import check_target

    check_target(checkpoint, out, overwrite)
    config, tensors = read_published(checkpoint, reference)
    if bands:
        config = replace(config, bands=tuple(bands.split(",")))
    save_model_file(out, config, tensors)
    click.echo(f"{out}: {', '.join(config.bands)}; reference {config.reference.kind}")


@models.command(
    "export",
    epilog=example(
        "decr-scene models export runs/weight --config run.toml --card card.toml --out mine.safetensors"
    ),
)
@click.argument("run", type=FILE)
@click.option("--config", type=FILE, required=True, help="TOML of the run.")
@click.option("--card", type=FILE, required=True, help="TOML with name, [sampling] and [info] of the model.")
@click.option("--detector", type=FILE, help="Folder of a finished detector run, to become part of it.")
@click.option("--out", type=FILE, required=True, help="The model file to write.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@one_line_errors
def models_export(
    run: Path, config: Path, card: Path, detector: Path | None, out: Path, overwrite: bool
) -> None:
    """Make one model file of a finished training RUN."""
    from decr_scene.models.training.config import read_config
    from decr_scene.models.training.export import export_model
    from decr_scene.pipeline.writer import check_target

    check_target(None, out, overwrite)
    model = export_model(read_config(config), run, card, out, detector)
    click.echo(f"{out}: {model.name}, {', '.join(model.bands)}, {out.stat().st_size / 1e6:.1f} MB")


@main.command(epilog=example("decr-scene train reference --config run.toml --data images/ --out runs/ref"))
@click.argument("stage", type=click.Choice(["reference", "diffusion", "weight", "joint", "detector"]))
@click.option("--config", type=FILE, required=True, help="TOML of the run.")
@click.option("--data", type=FILE, required=True, help="Folder that the run's folders are relative to.")
@click.option("--out", type=FILE, required=True, help="Run folder; a run that is there is continued.")
@click.option("--init", type=FILE, multiple=True, help="Run folder of an earlier stage; may be given twice.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress bar.")
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
@click.option("--bands", help="What the bands are, such as red,green,blue,nir.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@one_line_errors
def simulate(scenes: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Draw clouds over clear SCENES: pairs with a mask, for training and measuring."""
    from decr_scene.pipeline.simulation import simulate_scene

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
@click.option("--bands", help="What the bands are, where they are not in the model's order.")
@click.option("--steps", type=int, help="Diffusion steps; the model's own default otherwise.")
@click.option("--start", type=int, help="Step to start at from the noised first guess; 1000: noise alone.")
@click.option("--weight-floor", type=float, help="Least weight of the first guess (the paper's eta).")
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
@click.option("--quiet", is_flag=True, help="No progress bar.")
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
    from decr_scene.pipeline import comparison
    from decr_scene.pipeline.evaluation import Settings, evaluate_pairs

    if (len(models) > 1) + ablation + (sweep is not None) > 1:
        raise OptionError("several models, --ablation and --sweep are three comparisons: take one")
    settings = Settings(steps, start, weight_floor)
    if len(models) > 1:
        systems = comparison.compare_models(models, settings)
    elif ablation:
        systems = comparison.ablation(models[0], settings)
    elif sweep is not None:
        systems = comparison.sweep(models[0], settings, *sweep)
    else:
        options.update(steps=steps, start=start, weight_floor=weight_floor, sheet=sheet, trace=trace)
        found = evaluate_pairs(models[0], **options)
        click.echo(found.to_text())
        return
    if sheet is not None or trace is not None:
        raise OptionError("--sheet and --trace are of one model at one setting: drop them, or the comparison")
    click.echo(comparison.compare(systems, **options).to_text())


def _show_coverage(place: Path, as_json: bool, out: Path | None, options: dict[str, Any]) -> None:
    import json

    from decr_scene.pipeline.coverage import measure_coverage

    if out is not None and out.suffix.lower() not in (".csv", ".png"):
        raise OptionError(f"{out} must end in .csv or .png")
    found = measure_coverage(place, **options)
    if out is not None:
        found.write(out)
    told = {"images": len(found.names), "mean": found.mean, "shares": found.shares()}
    click.echo(json.dumps(told, indent=2) if as_json else found.to_text())


def _summarise(report: Report) -> None:
    tiles, seconds = report.tiles, report.seconds
    megabytes = report.output["bytes"] / 1e6
    click.echo(
        f"{report.output['path']}: {tiles['restored']} of {tiles['total']} tiles restored with "
        f"{Path(report.model['name']).stem} in {seconds['processing']:.1f} s, {megabytes:.1f} MB"
    )
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    failed = [name for name, good in report.checks.items() if not good]
    if failed:
        click.echo(f"check failed: {', '.join(failed)}", err=True)
        sys.exit(1)


def _summarise_batch(report: BatchReport, folder: Path, out: Path, quiet: bool) -> None:
    failed = report.having("failed")
    if not quiet:
        counts = f"{len(report.having('done'))} done, {len(report.having('skipped'))} skipped"
        click.echo(f"{out}: {counts}, {len(failed)} failed; {out / 'batch.json'} says more")
        for entry in report.having("skipped"):
            if entry.error:
                click.echo(f"skipped {_under(entry.input, folder)}: {entry.error}", err=True)
    for entry in failed:
        click.echo(f"decr-scene: failed {_under(entry.input, folder)}: {entry.error}", err=True)
    if failed:
        sys.exit(1)


def _under(path: str, folder: Path) -> Path:
    return folder / os.path.relpath(path, os.path.abspath(folder))


def _show_debug_log() -> None:
    """Tracebacks of what fails without stopping the rest."""
    import logging

    log = logging.getLogger("decr_scene")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler())


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
