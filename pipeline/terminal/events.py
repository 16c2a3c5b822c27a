"""Emit progress for programs: one JSON object a line on standard error, and nothing else there.

Every object has an ``event``:

- ``start``: ``version`` of these lines (`VERSION`), ``program``, its version, ``command``.
- ``scene``: of a batch, ``name`` of the scene that begins, ``done`` and ``total`` scenes.
- ``stage``: ``text``, such as ``planning``, ``looking for cloud``, ``restoring``, ``writing clean.tif``.
- ``tiles``: ``done``, of these ``kept`` from an interrupted run, ``total``, and ``left_s``, seconds that the
  rest of the tiles will take.
- ``warning``: ``text``. ``error``: ``text``, the one line that the command ends with.
- ``end``: ``outputs``, a path for each role (``output``, ``report``, ``provenance``, ...), and ``seconds``.

A reader ignores events that it does not know. Only a wrong call, which ends with exit code 2 before
anything began, and output of libraries in other languages are no such lines.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

from decr_scene.pipeline.system.progress import Progress
from decr_scene.pipeline.terminal.duration import time_left

VERSION = 1

EVERY = 0.2
"""Least time between two lines about tiles, s."""


class _State:
    on = False


def are_on() -> bool:
    """Return whether standard error is for a program."""
    return _State.on


def emit(event: str, **values: Any) -> None:
    """Write one line, unless the pipe is closed."""
    with suppress(OSError, ValueError):
        sys.stderr.write(json.dumps({"event": event, **values}) + "\n")
        sys.stderr.flush()


@contextmanager
def to_stderr(on: bool, command: str | None) -> Iterator[None]:
    """Write events to standard error, also for warnings of Python and of loggers, for a ``with``."""
    if not on:
        yield
        return
    handler, showwarning = _Handler(logging.WARNING), warnings.showwarning
    root = logging.getLogger()
    _State.on = True
    root.addHandler(handler)
    warnings.showwarning = _show
    emit("start", version=VERSION, program=f"decr-scene {version('decr-scene')}", command=command)
    try:
        yield
    finally:
        warnings.showwarning = showwarning
        root.removeHandler(handler)
        _State.on = False


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("decr_scene"):  # our own warnings are events already
            emit("warning", text=record.getMessage())


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    emit("warning", text=" ".join(str(message).split()))


class Events(Progress):
    """Emit progress as events."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._from_before: int | None = None

    def scenes(self, done: int, total: int, name: str) -> None:
        """Emit the scene of a batch that begins, or that all are done."""
        emit("scene", name=name or None, done=done, total=total)

    def stage(self, text: str) -> None:
        """Emit the stage that begins."""
        self._began, self._from_before = time.monotonic(), None
        emit("stage", text=text)

    def tiles(self, done: int, total: int) -> None:
        """Emit the number of tiles done, of all, and the time that the rest will take."""
        now = time.monotonic()
        if self._from_before is None:
            self._from_before = done
        if done < total and now - self._last < EVERY:
            return
        self._last = now
        seconds_left = time_left(now - self._began, done - self._from_before, total - done)
        left_s = None if seconds_left is None else round(seconds_left, 1)
        emit("tiles", done=done, kept=self._from_before, total=total, left_s=left_s)
