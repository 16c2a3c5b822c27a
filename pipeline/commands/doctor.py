"""`decr-scene doctor`: whether the installation works."""

from __future__ import annotations

import click

from decr_scene.pipeline.terminal.console import (
    missing_extras,
    one_line_errors,
    print_json,
    print_line,
    print_table,
)
from decr_scene.pipeline.terminal.options import example


@click.command(epilog=example("decr-scene doctor"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-trial", is_flag=True, help="Do not clean the small made scene.")
@one_line_errors
def doctor(as_json: bool, no_trial: bool) -> None:
    """Say what is installed, which devices there are and what is missing, and clean a small made scene.

    Exit code 1: the scene could not be cleaned.
    """
    from decr_scene.pipeline.inspection.health import examine

    lacking = missing_extras()
    found = {**examine(trial=not no_trial), "missing extras": lacking}
    if as_json:
        print_json(found)
    else:
        calls = {
            extra: f"{modules} (pip install 'decr-scene[{extra}]')" for extra, modules in lacking.items()
        }
        lists = {name: ", ".join(value) for name, value in found.items() if isinstance(value, list)}
        print_table({**found, **lists, "missing extras": calls or "none"})
    trial = found["trial"]
    if trial is not None and not trial["ok"]:
        print_line(f"check failed: {trial['reason']}", err=True)
        click.get_current_context().exit(1)
