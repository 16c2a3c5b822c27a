"""Write to the terminal: one line for an error, a summary, an answer as text or JSON.

The answer of a command goes to stdout; warnings, errors and progress go to stderr.
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
    DamagedCopyError,
    DiskSpaceError,
    LockedError,
    OptionError,
    OutputError,
    OutputExistsError,
    SceneNotFoundError,
    SceneReadError,
    in_one_line,
)
from decr_scene.pipeline.inputs.addresses import without_secrets
from decr_scene.pipeline.inputs.text import plain, plain_line
from decr_scene.pipeline.system.signals import INTERRUPTED, say_last_words, set_last_words, was_interrupted
from decr_scene.pipeline.terminal import events
from decr_scene.pipeline.terminal.log import logging_to

if TYPE_CHECKING:
    from decr_scene.pipeline.batch.ledger import BatchReport
    from decr_scene.pipeline.outputs.report import Report


_log = logging.getLogger("decr_scene")

EXTRAS = {
    **dict.fromkeys(("PIL", "skimage", "tensorboard", "torchmetrics"), "train"),
    **{"torchvision": "lpips", "pystac": "stac", "bokeh": "dashboard"},
}
"""Modules that a plain installation does not have, and the extra that installs them."""


def missing_extras() -> dict[str, str]:
    """List the extras that are not installed, and their missing modules."""
    missing: dict[str, list[str]] = {}
    for module, extra in EXTRAS.items():
        if find_spec(module) is None:
            missing.setdefault(extra, []).append(module)
    return {extra: ", ".join(modules) for extra, modules in missing.items()}


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors into one line: exit code 2 for a wrong call, 1 for a failed job.

    The options ``events_as`` and ``log`` are handled here; the command does not get them.
    """

    @wraps(command)
    def wrapped(*args: Any, events_as: str = "auto", log: Path | None = None, **kwargs: Any) -> Any:
        context = click.get_current_context()
        set_last_words(lambda: print_error(f"interrupted{after_interruption(context)}"))
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
                text, code = _describe_error(context, error)
                print_error(text)
                context.exit(code)

    return wrapped


def _describe_error(context: click.Context, error: Exception) -> tuple[str, int]:
    """Return one line on an error, and the exit code."""
    if isinstance(error, DecrSceneError):
        code = 2 if isinstance(error, (OptionError, LookupError)) else 1
        return f"{' '.join(str(error).split())}{_after_error(context, error)}", code
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        module = error.name.partition(".")[0]
        extra = EXTRAS.get(module)
        advice = f"pip install 'decr-scene[{extra}]'" if extra else f"install {module}"
        return f"this needs {module}, which is not installed: {advice}", 1
    return f"{in_one_line(error)}; --debug shows where", 1


def _end_interrupted(context: click.Context) -> None:
    say_last_words()
    context.exit(INTERRUPTED)


def debugging() -> bool:
    """Return whether the command was called with ``--debug``."""
    return bool(click.get_current_context().find_root().params.get("debug"))


