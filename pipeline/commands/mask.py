"""`decr-scene mask`: where the clouds of a scene are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.terminal.console import emit_end, one_line_errors, print_line
from decr_scene.pipeline.terminal.options import (
    FILE,
    NAME,
    detection_options,
    example,
    overwrite_option,
    progress_options,
)


@click.command(epilog=example("decr-scene mask scene.tif --out mask.tif"))
@click.argument("scene", type=NAME)
@click.option("--out", type=FILE, required=True, help="The mask, a cloud-optimised GeoTIFF.")
@detection_options
@overwrite_option("a file that exists")
@progress_options
@one_line_errors
def mask(scene: str, out: Path, quiet: bool, **options: Any) -> None:
    """Write where cloud and shadow of SCENE are, as `process --mask` takes it.

    OUT is 1 where they are, 0 elsewhere, and nodata outside the scene. Where process is given a mask, it
    takes it as it is: what it does by itself besides (veils beyond the mask, a curve for dark ground, smooth
    ground inside of large clouds, a look at what is left) is left out, so the result is another one than
    without.
    """
    from decr_scene.pipeline.inspection.cloud_mask import write_cloud_mask
    from decr_scene.pipeline.terminal.progress import stderr_progress

    with stderr_progress(last_part(scene), quiet) as progress:
        coverage = write_cloud_mask(scene, out, progress=progress, **options)
    if not quiet:
        print_line(
            f"{out}: {100 * coverage.restore:.0f} % cloud or shadow (probability of cloud "
            f"{100 * coverage.cloud:.0f} % in the mean)"
        )
    emit_end({"output": str(out)})
