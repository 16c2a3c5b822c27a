"""Progress bars with the time left: of a scene, and of a batch with its present scene.

They move on standard error where that is a terminal; elsewhere, as in the log of a nightly run, a line says
when the tiles of a scene are done and what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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

Told = Callable[[int, int], None]
"""``(done, in all)``."""


class SceneBar:
    """What moves the bar of a scene's tiles, and beneath it says what else takes its time.

    Args:
        bars: Where they are.
        name: Of the scene.
    """

    def __init__(self, bars: Progress, name: str = "") -> None:
        name = plain(name)
        self._bars, self._name, self._tiles, self._said = bars, name, (0, 0), False
        # A call that is refused at once shows no bar.
        self._bar = bars.add_task(name, total=None, unit="tiles", visible=False)
        self._rest = bars.add_task("", total=None, unit="", visible=False, start=False)

    def __call__(self, done: int, total: int) -> None:
        """Tell the number of tiles done, of all."""
        self._tiles = (done, total)
        self._bars.update(self._bar, completed=done, total=total, visible=True)

    def begin(self, name: str) -> SceneBar:
        """Take the bar for the next scene."""
        name = plain(name)
        self._name, self._tiles, self._said = name, (0, 0), False
        self._bars.update(self._rest, visible=False)
        self._bars.reset(self._bar, description=name, total=1, visible=True)
        return self

    def stage(self, text: str) -> None:
        """Tell what begins when the tiles are done, of which nobody knows how long it takes."""
        text = plain(text)
        if self._bars.console.is_terminal:
            self._bars.reset(self._rest, description=text, visible=True)
        elif not self._bars.disable and not self._said:
            done, total = self._tiles
            with suppress(OSError):  # of a reader that is gone
                self._bars.console.print(f"{self._name}: {done} of {total} tiles, {text}", soft_wrap=True)
            self._said = True


@contextmanager
def tile_progress(name: str, quiet: bool) -> Iterator[SceneBar]:
    """Give what moves the bar of a scene."""
    with _bars(quiet) as bars:
        yield SceneBar(bars, name)


@contextmanager
def batch_progress(name: str, quiet: bool) -> Iterator[tuple[Told, Callable[[str], SceneBar]]]:
    """Give two callbacks for two bars.

    Yields:
        ``(scenes done, scenes in all)`` moves the bar of the batch; the name of a scene that begins clears
        the other bar and gives what moves it.
    """
    with _bars(quiet) as bars:
        whole = bars.add_task(plain(name), total=None, unit="scenes")
        part = SceneBar(bars)
        yield lambda done, total: bars.update(whole, completed=done, total=total), part.begin


class _Count(MofNCompleteColumn):
    """Nothing where nobody knows how many."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    """Nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else Text("left ") + super().render(task)


class _Bars(Progress):
    """Bars that leave nothing, not even an empty line, where there is no terminal."""

    def start(self) -> None:
        if self.console.is_terminal:
            super().start()

    def stop(self) -> None:
        if self.console.is_terminal:
            super().stop()


def _bars(quiet: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        _Left(),
    )
    console = Console(stderr=True, highlight=False, markup=False)
    return _Bars(*columns, console=console, disable=quiet)
