"""Define the options that commands share: their types, and groups of them.

Nothing here imports more than click, so that ``--help`` does not wait for the imports of a command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from decr_scene.pipeline.defaults import BLENDS, BLOCKSIZE, COMPRESSIONS, DETECTORS, MODEL, OVERLAP

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


class NameType(click.Path):
    """Type of a path, which an empty text is not, though Python takes it for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty name."""
        if os.fspath(value) in ("", b""):
            self.fail("it is empty, expected a name: is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


FILE = NameType(path_type=Path)
NAME = NameType(path_type=str)
"""Type of the name of a raster, which need not be a path: ``//`` in it stays."""


class SweepType(click.ParamType[tuple[str, tuple[float, ...]]]):
    """Type of ``name=v1,v2,...``."""

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
    """Type of ``low,high``."""

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
    """Return an epilog that shows one call."""
    return f"Example: {text}"


def in_order(*options: Decorator) -> Decorator:
    """Join options, or groups of them, in one decorator.

    ``--help`` shows them in this order.
    """

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def overwrite_option(replaced: str) -> Decorator:
    """Return ``--overwrite``, with the thing that is replaced for its help."""
    return click.option("--overwrite", is_flag=True, help=f"Replace {replaced}.")


def quiet_option(help_text: str = "No progress bar.") -> Decorator:
    """Return ``--quiet``, with its help."""
    return click.option("--quiet", is_flag=True, help=help_text)


class DeviceType(click.ParamType[str]):
    """Type of ``auto``, ``cpu``, ``cuda`` or ``cuda:NUMBER``."""

    name = "auto|cpu|cuda|cuda:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name of a device."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)):
            self.fail(
                f"{value!r} is no device, expected auto, cpu, cuda, or one GPU such as cuda:1", param, ctx
            )
        return str(value)


device_option = click.option(
    "--device",
    type=DeviceType(),
    default="auto",
    show_default=True,
    help="Where models compute; cuda:1 is one GPU of several.",
)


model_file_option = click.option("--out", type=FILE, required=True, help="The model file to write.")

run_config_option = click.option("--config", type=FILE, required=True, help="TOML of the run.")

sampling_options = in_order(
    click.option("--steps", type=int, help="Diffusion steps; the model's own default otherwise."),
    click.option(
        "--start", type=int, help="Step to start at from the noised first guess; 1000: noise alone."
    ),
    click.option("--weight-floor", type=float, help="Least weight of the first guess (the paper's eta)."),
    click.option(
        "--gain",
        type=float,
        help="Factor of the detail that sampling adds; of rice2, with --steps 5, 2.4 is most like ground.",
    ),
)
"""Options of the sampling."""

model_option = click.option(
    "--model", default=MODEL, show_default=True, help="Bundled name, file, fill, identity."
)


