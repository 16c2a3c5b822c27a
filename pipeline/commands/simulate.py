"""`decr-scene simulate`: clouds over clear scenes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.terminal.console import one_line_errors, print_line
from decr_scene.pipeline.terminal.options import FILE, RangeType, example, overwrite_option


@click.command(epilog=example("decr-scene simulate clear.tif --out pairs/ --coverage 0.3,0.6"))
@click.argument("scenes", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="Folder that gets cloudy/, clear/ and mask/.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the clouds.")
@click.option(
    "--coverage",
    type=RangeType(),
    help="Range of the share under a layer of cloud; a second one and haze may cover more.",
)
@click.option("--thickness", type=RangeType(), help="Range of the greatest optical thickness.")
@click.option("--scale", type=RangeType(), help="Range of the largest structures, px.  [default: 20,400]")
@click.option("--finest", type=RangeType(), help="Range of the finest structures, px.  [default: 0.5,6]")
@click.option("--bands", help="What the bands are, such as red,green,blue,nir.")
@overwrite_option("files that exist")
@one_line_errors
def simulate(scenes: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Draw clouds over clear SCENES: pairs with a mask, for training and measuring."""
    from decr_scene.pipeline.files import check_no_input
    from decr_scene.pipeline.training.simulation import simulate_scene

    if twice := [stem for stem, count in Counter(scene.stem for scene in scenes).items() if count > 1]:
        raise OptionError(f"{twice[0]} is the name of several scenes, of pairs in one folder: rename one")
    names = [out / kind / f"{scene.stem}.tif" for scene in scenes for kind in ("cloudy", "clear", "mask")]
    check_no_input(names, [("a scene itself", scene) for scene in scenes])
    for scene in scenes:
        drawn = simulate_scene(scene, out, **options)
        print_line(f"{drawn.cloudy}: {100 * drawn.cover:.0f} % cloud")
