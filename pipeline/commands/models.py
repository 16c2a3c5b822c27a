"""`decr-scene models`: list models, show them, and make model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.bands import resolve_names
from decr_scene.pipeline.terminal.console import one_line_errors, print_json, print_line, warn
from decr_scene.pipeline.terminal.options import (
    FILE,
    bands_option,
    detector_option,
    example,
    model_file_option,
    overwrite_option,
    run_config_option,
)

BUILT_IN = {
    "identity": "any bands; returns its input",
    "fill": "any bands; the tone of the clear ground around, in the place of cloud",
}


@click.group()
def models() -> None:
    """List, show and make models."""


@models.command("list", epilog=example("decr-scene models list"))
@one_line_errors
def models_list() -> None:
    """List the bundled models."""
    from decr_scene.models.bundled import bundled_models, find_model
    from decr_scene.models.checkpoints.header import read_summary

    for name, about in BUILT_IN.items():
        print_line(f"{name:<12} {about}")
    for name in bundled_models():
        path = find_model(name)
        summary = read_summary(path)
        made_of = None if summary.fold is None else f"made of {summary.fold.model.stem}"
        size = made_of or f"{path.stat().st_size / 1e6:.1f} MB"
        print_line(f"{name:<12} {', '.join(summary.bands)}; {size}; {summary.about}")


@models.command("show", epilog=example("decr-scene models show default"))
@click.argument("name")
@one_line_errors
def models_show(name: str) -> None:
    """Show what a model file says of itself."""
    from dataclasses import asdict

    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    if name in BUILT_IN:
        print_line(f"{name}: built in, no file; {BUILT_IN[name]}")
        return
    print_json(asdict(read_model_config(find_model(name))))


@models.command(
    "import", epilog=example("decr-scene models import de.pt --reference mn.pth --out mine.safetensors")
)
@click.argument("checkpoint", type=FILE)
@click.option(
    "--kind",
    type=click.Choice(["de", "spagan", "amgan", "cvae", "diffcr", "cloudnet"]),
    default="de",
    show_default=True,
    help="System that the weights are of.",
)
@click.option("--reference", type=FILE, help="Published weights of mn or mdsa; with de.")
@click.option("--into", metavar="MODEL", help="Model that gets the detector; with cloudnet.")
@model_file_option
@click.option(
    "--bands",
    help="Names of the bands, in the weights' order; else red,green,blue[,nir], of spagan blue,green,red.",
)
@overwrite_option("a file that exists")
@one_line_errors
def models_import(
    checkpoint: Path,
    kind: str,
    reference: Path | None,
    into: str | None,
    out: Path,
    bands: str | None,
    overwrite: bool,
) -> None:
    """Turn the published CHECKPOINT of DE, with its reference, or of another system into one model file."""
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_file, save_model_file
    from decr_scene.models.checkpoints.published import read_published
    from decr_scene.models.checkpoints.rivals import rival_model, with_cloudnet
    from decr_scene.pipeline.files import check_no_input, check_target

    _check_belongs(kind, "de", "--reference", reference)
    _check_belongs(kind, "cloudnet", "--into", into)
    inputs = [("the checkpoint", checkpoint), ("the reference", reference)]
    check_no_input([out], [(what, path) for what, path in inputs if path is not None])
    check_target(None if into is None else find_model(into), out, overwrite)
    names = resolve_names(("",) * len(bands.split(",")), bands) if bands else None
    if reference is not None:
        config, tensors = read_published(checkpoint, reference)
        config = config if names is None else replace(config, bands=names)
    elif into is not None:
        config, tensors = with_cloudnet(*read_model_file(find_model(into)), checkpoint)
    else:
        config, tensors = rival_model(checkpoint, kind, names)
    save_model_file(out, config, tensors)
    detector = (
        f"; detector {config.detector.family}" if into is not None and config.detector is not None else ""
    )
    print_line(f"{out}: {', '.join(config.bands)}; reference {config.reference.kind}{detector}")


def _check_belongs(kind: str, with_kind: str, option: str, value: object) -> None:
    """Refuse an option without the kind that it belongs to, and that kind without it."""
    if kind == with_kind and value is None:
        raise OptionError(f"--kind {kind} needs {option}: name it")
    if kind != with_kind and value is not None:
        raise OptionError(f"{option} is of --kind {with_kind}, this is {kind}: drop it")


@models.command(
    "export",
    epilog=example(
        "decr-scene models export runs/weight --config run.toml --card card.toml --out mine.safetensors"
    ),
)
@click.argument("run", type=FILE)
@run_config_option
@click.option("--card", type=FILE, required=True, help="TOML with name, [sampling] and [info] of the model.")
@click.option("--detector", type=FILE, help="Folder of a finished detector run, to become part of it.")
@click.option("--reference", type=FILE, help="RUN whose reference is taken in the place of this one's.")
@model_file_option
@overwrite_option("a file that exists")
@one_line_errors
def models_export(
    run: Path,
    config: Path,
    card: Path,
    detector: Path | None,
    reference: Path | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Make one model file of a finished training RUN, a folder or a file of its weights."""
    from decr_scene.models.release.export import doubts, export_model
    from decr_scene.models.training.config import read_config
    from decr_scene.pipeline.files import check_no_input, check_target, files_under

    runs = [
        ("a file of the run", path)
        for place in (run, detector, reference)
        if place
        for path in files_under(place)
    ]
    check_no_input([out], [*runs, ("the configuration", config), ("the card", card)])
    check_target(None, out, overwrite)
    settings = read_config(config)
    model = export_model(settings, run, card, out, detector, reference)
    print_line(f"{out}: {model.name}, {', '.join(model.bands)}, {out.stat().st_size / 1e6:.1f} MB")
    own = ("reference", "network") if reference is None else ("network",)
    told = doubts(settings, run, own)
    if reference is not None:
        told += doubts(settings, reference, ("reference",))
    for text in told:
        warn(text)


