"""Define how a caller follows and cancels a run: `Progress`, `CancelToken`, and `Watch` for both."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from decr_scene.pipeline.errors import OptionError, RunCancelledError

_log = logging.getLogger("decr_scene")
_log.addHandler(logging.NullHandler())


class Progress:
    """Follow a run: subclass this, and override the methods that you need.

    They are called in the order of the run, some of them from another thread than the caller's, one at a
    time. An exception in them ends the run as `RunCancelledError` does.
    """

    def scenes(self, done: int, total: int, name: str) -> None:
        """Note the progress of a folder.

        Args:
            done: Scenes that are done, failed or skipped.
            total: Scenes in all.
            name: Of the scene that begins; empty: all are done.
        """

    def stage(self, text: str) -> None:
        """Note a stage that begins, such as ``looking for cloud`` or ``writing clean.tif``."""

    def tiles(self, done: int, total: int) -> None:
        """Note the number of restored tiles of a scene: at the beginning, and after every batch.

        Args:
            done: Tiles that are restored; at the beginning, those of an interrupted run.
            total: Tiles in all.
        """


class CancelToken(Protocol):
    """A flag that ends a run, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Return whether the run is to end."""


@dataclass(frozen=True)
class Watch:
    """Report the progress of a run to its caller, and end the run when the caller cancels it.

    Args:
        progress: The caller's, if any.
        cancel: The caller's, if any.
        name: Of the scene, for the log.

    Raises:
        OptionError: ``progress`` is no `Progress`, or ``cancel`` no `CancelToken`.
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
        if self.cancel is not None and not hasattr(self.cancel, "is_set"):
            kind = type(self.cancel).__name__
            raise OptionError(f"cancel is a {kind}, expected a flag with is_set: take a threading.Event")

    def check(self) -> None:
        """End the run if it is cancelled.

        Raises:
            RunCancelledError: It is.
        """
        if self.cancel is not None and self.cancel.is_set():
            raise RunCancelledError("the run was cancelled")

    def scenes(self, done: int, total: int, name: str = "") -> None:
        """Report the progress of a folder."""
        if self.progress is not None:
            self.progress.scenes(done, total, name)

    def stage(self, text: str) -> None:
        """Report the stage that begins, unless the run is cancelled."""
        self.check()
        _log.info("%s: %s", self.name, text)
        if self.progress is not None:
            self.progress.stage(text)

    def tiles(self, done: int, total: int) -> None:
        """Report the number of restored tiles."""
        if self.progress is not None:
            self.progress.tiles(done, total)
