"""`decr-scene inspect`: inspect a scene, restore nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.terminal.console import one_line_errors, print_json, print_line, print_table, warn
from decr_scene.pipeline.terminal.duration import duration
from decr_scene.pipeline.terminal.options import FILE, NAME, example, overwrite_option, restoring_options


@click.command(epilog=example("decr-scene inspect scene.tif --model default"))
@click.argument("scene", type=NAME)
@restoring_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--ccp", is_flag=True, help="Cloud coverage probability alone, of a scene or of a folder of images."
)
@click.option("--pairs", is_flag=True, help="A folder of pairs: what data set, its parts, images twice.")
@click.option("--out", type=FILE, help="With --ccp: write a row per image (.csv) or the histogram (.png).")
@overwrite_option("a file that exists")
@one_line_errors
def inspect(
    scene: str,
    as_json: bool,
    ccp: bool,
    pairs: bool,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Say what would be done to SCENE, without doing it; or how cloudy it is, or what pairs are in it."""
    from decr_scene.pipeline.inspection.summary import inspect_scene

    if pairs and (ccp or out is not None):
        raise OptionError("--pairs goes alone: drop --ccp and --out")
    if pairs:
        _show_pairs(Path(scene), as_json)
        return
    if ccp:
        _show_coverage(Path(scene), as_json, out, overwrite, options)
        return
    if out is not None:
        raise OptionError("--out goes with --ccp: inspect alone writes nothing")
    summary = inspect_scene(scene, **options)
    if as_json:
        print_json(summary)
    else:
        print_table(_table_rows(summary))


def _table_rows(summary: dict[str, Any]) -> dict[str, Any]:
    """Format times in minutes and lists as words, without empty values."""
    estimate = summary["estimate"]
    values = {name: value for name, value in summary.items() if value not in (None, [])}
    words = {n: ", ".join(map(str, v)) for n, v in values.items() if isinstance(v, list) and n != "warnings"}
    warnings = {"warnings": "; ".join(summary["warnings"])} if summary["warnings"] else {}
    sizes = {name: f"{estimate[f'{name}_mb']:.0f} MB" for name in ("memory", "scratch", "output")}
    times = {"time": f"about {duration(estimate['seconds'])}", **sizes}
    return {**values, **words, "estimate": times, **warnings}


def _show_pairs(place: Path, as_json: bool) -> None:
    from decr_scene.pipeline.evaluation.pairs import warnings_of
    from decr_scene.pipeline.inspection.data_set import folders_of, inspect_data_set

    data_set = inspect_data_set(place)
    for folder in folders_of(place).values():
        for text in warnings_of(folder):
            warn(text)
    if as_json:
        print_json(data_set.to_json())
    else:
        print_line(data_set.to_text())


def _show_coverage(
    place: Path, as_json: bool, out: Path | None, overwrite: bool, options: dict[str, Any]
) -> None:
    from decr_scene.pipeline.files import check_no_input, check_target, files_under
    from decr_scene.pipeline.inspection.coverage import measure_coverage

    if out is not None and out.suffix.lower() not in (".csv", ".png"):
        raise OptionError(f"{out} must end in .csv or .png")
    if out is not None:
        read = [("an image", path) for path in files_under(place)]
        check_no_input([out], [*read, ("the model", options["model"])])
        check_target(None, out, overwrite)
    coverage = measure_coverage(place, **options)
    if out is not None:
        coverage.write(out)
    if as_json:
        print_json({"images": len(coverage.names), "mean": coverage.mean, "shares": coverage.shares()})
    else:
        print_line(coverage.to_text())