@models.command(
    "calibrate",
    epilog=example("decr-scene models calibrate mine.safetensors --data pairs --out mine2.safetensors"),
)
@click.argument("model")
@click.option("--data", type=FILE, required=True, help="Folder of pairs that the model has not seen.")
@bands_option
@detector_option
@click.option("--reduce", type=click.IntRange(1), default=1, help="Average n x n pixels first.")
@model_file_option
@overwrite_option("a file that exists")
@one_line_errors
def models_calibrate(
    model: str, data: Path, bands: str | None, detector: str, reduce: int, out: Path, overwrite: bool
) -> None:
    """Measure the error to be expected of MODEL, for --uncertainty, and write it into a model file."""
    from decr_scene.models.bundled import find_model
    from decr_scene.pipeline.evaluation.calibrate import calibrate_model
    from decr_scene.pipeline.evaluation.pairs import warnings_of
    from decr_scene.pipeline.files import check_no_input, check_target, files_under

    check_no_input([out], [("an image of the pairs", path) for path in files_under(data)])
    check_target(find_model(model), out, overwrite)
    measured = calibrate_model(model, data, out, bands, detector, reduce)
    for text in warnings_of(data):
        warn(text)
    error = measured.error
    print_line(
        f"{out}: standard deviation {error.scale:.3g} x change^{error.change_power:.3g} x "
        f"texture^{error.texture_power:.3g}, on {measured.pairs} pairs"
    )
    if measured.warning is not None:
        warn(measured.warning)


@models.command("average", epilog=example("decr-scene models average runs/one runs/other --out runs/mean.pt"))
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="Checkpoint to write, for --init of a later stage.")
@overwrite_option("a file that exists")
@one_line_errors
def models_average(runs: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Average the weights of training RUNS that went on from one another, or from the same weights."""
    from decr_scene.models.training.weights import average_runs
    from decr_scene.pipeline.files import check_no_input, check_target, files_under
    from decr_scene.pipeline.training.run_folder import weights_of

    check_no_input([out], [("a file of a run", path) for run in runs for path in files_under(run)])
    check_target(None, out, overwrite)
    average_runs([weights_of(run) for run in runs], out)
    print_line(f"{out}: the mean of {len(runs)} runs")


@models.command(
    "fold",
    epilog=example(
        'decr-scene models fold default --band nir --into red --mix "green 0.32, red 0.63" --name rgb '
        "--out rgb.safetensors"
    ),
)
@click.argument("model")
@click.option("--band", required=True, help="Band of the model that is to go.")
@click.option("--into", required=True, help="Band that stands in for it.")
@click.option(
    "--mix",
    default="",
    help='What the first guess sees in its place instead: "green 0.32, red 0.63", shares of light.',
)
@click.option("--name", required=True, help="Name of the new model.")
@click.option("--about", default="", help="One line about it, for `models list`.")
@model_file_option
@overwrite_option("a file that exists")
@one_line_errors
def models_fold(
    model: str, band: str, into: str, mix: str, name: str, about: str, out: Path, overwrite: bool
) -> None:
    """Make of MODEL one for fewer bands: it answers as if one band were a copy of another, or a mix."""
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.fewer_bands import without_band
    from decr_scene.models.checkpoints.fold import Fold, read_mix
    from decr_scene.models.checkpoints.model_file import read_model_file, save_model_file
    from decr_scene.pipeline.files import check_target

    try:
        shares = read_mix(mix)
    except ValueError as error:
        raise OptionError(f"--mix {error}") from None
    source = find_model(model)
    check_target(source, out, overwrite)
    larger, tensors = read_model_file(source)
    config = Fold(source, band, into, name, about, shares).config(larger)
    save_model_file(out, config, without_band(larger, tensors, band, into, shares)[1])
    print_line(f"{out}: {name}, {', '.join(config.bands)}, {out.stat().st_size / 1e6:.1f} MB")
