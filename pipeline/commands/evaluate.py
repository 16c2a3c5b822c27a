"""`decr-scene evaluate`: figures on held-out pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decr_scene.pipeline.defaults import DETECTORS
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.terminal.console import one_line_errors, print_line, warn
from decr_scene.pipeline.terminal.options import (
    FILE,
    SweepType,
    example,
    overwrite_option,
    quiet_option,
    sampling_options,
)

if TYPE_CHECKING:
    from decr_scene.pipeline.evaluation.answers import Settings
    from decr_scene.pipeline.evaluation.compare import System


@click.command(epilog=example("decr-scene evaluate --model rice2 --data pairs/rice2/test"))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("rice2",),
    show_default=True,
    help="Bundled name, file or fill; several, given one by one, are compared.",
)
@click.option(
    "--compare",
    "compared",
    metavar="A,B,..",
    help="Models, one column each, held against the input and the smooth fill.",
)
@click.option("--complexity", is_flag=True, help="What one answer costs, in place of figures; no --data.")
@click.option("--data", type=FILE, help="Folder with cloudy/ (cloud/) and clear/ (label/).")
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
    "--by-process",
    is_flag=True,
    help="Restore each image by a whole run of process, as a user has it, not by the networks alone.",
)
@click.option(
    "--mask",
    type=click.Choice(["none", "auto"]),
    help="auto: only what is seen as cloud, or changed much, is changed.  "
    "[default: none; auto with --by-process]",
)
@click.option(
    "--detector",
    type=click.Choice(DETECTORS),
    default="auto",
    show_default=True,
    help="Who looks for cloud: the model's own, or ukis-csmask on blue, green, red and nir "
    "(rgb, fill: not nir); auto: as process does, by the pixels of the first image.",
)
@click.option("--lpips", is_flag=True, help="LPIPS as well; needs torchvision and its AlexNet.")
@click.option("--perceptual", is_flag=True, help="Perceptual distance, by ukis-csmask's encoder; slower.")
@click.option(
    "--samples",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Samples of each image; with 2 and more, their spread against the error.",
)
@click.option("--uncertainty", is_flag=True, help="The error that the model expects against the error.")
@click.option(
    "--ablation", is_flag=True, help="No prior, a fixed one, the model's own weight, reference alone."
)
@click.option(
    "--sweep", type=SweepType(), help="Of steps, start, weight-floor or gain, such as steps=5,10,20."
)
@click.option("--csv", "table", type=FILE, help="Write one row per image, or per row of a comparison.")
@click.option("--sheet", type=FILE, help="Write a PNG with cloudy, reference, DE and truth of some images.")
@click.option("--trace", type=FILE, help="Write the mean weight of the first guess at every step as CSV.")
@click.option("--plots", type=FILE, help="Folder for plots, PNG and CSV: W by step and its maps, or sweeps.")
@overwrite_option("files that exist")
@quiet_option()
@one_line_errors
def evaluate(
    models: tuple[str, ...],
    compared: str | None,
    complexity: bool,
    data: Path | None,
    ablation: bool,
    sweep: tuple[str, tuple[float, ...]] | None,
    sheet: Path | None,
    trace: Path | None,
    steps: int | None,
    start: int | None,
    weight_floor: float | None,
    gain: float | None,
    samples: int,
    uncertainty: bool,
    by_process: bool,
    mask: str | None,
    **options: Any,
) -> None:
    """Measure input, reference alone and DE on held-out pairs.

    With several models, --compare, --by-process, --ablation or --sweep: one row for each system instead.
    """
    from decr_scene.pipeline.evaluation.answers import Settings
    from decr_scene.pipeline.evaluation.compare import compare
    from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs
    from decr_scene.pipeline.evaluation.pairs import warnings_of

    settings = Settings(steps, start, weight_floor, gain=gain)
    names = tuple(name.strip() for name in (compared or "").split(",") if name.strip())
    if compared is not None and not names:
        raise OptionError(f"--compare names no models, got {compared!r}: list some, such as rice2,default")
    options["mask"] = mask or ("auto" if by_process else "none")
    if ablation and gain is not None:
        raise OptionError("the systems of an ablation have no gain: drop --gain, or --ablation")
    systems = _comparison(models, names, ablation, sweep, settings, by_process)
    if complexity and (data is not None or by_process):
        given = "--data" if data is not None else "--by-process"
        raise OptionError(f"--complexity measures no pairs: drop {given}, or --complexity")
    if complexity:
        _print_complexity(names or models, settings, options["table"], options["overwrite"])
        return
    if data is None:
        raise OptionError("evaluate measures on pairs: name their folder with --data")
    if not data.is_dir():
        raise OptionError(f"{data} is no folder, expected one with cloudy/ and clear/ in it: check --data")
    if systems is None:
        options.update(samples=samples, uncertainty=uncertainty, sheet=sheet, trace=trace)
        evaluation = evaluate_pairs(models[0], data, settings, **options)
        for text in warnings_of(data):
            warn(text)
        print_line(evaluation.to_text())
        return
    _refuse_with_comparison(
        {
            "--samples": samples > 1,
            "--uncertainty": uncertainty,
            "--sheet": sheet is not None and not names and not by_process,
            "--trace": trace is not None,
        }
    )
    options.update(sheet=sheet, with_baselines=bool(names), by_process=by_process)
    comparison = compare(systems, data, **options)
    for text in (*warnings_of(data), *comparison.warnings):
        warn(text)
    print_line(comparison.to_text())


def _refuse_with_comparison(options: dict[str, bool]) -> None:
    """Refuse options that only go with one model, of those that are set."""
    for option, is_set in options.items():
        if is_set:
            raise OptionError(
                f"{option} is of one model at one setting: drop it, or the comparison (--by-process is one)"
            )


def _print_complexity(
    models: tuple[str, ...], settings: Settings, table: Path | None, overwrite: bool
) -> None:
    """Measure and print what one answer of each model costs."""
    from decr_scene.pipeline.evaluation.complexity import measure_complexity
    from decr_scene.pipeline.files import check_no_input, check_target

    if table is not None:
        check_no_input([table], [("the model", model) for model in models])
        check_target(None, table, overwrite)
    costs = measure_complexity(models, settings)
    if table is not None:
        costs.to_csv(table)
    print_line(costs.to_text())


def _comparison(
    models: tuple[str, ...],
    names: tuple[str, ...],
    ablation: bool,
    sweep: tuple[str, tuple[float, ...]] | None,
    settings: Settings,
    by_process: bool,
) -> list[System] | None:
    """Return the systems of the requested comparison, if there is one.

    Args:
        models: Those of ``--model``.
        names: Those of ``--compare``.
        ablation: Vary the prior.
        sweep: Name and values of a setting to vary.
        settings: How all of them sample.
        by_process: By whole runs, which have no reference alone.

    Raises:
        OptionError: Several comparisons are requested.
    """
    from decr_scene.pipeline.evaluation import compare as comparison

    if bool(names) + (len(models) > 1) + ablation + (sweep is not None) > 1:
        raise OptionError("--compare, several models, --ablation and --sweep are comparisons: take one")
    if names:
        return comparison.compare_alone(names, settings)
    if len(models) > 1 and not by_process:
        return comparison.compare_models(models, settings)
    if ablation:
        return comparison.ablation(models[0], settings)
    if sweep is not None:
        return comparison.sweep(models[0], settings, *sweep)
    return comparison.compare_alone(models, settings) if by_process else None
