"""How far a run has come: bars on a terminal, lines in a log, events for a program, all on standard error.

Bars have the time left. In a log, as of a nightly run, there is a line a tenth of the work, one for what
takes long before the tiles begin, and one when they are done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from decr_scene.pipeline.inputs.text import plain
from decr_scene.pipeline.terminal.duration import duration
from decr_scene.pipeline.terminal.events import SceneEvents, TileEvents, are_wanted

Told = Callable[[int, int], None]
"""``(done, in all)``."""

PATIENCE = 5.0
"""Seconds after which a log says what a run is at before its tiles."""


class SceneProgress(Protocol):
    """What is told how far a scene has come."""

    def __call__(self, done: int, total: int) -> None:
        """Tiles done, of all."""

    def stage(self, text: str) -> None:
        """What begins besides the tiles."""


class SceneBar:
    """What moves the bar of a scene's tiles on a terminal, and beneath it says what else takes its time.

    Args:
        bars: Where they are.
        name: Of the scene.
    """

    def __init__(self, bars: Progress, name: str = "") -> None:
        self._bars = bars
        # A call that is refused at once shows no bar.
        self._bar = bars.add_task(plain(name), total=None, unit="tiles", visible=False)
        self._rest = bars.add_task("", total=None, unit="", visible=False, start=False)

    def __call__(self, done: int, total: int) -> None:
        """Tell the number of tiles done, of all."""
        self._bars.update(self._rest, visible=False)
        self._bars.update(self._bar, completed=done, total=total, visible=True)

    def begin(self, name: str) -> SceneBar:
        """Take the bar for the next scene."""
        self._bars.update(self._rest, visible=False)
        self._bars.reset(self._bar, description=plain(name), total=1, visible=True)
        return self

    def stage(self, text: str) -> None:
        """Tell what begins, of which nobody knows how long it takes."""
        self._bars.reset(self._rest, description=plain(text), visible=True)


class SceneLines:
    """What says in a log how far a scene has come.

    Args:
        console: The log.
        name: Of the scene.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, plain(name)
        self._tiles, self._began, self._said = (0, 0), time.monotonic(), False
        self._late: threading.Timer | None = None

    def __call__(self, done: int, total: int) -> None:
        """Tell the number of tiles done, of all."""
        self.close()
        before, self._tiles = self._tiles[0], (done, total)
        if done < total and 10 * done // total > 10 * before // total:
            left = (time.monotonic() - self._began) / done * (total - done)
            self._say(f"{done} of {total} tiles, {duration(left)} left")

    def stage(self, text: str) -> None:
        """Tell what begins: after the tiles once, before them if it takes long."""
        self.close()
        self._began = time.monotonic()
        done, total = self._tiles
        if not total:
            self._late = threading.Timer(PATIENCE, self._say, [plain(text)])
            self._late.daemon = True
            self._late.start()
        elif not self._said:
            self._say(f"{done} of {total} tiles, {plain(text)}")
            self._said = True

    def close(self) -> None:
        """Say nothing late."""
        if self._late is not None:
            self._late.cancel()

    def _say(self, text: str) -> None:
        with suppress(OSError):  # of a reader that is gone
            self._console.print(f"{self._name}: {text}", soft_wrap=True)


class _Silent:
    def __call__(self, done: int, total: int) -> None:
        pass

    def stage(self, text: str) -> None:
        pass


@contextmanager
def tile_progress(name: str, quiet: bool) -> Iterator[SceneProgress]:
    """Give what is told how far a scene has come."""
    console = Console(stderr=True, highlight=False, markup=False)
    if are_wanted():
        yield TileEvents()
    elif quiet:
        yield _Silent()
    elif console.is_terminal:
        with _bars(console) as bars:
            yield SceneBar(bars, name)
    else:
        lines = SceneLines(console, name)
        try:
            yield lines
        finally:
            lines.close()


@contextmanager
def batch_progress(name: str, quiet: bool) -> Iterator[tuple[Told, Callable[[str], SceneProgress]]]:
    """Give what is told how far a batch has come.

    Yields:
        What is told ``(scenes done, scenes in all)``; and what is given the name of a scene that begins and
        gives what is told of that.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    if are_wanted():
        scenes = SceneEvents()
        yield scenes, scenes.begin
    elif quiet:
        yield _Silent(), lambda name: _Silent()
    elif console.is_terminal:
        with _bars(console) as bars:
            whole = bars.add_task(plain(name), total=None, unit="scenes")
            part = SceneBar(bars)
            yield lambda done, total: bars.update(whole, completed=done, total=total), part.begin
    else:
        with _lines(console) as begin:
            yield _Silent(), begin


@contextmanager
def _lines(console: Console) -> Iterator[Callable[[str], SceneLines]]:
    latest: list[SceneLines] = []

    def begin(name: str) -> SceneLines:
        _close(latest)
        latest.append(SceneLines(console, name))
        return latest[-1]

    try:
        yield begin
    finally:
        _close(latest)


def _close(lines: list[SceneLines]) -> None:
    while lines:
        lines.pop().close()


class _Count(MofNCompleteColumn):
    """Nothing where nobody knows how many."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    """Nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else Text("left ") + super().render(task)


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        _Left(),
    )
    return Progress(*columns, console=console)
