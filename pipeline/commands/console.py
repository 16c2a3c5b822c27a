"""What the commands tell on the terminal: one line for an error, a summary, an answer as text or JSON.

What a command is asked for goes to stdout; warnings, errors and progress go to stderr.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.text import plain

if TYPE_CHECKING:
    from decr_scene.pipeline.batch.ledger import BatchReport
    from decr_scene.pipeline.outputs.report import Report


EXTRAS = {
    **dict.fromkeys(("PIL", "skimage", "tensorboard", "torchmetrics"), "train"),
    **{"torchvision": "lpips", "pystac": "stac", "pyogrio": "vector"},
}
"""What the plain installation lacks, and the extra that brings it."""


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a user can cause into one line: exit code 2 for a wrong call, 1 for a failed job."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        try:
            return command(*args, **kwargs)
        except DecrSceneError as error:
            if debugging():
                raise
            tell_error(f"{' '.join(str(error).split())}{_what_is_kept(context)}")
            context.exit(2 if isinstance(error, (OptionError, LookupError)) else 1)
        except ModuleNotFoundError as error:
            if debugging() or error.name is None:
                raise
            module = error.name.partition(".")[0]
            extra = EXTRAS.get(module)
            what = f"pip install 'decr-scene[{extra}]'" if extra else f"install {module}"
            tell_error(f"this needs {module}, which is not installed: {what}")
            context.exit(1)
        except Exception as error:
            if debugging():
                raise
            told = f"{type(error).__name__}: {error}"
            tell_error(f"unexpected {' '.join(told.split())}; --debug shows where")
            context.exit(1)
        except KeyboardInterrupt:
            tell_error(f"interrupted{_what_is_kept(context) or '; nothing was written'}")
            context.exit(130)

    return wrapped


def debugging() -> bool:
    """Whether the command was called with ``--debug``."""
    return bool(click.get_current_context().find_root().params.get("debug"))


def say(text: str, err: bool = False) -> None:
    """A text on stdout or stderr; nothing in it, whoever wrote it, steers the terminal."""
    click.echo(plain(text), err=err)


def tell_error(text: str) -> None:
    """One line on stderr, under the program's name."""
    say(f"decr-scene: {text}", err=True)


def tell_json(found: Any) -> None:
    """An answer for programs."""
    say(json.dumps(_in_json(found), indent=2))


def tell_table(found: dict[str, Any]) -> None:
    """An answer for people: a line for each name, its value behind it."""
    for name, value in found.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        say(f"{name:>12}  {text}")


def summarise(report: Report) -> None:
    """What was done to a scene; a check that failed ends the program."""
    tiles, seconds = report.tiles, report.seconds
    megabytes = report.output["bytes"] / 1e6
    say(
        f"{report.output['path']}: {tiles['restored']} of {tiles['total']} tiles restored with "
        f"{Path(report.model['name']).stem} in {seconds['processing']:.1f} s, {megabytes:.1f} MB"
    )
    for warning in report.warnings:
        say(f"warning: {warning}", err=True)
    failed = [name for name, good in report.checks.items() if not good]
    if failed:
        say(f"check failed: {', '.join(failed)}", err=True)
        sys.exit(1)


def summarise_batch(report: BatchReport, folder: Path, out: Path, quiet: bool) -> None:
    """What became of a folder; a scene that failed ends the program."""
    failed = report.having("failed")
    if not quiet:
        counts = f"{len(report.having('done'))} done, {len(report.having('skipped'))} skipped"
        say(f"{out}: {counts}, {len(failed)} failed; {out / 'batch.json'} says more")
        for entry in report.having("skipped"):
            if entry.error:
                say(f"skipped {_under(entry.input, folder)}: {entry.error}", err=True)
    for entry in failed:
        tell_error(f"failed {_under(entry.input, folder)}: {entry.error}")
    if failed:
        sys.exit(1)


def show_debug_log() -> None:
    """Tracebacks of what fails without stopping the rest."""
    log = logging.getLogger("decr_scene")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler())


def _in_json(found: Any) -> Any:
    """NaN and infinities as words: JSON has no such numbers."""
    if isinstance(found, dict):
        return {name: _in_json(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_in_json(value) for value in found]
    return str(found) if isinstance(found, float) and not math.isfinite(found) else found


def _what_is_kept(context: click.Context) -> str:
    """A word on what a failed run has left to go on from, if it has."""
    out = context.params.get("out")
    if not isinstance(out, Path):
        return ""
    from decr_scene.pipeline.files import journal_path

    try:
        kept = journal_path(out).exists()
    except (OSError, ValueError):  # no file can have such a name
        return ""
    return "; finished blocks are kept, the same command goes on" if kept else ""


def _under(path: str, folder: Path) -> Path:
    return folder / os.path.relpath(path, os.path.abspath(folder))