def _several_or_none(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Give nothing where an option was not given, as Python's default has it."""
    return values or None


bands_option = click.option("--bands", help="What the bands are, such as blue,green,red,nir.")

scale_option = click.option(
    "--scale", type=RangeType(), help="DN that become -1 and 1, instead of fitted limits."
)

detector_option = click.option(
    "--detector",
    type=click.Choice(DETECTORS),
    default="auto",
    show_default=True,
    help="Who looks for cloud: the model's own detector, or ukis-csmask on blue, green, red and nir "
    "(rgb, fill: not nir); auto: the model's own, for fill that of default or rgb; at 5 m and coarser, "
    "or where it has none, ukis. With auto, default also removes even veils that it changes much; "
    "at 7 m and coarser, where it darkens.",
)

pan_option = click.option(
    "--pan",
    metavar="FILE",
    help="The panchromatic raster to sharpen the scene with; none: not even that of its folder.",
)

asset_option = click.option(
    "--asset", metavar="NAME", help="Of a STAC Item as SCENE: the asset to take, where several may be meant."
)

detection_options = in_order(
    model_option, detector_option, device_option, bands_option, scale_option, pan_option, asset_option
)
"""Options of cloud detection on a scene."""

progress_options = in_order(
    click.option(
        "--progress",
        "events_as",
        type=click.Choice(["auto", "jsonl"]),
        default="auto",
        show_default=True,
        help="jsonl: events for a program, one JSON object a line, on standard error.",
    ),
    click.option("--log", type=FILE, help="Append a line a stage, with the time, to this file."),
    quiet_option("No progress bar and no summary; warnings and errors alone."),
)
"""Options of progress and log."""

restoring_options = in_order(
    model_option,
    sampling_options,
    click.option("--seed", type=int, default=0, show_default=True, help="Of the noise."),
    click.option(
        "--samples",
        type=int,
        default=1,
        show_default=True,
        help="Results of each tile: from 2 on, how far they differ is written beside the output.",
    ),
    click.option(
        "--uncertainty", is_flag=True, help="Write the error to be expected of each pixel beside the output."
    ),
    click.option("--overlap", type=int, default=OVERLAP, show_default=True, help="Overlap of tiles, px."),
    click.option("--halo", type=int, help="How far beyond its tile the first guess sees, px."),
    click.option(
        "--blend",
        type=click.Choice(BLENDS),
        default="feather",
        show_default=True,
        help="joint: neighbouring tiles are blended at every diffusion step, too.",
    ),
    click.option(
        "--batch-size", type=int, help="Tiles in a batch; by default 8, fewer in small scenes on a CPU."
    ),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Of the numbers that models compute in; auto: bf16 where a GPU or a CPU is faster in it.",
    ),
    bands_option,
    scale_option,
    click.option(
        "--mask",
        default="auto",
        show_default=True,
        help="A raster that says where cloud is: 0 clear and else cloud, probabilities from 0.5 on, or SCL, "
        "QA_PIXEL, UDM2 and others; none: whatever the model changes; auto: where the detector sees cloud or "
        "shadow, or without one where the model changes more than a little.",
    ),
    click.option(
        "--mask-values",
        metavar="VALUES",
        help="Which values of the mask are cloud, such as 3,8-10, or bit3,bit4, or 6:1 of band 6.",
    ),
    detector_option,
    click.option(
        "--other-date",
        "--reference",
        metavar="FILE",
        multiple=True,
        callback=_several_or_none,
        help="A raster of the same ground at another date: the first guess where there is cloud, and none of "
        "its own. May be given several times. --reference is its old name.",
    ),
    click.option(
        "--aoi", metavar="FILE", help="A vector file with polygons: only inside does anything change."
    ),
    pan_option,
    asset_option,
)
"""Options that decide the pixels: of every command that restores or plans to."""

writing_options = in_order(
    click.option(
        "--workers", type=click.IntRange(1), default=1, show_default=True, help="Model workers here."
    ),
    click.option("--scheduler", help="Address of a running Dask cluster, such as tcp://host:8786."),
    click.option(
        "--memory-limit",
        metavar="SIZE",
        help="Of this process besides the model, and of each of several --workers, such as 4GB.",
    ),
    click.option(
        "--dashboard",
        is_flag=True,
        help="Serve Dask's dashboard during the run; its address is in the --log. Needs the extra dashboard.",
    ),
    click.option(
        "--compress",
        type=click.Choice(COMPRESSIONS),
        default="auto",
        show_default=True,
        help="auto: as the scene.",
    ),
    click.option(
        "--blocksize", type=int, default=BLOCKSIZE, show_default=True, help="Side of output blocks, px."
    ),
    click.option("--quicklook", is_flag=True, help="Write a picture before/after beside the output."),
    click.option("--stac", is_flag=True, help="Write a STAC Item beside the output."),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on where an interrupted run stopped.",
    ),
    overwrite_option("an output that exists"),
    progress_options,
)
"""Options of workers and outputs: of the commands that write scenes."""
