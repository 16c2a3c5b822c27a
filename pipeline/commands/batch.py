"""`decr-scene batch`: a folder of scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.defaults import SCENES
from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.terminal.console import (
    debugging,
    one_line_errors,
    show_debug_log,
    summarise_batch,
)
from decr_scene.pipeline.terminal.options import FILE, NAME, example, restoring_options, writing_options


@click.command(epilog=example("decr-scene batch incoming/ --out clean/"))
@click.argument("folder", type=NAME, metavar="DIR")
@click.option("--out", type=FILE, required=True, metavar="DIR", help="Where the outputs go; made if need be.")
@click.option("--pattern", default=SCENES, show_default=True, help="Names of the scenes, comma-separated.")
@click.option("--recursive", is_flag=True, help="Enter the folders in DIR; --out gets the same tree.")
@click.option(
    "--folders", is_flag=True, help="Each folder in DIR is a scene, as a vendor's product is; files are none."
)
@restoring_options
@writing_options
@one_line_errors
def batch(folder: str, out: Path, quiet: bool, **options: Any) -> None:
    """Remove the clouds of all scenes in DIR, with a ledger, batch.json, beside the outputs.

    With --folders each folder in DIR becomes one output of its name, as `process` takes it, and --pattern, if
    it is given, is of the folders' names.

    DIR may be a text file with a name a line in its place, paths or addresses as `process` takes them, or one
    address.

    The same call again does what is missing, failed or out of date and leaves the rest alone: finished
    outputs get no --quicklook and no --stac. An output that is not of this program, or of another input, is
    only replaced with --overwrite.
    """
    from decr_scene.pipeline.batch.directory import process_directory
    from decr_scene.pipeline.terminal.progress import stderr_progress

    if debugging():
        show_debug_log()
    with stderr_progress(last_part(folder), quiet, of_folder=True) as progress:
        report = process_directory(folder, out, progress=progress, **options)
    summarise_batch(report, folder, out, quiet)
