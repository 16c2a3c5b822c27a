"""`decr-scene process`: one scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.terminal.console import one_line_errors, summarise
from decr_scene.pipeline.terminal.options import FILE, NAME, example, restoring_options, writing_options


@click.command(epilog=example("decr-scene process scene.tif --out clean.tif"))
@click.argument("scene", type=NAME)
@click.option("--out", type=FILE, required=True, help="The output, a cloud-optimised GeoTIFF.")
@click.option("--polygons", type=FILE, help="Write footprint and restored areas to this .gpkg or .geojson.")
@restoring_options
@writing_options
@one_line_errors
def process(scene: str, out: Path, quiet: bool, **options: Any) -> None:
    """Remove the clouds of SCENE and write OUT, with a report beside it."""
    from decr_scene.pipeline.run import process_scene
    from decr_scene.pipeline.terminal.progress import stderr_progress

    with stderr_progress(last_part(scene), quiet) as progress:
        report = process_scene(scene, out, progress=progress, **options)
    summarise(report, quiet)
