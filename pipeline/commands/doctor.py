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

    missing = missing_extras()
    examination = {**examine(trial=not no_trial), "missing extras": missing}
    if as_json:
        print_json(examination)
    else:
        calls = {
            extra: f"{modules} (pip install 'decr-scene[{extra}]')" for extra, modules in missing.items()
        }
        lists = {name: ", ".join(value) for name, value in examination.items() if isinstance(value, list)}
        print_table({**examination, **lists, "missing extras": calls or "none"})
    trial = examination["trial"]
    if trial is not None and not trial["ok"]:
        print_line(f"check failed: {trial['reason']}", err=True)
        click.get_current_context().exit(1)
