"""Show progress: bars on a terminal, lines in a log, events for a program, all on standard error.

Bars have the time left. In a log, as of a nightly run, there is a line a tenth of the work, one for a long
stage before the tiles, and one when they are done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rich.progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from decr_scene.pipeline.inputs.text import plain_line
from decr_scene.pipeline.system.progress import Progress
from decr_scene.pipeline.terminal.duration import duration, time_left
from decr_scene.pipeline.terminal.events import Events, are_on

PATIENCE = 5.0
"""Time after which a log has a line on a stage before the tiles, s."""


class Bars(Progress):
    """Move the bar of a scene's tiles on a terminal, with the present stage beneath it.

    Args:
        bars: Rich's progress display.
        name: Of the scene, or of the folder, which has its own bar above that of its present scene.
        of_folder: Whether the name is a folder's.
    """

    def __init__(self, bars: rich.progress.Progress, name: str, of_folder: bool = False) -> None:
        self._bars = bars
        self._whole = bars.add_task(plain_line(name), total=None, unit="scenes") if of_folder else None
        # A call that is refused at once shows no bar.
        scene = "" if of_folder else plain_line(name)
        self._scene = bars.add_task(scene, total=None, unit="tiles", visible=False)
        self._rest = bars.add_task("", total=None, unit="", visible=False, start=False)
        self._fresh = True

    def scenes(self, done: int, total: int, name: str) -> None:
        """Move the bar of the folder, and reset the other one for the scene that begins."""
        if self._whole is not None:
            self._bars.update(self._whole, completed=done, total=total)
        if name:
            self._fresh = True
            self._bars.update(self._rest, visible=False)
            self._bars.reset(self._scene, description=plain_line(name), total=1, visible=True)

    def stage(self, text: str) -> None:
        """Show a stage, whose duration is unknown."""
        self._bars.reset(self._rest, description=plain_line(text), visible=True)

    def tiles(self, done: int, total: int) -> None:
        """Move the bar of the scene.

        Tiles of an interrupted run took none of the time that is measured.
        """
        self._bars.update(self._rest, visible=False)
        if self._fresh and done:
            self._bars.reset(self._scene, completed=done, total=total)
        self._fresh = False
        self._bars.update(self._scene, completed=done, total=total, visible=True)


class Lines(Progress):
    """Write the progress of a scene to a log.

    Args:
        console: The log.
        name: Of the scene.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._late: threading.Timer | None = None
        self._tiles: tuple[int, int] | None = None
        self._from_before = 0
        self._name, self._began, self._stage_written = plain_line(name), time.monotonic(), False

    def scenes(self, done: int, total: int, name: str) -> None:
        """Take the name of the scene that begins."""
        self.close()
        self._tiles = None
        self._name, self._began, self._stage_written = plain_line(name), time.monotonic(), False

    def stage(self, text: str) -> None:
        """Write a stage: after the tiles once, before them if it takes long."""
        self.close()
        self._began = time.monotonic()
        if self._tiles is None:
            self._late = threading.Timer(PATIENCE, self._say, [plain_line(text)])
            self._late.daemon = True
            self._late.start()
        elif not self._stage_written:
            done, total = self._tiles
            self._say(f"{done} of {total} tiles, {plain_line(text)}")
            self._stage_written = True

    def tiles(self, done: int, total: int) -> None:
        """Write a line every tenth of the tiles."""
        if self._tiles is None:
            self._from_before = done
        before, self._tiles = (self._tiles or (done, total))[0], (done, total)
        if done:
            self.close()
        seconds_left = time_left(time.monotonic() - self._began, done - self._from_before, total - done)
        if seconds_left and 10 * done // total > 10 * before // total:
            self._say(f"{done} of {total} tiles, {duration(seconds_left)} left")

    def close(self) -> None:
        """Cancel the line that is due."""
        if self._late is not None:
            self._late.cancel()

    def _say(self, text: str) -> None:
        with suppress(OSError):  # of a reader that is gone
            self._console.print(f"{self._name}: {text}", soft_wrap=True)


@contextmanager
def stderr_progress(name: str, quiet: bool, of_folder: bool = False) -> Iterator[Progress]:
    """Choose how to show progress on standard error.

    Args:
        name: Of the scene, or of the folder.
        quiet: Show nothing.
        of_folder: Whether the run is one of a folder.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    if are_on():
        yield Events()
    elif quiet:
        yield Progress()
    elif console.is_terminal:
        with _bars(console) as bars:
            yield Bars(bars, name, of_folder)
    else:
        lines = Lines(console, name)
        try:
            yield lines
        finally:
            lines.close()


class _Count(MofNCompleteColumn):
    """Show nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _TimeLeft(TimeRemainingColumn):
    """Show nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else Text("left ") + super().render(task)


def _bars(console: Console) -> rich.progress.Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        _TimeLeft(),
    )
    return rich.progress.Progress(*columns, console=console)