def print_line(text: str, err: bool = False) -> None:
    """Print a text on stdout or stderr, without control characters.

    What the stream's encoding lacks, as that of a pipe on Windows may, is escaped. Its reader may end first,
    as ``head -1`` does: the rest goes to the null device.
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        click.echo(plain(text).encode(encoding, "backslashreplace").decode(encoding), err=err)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_error(text: str) -> None:
    """Print one line on stderr, or emit an event, and log it."""
    _print_or_emit("error", "decr-scene", text)


def emit_end(outputs: dict[str, str], **more: Any) -> None:
    """Emit the last event, with the paths of all outputs."""
    if events.are_on():
        events.emit("end", outputs=outputs, **more)


def warn(text: str) -> None:
    """Print a warning on stderr, or emit an event, and log it."""
    _print_or_emit("warning", "warning", text)


def _print_or_emit(event: str, label: str, text: str) -> None:
    text = without_secrets(text)
    _log.info("%s: %s", event, text)
    if events.are_on():
        events.emit(event, text=plain(text))
    else:
        print_line(f"{label}: {plain_line(text)}", err=True)


def print_json(answer: Any) -> None:
    """Print an answer as JSON."""
    print_line(json.dumps(_json_value(answer), indent=2))


def print_table(rows: dict[str, Any]) -> None:
    """Print an answer as a table: a line for each name, its value behind it."""
    for name, value in rows.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        print_line(f"{name:>12}  {plain_line(text)}")


def summarise(report: Report, quiet: bool = False) -> None:
    """Print the summary of a scene, and exit with code 1 if its report has faults."""
    tiles, seconds, output = report.tiles, report.seconds, report.output
    from_before = f", {tiles['kept']} kept from before," if tiles["kept"] else ""
    summary = (
        f"{output['path']}: {tiles['restored']} of {tiles['total']} tiles restored{from_before} with "
        f"{Path(report.model['name']).stem} in {seconds['processing']:.1f} s, {output['bytes'] / 1e6:.1f} MB"
    )
    _log.info("%s", summary)
    if not quiet:
        print_line(plain_line(summary))
        if report.mask is not None:
            print_line(plain_line(f"mask {report.parameters['mask']}: {report.mask}"))
    for warning in report.warnings:
        warn(warning)
    if report.faults:
        print_error(f"{output['path']} is written, but {'; '.join(report.faults)}")
    emit_end({"output": output["path"], **report.beside}, seconds=round(sum(seconds.values()), 1))
    if report.faults:
        sys.exit(1)


def summarise_batch(report: BatchReport, folder: str, out: Path, quiet: bool) -> None:
    """Print the summary of a folder, and exit with code 1 if a scene failed."""
    failed = report.having("failed")
    if not quiet:
        counts = f"{len(report.having('done'))} done, {len(report.having('skipped'))} skipped"
        print_line(plain_line(f"{out}: {counts}, {len(failed)} failed; {out / 'batch.json'} says more"))
    for entry in report.having("skipped"):
        if entry.error:
            warn(f"skipped {_under(entry.input, folder)}: {entry.error}")
    for entry in report.scenes:
        for warning in entry.warnings:
            warn(f"{_under(entry.input, folder)}: {warning}")
    for entry in failed:
        print_error(f"failed {_under(entry.input, folder)}: {entry.error}")
    numbers = {"done": len(report.having("done")), "skipped": len(report.having("skipped"))}
    emit_end({"ledger": str(out / "batch.json")}, scenes={**numbers, "failed": len(failed)})
    if failed:
        sys.exit(1)


def show_debug_log() -> None:
    """Print tracebacks of failures that do not end the run."""
    log = logging.getLogger("decr_scene")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler())


def _json_value(item: Any) -> Any:
    """Replace NaN and infinities by words: JSON has no such numbers."""
    if isinstance(item, dict):
        return {name: _json_value(item) for name, item in item.items()}
    if isinstance(item, (list, tuple)):
        return [_json_value(item) for item in item]
    return str(item) if isinstance(item, float) and not math.isfinite(item) else item


_TEMPORARY = (ClusterError, OutputError, SceneReadError)
"""Errors after which the same command may succeed, once their cause is mended."""

_PERMANENT = (OutputExistsError, LockedError, SceneNotFoundError, DamagedCopyError)


def after_interruption(context: click.Context) -> str:
    """Return how to continue, for the commands that write a scene or a folder of them."""
    out = context.params.get("out")
    if context.command.name == "batch" and isinstance(out, Path):
        ledger = out / "batch.json"
        progress = f"{ledger} says what is done, " if ledger.exists() else ""
        return f"; {progress}the same command goes on"
    if context.command.name != "process":
        return ""
    if not _has_windows(context):
        return "; nothing is finished yet, the same command begins anew"
    if not context.params.get("resume"):
        return "; what is finished is kept, the same command without --no-resume goes on"
    return "; what is finished is kept, the same command goes on"


def _after_error(context: click.Context, error: Exception) -> str:
    """Return how to continue a failed run, where finished work is kept and the error may pass."""
    may_pass = isinstance(error, _TEMPORARY) and not isinstance(error, _PERMANENT)
    if isinstance(error, OutputError) and not isinstance(error, DiskSpaceError):
        may_pass &= error.__cause__ is not None  # the disk has failed; else the output cannot be there at all
    if context.command.name != "process" or not may_pass or not _has_windows(context):
        return ""
    without = "" if context.params.get("resume") else " without --no-resume"
    condition = "once there is room" if isinstance(error, DiskSpaceError) else "once that is mended"
    return f"; what is finished is kept, {condition} the same command{without} goes on"


def _has_windows(context: click.Context) -> bool:
    """Return whether there is a finished tile, or a finished window in the journal of the output."""
    from decr_scene.pipeline.files import journal_path, tiles_path

    out = context.params.get("out")
    try:
        if not isinstance(out, Path):
            return False
        return tiles_path(out).exists() or journal_path(out).read_bytes().count(b"\n") > 1
    except (OSError, ValueError):  # no file can have such a name
        return False


def _under(path: str, folder: str) -> str:
    if not os.path.isdir(folder):  # a list, or an address: each scene has a name of its own
        return path
    return str(Path(folder) / os.path.relpath(path, os.path.abspath(folder)))
