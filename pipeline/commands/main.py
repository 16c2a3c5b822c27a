"""`decr-scene` itself; everything heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from typing import Any

import click

from decr_scene.pipeline.commands.batch import batch
from decr_scene.pipeline.commands.doctor import doctor
from decr_scene.pipeline.commands.evaluate import evaluate
from decr_scene.pipeline.commands.inspect import inspect
from decr_scene.pipeline.commands.mask import mask
from decr_scene.pipeline.commands.models import models
from decr_scene.pipeline.commands.process import process
from decr_scene.pipeline.commands.qgis import qgis
from decr_scene.pipeline.commands.simulate import simulate
from decr_scene.pipeline.commands.train import train
from decr_scene.pipeline.system.ignored_warnings import ignore_warnings, silence_libraries
from decr_scene.pipeline.system.signals import ended_by_signals


class Program(click.Group):
    """The commands; called as a program, and not by another one, it ends by signals."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the program of this process."""
        if "--debug" not in sys.argv:
            silence_libraries()
        with ended_by_signals():
            return self.main(*args, **kwargs)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="decr-scene")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Remove clouds from whole georeferenced satellite scenes."""
    ignore_warnings()


for command in (process, batch, inspect, mask, train, simulate, evaluate, models, doctor, qgis):
    main.add_command(command)
