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
from contextlib import ExitStack
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import (
    ClusterError,
    DiskSpaceError,
    LockedError,
    OptionError,
    OutputError,
    OutputExistsError,
    SceneNotFoundError,
    SceneReadError,
    in_one_line,
)
from decr_scene.pipeline.inputs.text import plain
from decr_scene.pipeline.system.signals import INTERRUPTED, at_the_end_say, say_last_words, was_interrupted
from decr_scene.pipeline.terminal import events
from decr_scene.pipeline.terminal.log import logging_to

if TYPE_CHECKING:
    from decr_scene.pipeline.batch.ledger import BatchReport
    from decr_scene.pipeline.outputs.report import Report


_log = logging.getLogger("decr_scene")

EXTRAS = {
    **dict.fromkeys(("PIL", "skimage", "tensorboard", "torchmetrics"), "train"),
    **{"torchvision": "lpips", "pystac": "stac", "pyogrio": "vector"},
}
"""What the plain installation lacks, and the extra that brings it."""


def missing_extras() -> dict[str, str]:
    """Extras that are not installed, and the modules they lack."""
    lacking: dict[str, list[str]] = {}
    for module, extra in EXTRAS.items():
        if find_spec(module) is None:
            lacking.setdefault(extra, []).append(module)
    return {extra: ", ".join(modules) for extra, modules in lacking.items()}


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a user can cause into one line: exit code 2 for a wrong call, 1 for a failed job.

    Of the options of the command, ``events_as`` and ``log`` are answered here, and it does not get them.
    """

    @wraps(command)
    def wrapped(*args: Any, events_as: str = "auto", log: Path | None = None, **kwargs: Any) -> Any:
        context = click.get_current_context()
        at_the_end_say(lambda: tell_error(f"interrupted{after_interruption(context)}"))
        with ExitStack() as stack:
            stack.enter_context(events.to_stderr(events_as == "jsonl", context.command.name))
            try:
                stack.enter_context(logging_to(log, kwargs))
                return command(*args, **kwargs)
            except KeyboardInterrupt:
                _end_interrupted(context)
            except Exception as error:
                if was_interrupted():
                    _end_interrupted(context)
                if debugging():
                    raise
                text, code = _told(context, error)
                tell_error(text)
                context.exit(code)

    return wrapped


def _told(context: click.Context, error: Exception) -> tuple[str, int]:
    """One line on an error, and the exit code."""
    if isinstance(error, DecrSceneError):
        code = 2 if isinstance(error, (OptionError, LookupError)) else 1
        return f"{' '.join(str(error).split())}{_after_error(context, error)}", code
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        module = error.name.partition(".")[0]
        extra = EXTRAS.get(module)
        what = f"pip install 'decr-scene[{extra}]'" if extra else f"install {module}"
        return f"this needs {module}, which is not installed: {what}", 1
    return f"{in_one_line(error)}; --debug shows where", 1


def _end_interrupted(context: click.Context) -> None:
    say_last_words()
    context.exit(INTERRUPTED)


def debugging() -> bool:
    """Whether the command was called with ``--debug``."""
    return bool(click.get_current_context().find_root().params.get("debug"))


def say(text: str, err: bool = False) -> None:
    """A text on stdout or stderr; nothing in it, whoever wrote it, steers the terminal.

    Who reads it may go before its end, as ``head -1`` does: the rest is for nobody.
    """
    try:
        click.echo(plain(text), err=err)
    except BrokenPipeError:
        stream = sys.stderr if err else sys.stdout
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def tell_error(text: str) -> None:
    """One line on stderr, under the program's name, or an event; and in the log."""
    _log.info("error: %s", text)
    if events.are_wanted():
        events.emit("error", text=plain(text))
    else:
        say(f"decr-scene: {text}", err=True)


def tell_end(outputs: dict[str, str], **more: Any) -> None:
    """The last event: where everything is."""
    if events.are_wanted():
        events.emit("end", outputs=outputs, **more)


def warn(text: str) -> None:
    """A warning on stderr, as a line or an event, and in the log."""
    _log.info("warning: %s", text)
    if events.are_wanted():
        events.emit("warning", text=plain(text))
    else:
        say(f"warning: {text}", err=True)


def tell_json(found: Any) -> None:
    """An answer for programs."""
    say(json.dumps(_in_json(found), indent=2))


