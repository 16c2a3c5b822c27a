"""End the program within two seconds on Ctrl-C and SIGTERM, in any state, with exit code 130.

Either becomes a `KeyboardInterrupt`, which closes open files. Where that takes too long, as during a batch of
a model or a call of GDAL, the process ends anyway: unfinished files are then as after a kill, which every
command handles.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar

INTERRUPTED = 130
"""The exit code."""

GRACE = 1.2
"""Time to close open files, s."""

WITH_STDIN = "DECR_SCENE_END_WITH_STDIN"
"""Environment variable: if it is set, the end of standard input ends the program as Ctrl-C does.

A process that starts the program with a pipe there can end it on any system, and it never outlives it.
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    listening = False
    came = False
    last_words: Callable[[], None] | None = None
    folders: ClassVar[set[str]] = set()


def was_interrupted() -> bool:
    """Return whether a signal has come: later exceptions are its consequences."""
    return _State.came


def set_last_words(words: Callable[[], None]) -> None:
    """Set the function that prints how to continue.

    It is called once.
    """
    _State.last_words = words


@contextmanager
def removed_at_end(folder: str) -> Iterator[None]:
    """Have a temporary folder removed also where a signal ends the process without waiting."""
    _State.folders.add(folder)
    try:
        yield
    finally:
        _State.folders.discard(folder)


def say_last_words() -> None:
    """Call that function, unless that was done."""
    words, _State.last_words = _State.last_words, None
    if words is not None:
        words()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End this process on signals, for a ``with``; one inside another does nothing.

    An ignored Ctrl-C stays ignored.
    """
    if _State.listening:
        yield
        return
    _State.listening = True
    hook = sys.unraisablehook
    sys.unraisablehook = _quiet(hook)
    try:
        _listen()
        yield
    except BaseException:
        if not _State.came:
            raise
    finally:
        _State.listening = False
        sys.unraisablehook = hook
    if _State.came:
        _end()


def _listen() -> None:
    """Set the handlers, and start the threads that do not wait for the main one."""
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    read, write = socket.socketpair()
    write.setblocking(False)
    # Python's own handlers wait for the main thread; this pair, which Windows has too, does not
    signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=((read, write), handled), daemon=True).start()
    for number in handled:
        signal.signal(number, _interrupt)
    if os.environ.get(WITH_STDIN):
        threading.Thread(target=_end_with_stdin, args=(handled,), daemon=True).start()


def _end_with_stdin(handled: list[signal.Signals]) -> None:
    with suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    if not handled:
        _end()  # all are ignored, and yet the starter has asked for this
    signal.raise_signal(handled[0])  # Ctrl-C, or where that is ignored another one


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _State.came:  # once: what closes files is not interrupted itself
        _State.came = True
        logging.disable(logging.CRITICAL)  # log lines of interrupted libraries help nobody
        raise KeyboardInterrupt


def _quiet(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """Keep quiet of an interrupt that fell into a destructor: Python drops it there, `_end_late` does not."""

    def told(unraisable: Any) -> None:
        if not (_State.came and isinstance(unraisable.exc_value, KeyboardInterrupt)):
            hook(unraisable)

    return told


def _end_late(ends: tuple[socket.socket, socket.socket], handled: list[signal.Signals]) -> None:
    while ends[0].recv(1)[0] not in handled:  # both ends are held here, or the other one would be closed
        pass
    time.sleep(GRACE)
    _end()


def _end() -> None:
    """End the process without waiting for threads."""
    with suppress(Exception):
        say_last_words()
    for folder in list(_State.folders):
        shutil.rmtree(folder, ignore_errors=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(INTERRUPTED)
