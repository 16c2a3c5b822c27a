"""How a caller follows a run and ends it: `Progress`, a token to cancel with, and the two as one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from decr_scene.pipeline.errors import OptionError, RunCancelledError

_log = logging.getLogger("decr_scene")
_log.addHandler(logging.NullHandler())


class Progress:
    """Follow a run: make a class of this one, with those methods that you want to know of.

    They are called in the order of the run, some of them from another thread than the caller's, one at a
    time. What they raise ends the run as `RunCancelledError` does.
    """

    def scenes(self, done: int, total: int, name: str) -> None:
        """Note how far a folder is.

        Args:
            done: Scenes that are done, failed or left alone.
            total: Scenes in all.
            name: Of the one that begins; empty: there is none any more.
        """

    def stage(self, text: str) -> None:
        """Note what begins: such as ``looking for cloud``, ``restoring`` or ``writing clean.tif``."""

    def tiles(self, done: int, total: int) -> None:
        """Note how many tiles of a scene are restored: when that begins, and after every batch.

        Args:
            done: Tiles that are restored; when it begins, those that an interrupted run has left.
            total: Tiles in all.
        """


class CancelToken(Protocol):
    """What says that a run is to end, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether it is to end."""


@dataclass(frozen=True)
class Watch:
    """Tell a caller what a run is at, and end the run where the caller wants it.

    Args:
        progress: The caller's; ``None``: nobody follows.
        cancel: The caller's; ``None``: nobody cancels.
        name: Of the scene, for the log.

    Raises:
        OptionError: ``progress`` is none.
    """

    progress: Progress | None = None
    cancel: CancelToken | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.progress, (Progress, type(None))):
            raise OptionError(
                f"progress is a {type(self.progress).__name__}, expected a Progress: make a class of "
                "decr_scene.pipeline.Progress with the methods that you need"
            )

    def check(self) -> None:
        """End the run if it is cancelled.

        Raises:
            RunCancelledError: It is.
        """
        if self.cancel is not None and self.cancel.is_set():
            raise RunCancelledError("the run was cancelled")

    def scenes(self, done: int, total: int, name: str = "") -> None:
        """Tell how far a folder is."""
        if self.progress is not None:
            self.progress.scenes(done, total, name)

    def stage(self, text: str) -> None:
        """Tell what begins, unless the run is cancelled."""
        self.check()
        _log.info("%s: %s", self.name, text)
        if self.progress is not None:
            self.progress.stage(text)

    def tiles(self, done: int, total: int) -> None:
        """Tell how many tiles are restored."""
        if self.progress is not None:
            self.progress.tiles(done, total)