def tell_table(found: dict[str, Any]) -> None:
    """An answer for people: a line for each name, its value behind it."""
    for name, value in found.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        say(f"{name:>12}  {text}")


def summarise(report: Report, quiet: bool = False) -> None:
    """Say what was done to a scene; what went wrong though the output is there ends the program."""
    tiles, seconds, output = report.tiles, report.seconds, report.output
    kept = f", {tiles['kept']} kept from before," if tiles["kept"] else ""
    summary = (
        f"{output['path']}: {tiles['restored']} of {tiles['total']} tiles restored{kept} with "
        f"{Path(report.model['name']).stem} in {seconds['processing']:.1f} s, {output['bytes'] / 1e6:.1f} MB"
    )
    _log.info("%s", summary)
    if not quiet:
        say(summary)
        if report.mask is not None:
            say(f"mask {report.parameters['mask']}: {report.mask}")
        for warning in report.warnings:
            warn(warning)
    if report.faults:
        tell_error(f"{output['path']} is written, but {'; '.join(report.faults)}")
    tell_end({"output": output["path"], **report.beside}, seconds=round(sum(seconds.values()), 1))
    if report.faults:
        sys.exit(1)


def summarise_batch(report: BatchReport, folder: Path, out: Path, quiet: bool) -> None:
    """What became of a folder; a scene that failed ends the program."""
    failed = report.having("failed")
    if not quiet:
        counts = f"{len(report.having('done'))} done, {len(report.having('skipped'))} skipped"
        say(f"{out}: {counts}, {len(failed)} failed; {out / 'batch.json'} says more")
        for entry in report.having("skipped"):
            if entry.error:
                warn(f"skipped {_under(entry.input, folder)}: {entry.error}")
        for entry in report.scenes:
            for warning in entry.warnings:
                warn(f"{_under(entry.input, folder)}: {warning}")
    for entry in failed:
        tell_error(f"failed {_under(entry.input, folder)}: {entry.error}")
    numbers = {"done": len(report.having("done")), "skipped": len(report.having("skipped"))}
    tell_end({"ledger": str(out / "batch.json")}, scenes={**numbers, "failed": len(failed)})
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


_PASSING = (ClusterError, OutputError, SceneReadError)
"""Errors that the same command may outlive, once their cause is mended."""

_LASTING = (OutputExistsError, LockedError, SceneNotFoundError)


def after_interruption(context: click.Context) -> str:
    """How to go on, for the commands that write a scene or a folder of them."""
    out = context.params.get("out")
    if context.command.name == "batch" and isinstance(out, Path):
        ledger = out / "batch.json"
        told = f"{ledger} says what is done, " if ledger.exists() else ""
        return f"; {told}the same command goes on"
    if context.command.name != "process":
        return ""
    if not _has_windows(context):
        return "; nothing is finished yet, the same command begins anew"
    if not context.params.get("resume"):
        return "; what is finished is kept, the same command without --no-resume goes on"
    return "; what is finished is kept, the same command goes on"


def _after_error(context: click.Context, error: Exception) -> str:
    """A word on what a failed run has left to go on from, if it has, and if going on is of any use."""
    passes = isinstance(error, _PASSING) and not isinstance(error, _LASTING)
    if isinstance(error, OutputError) and not isinstance(error, DiskSpaceError):
        passes &= error.__cause__ is not None  # the disk has failed; else the output cannot be there at all
    if context.command.name != "process" or not passes or not _has_windows(context):
        return ""
    anew = "" if context.params.get("resume") else " without --no-resume"
    mended = "once there is room" if isinstance(error, DiskSpaceError) else "once that is mended"
    return f"; what is finished is kept, {mended} the same command{anew} goes on"


def _has_windows(context: click.Context) -> bool:
    """Whether there is a finished tile, or a finished window in the journal of the output."""
    from decr_scene.pipeline.files import journal_path, tiles_path

    out = context.params.get("out")
    try:
        if not isinstance(out, Path):
            return False
        return tiles_path(out).exists() or journal_path(out).read_bytes().count(b"\n") > 1
    except (OSError, ValueError):  # no file can have such a name
        return False


def _under(path: str, folder: Path) -> Path:
    return folder / os.path.relpath(path, os.path.abspath(folder))
