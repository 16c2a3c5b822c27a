"""Progress bars with the time left: of a scene, and of a batch with its present scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Told = Callable[[int, int], None]
"""``(done, in all)``."""


@contextmanager
def tile_progress(name: str, quiet: bool) -> Iterator[Told]:
    """Give a callback ``(tiles done, tiles in all)`` that moves a bar on standard error."""
    with _bars(quiet) as bars:
        task = bars.add_task(name, total=None, unit="tiles", visible=False)  # a wrong call shows no bar
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)


@contextmanager
def batch_progress(name: str, quiet: bool) -> Iterator[tuple[Told, Callable[[str], Told]]]:
    """Give two callbacks for two bars on standard error.

    Yields:
        ``(scenes done, scenes in all)`` moves the bar of the batch; the name of a scene that begins clears
        the other bar and gives what moves it, ``(tiles done, tiles in all)``.
    """
    with _bars(quiet) as bars:
        whole = bars.add_task(name, total=None, unit="scenes")
        part = bars.add_task("", total=None, unit="tiles", visible=False)

        def begin(scene: str) -> Told:
            bars.reset(part, description=scene, total=1, visible=True)
            return lambda done, total: bars.update(part, completed=done, total=total)

        yield lambda done, total: bars.update(whole, completed=done, total=total), begin


def _bars(quiet: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=quiet)
