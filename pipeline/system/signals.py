"""Ctrl-C and SIGTERM end the program within two seconds, whatever it is at, with exit code 130.

Either becomes a `KeyboardInterrupt`, which closes what is open. Where that takes too long, as while a model
is at a batch or GDAL at a file, the process ends all the same: what is unfinished on disk is as after a kill,
and every command copes with that.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
"""The exit code."""

GRACE = 1.2
"""Seconds to close what is open."""

WITH_STDIN = "DECR_SCENE_END_WITH_STDIN"
"""Environment variable: if it is set, the end of standard input ends the program as Ctrl-C does.

Who starts the program with a pipe there can end it on any system, and it does not outlive its starter.
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    came = False
    last_words: Callable[[], None] | None = None


def was_interrupted() -> bool:
    """Whether a signal has come: whatever is raised after that is a consequence."""
    return _State.came


def at_the_end_say(words: Callable[[], None]) -> None:
    """Set what tells the user how to go on; it is called once."""
    _State.last_words = words


def say_last_words() -> None:
    """Tell the user, unless that was done."""
    words, _State.last_words = _State.last_words, None
    if words is not None:
        words()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have signals end this process, for the program itself; one that is told to ignore Ctrl-C goes on to."""
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    read, write = socket.socketpair()
    write.setblocking(False)
    # Python's own handlers wait for the main thread; this pair, which Windows has too, does not
    signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=((read, write), heard), daemon=True).start()
    for number in heard:
        signal.signal(number, _interrupt)
    if os.environ.get(WITH_STDIN):
        threading.Thread(target=_end_with_stdin, args=(heard,), daemon=True).start()
    try:
        yield
    except BaseException:
        if not _State.came:
            raise
    if _State.came:
        _end()


def _end_with_stdin(heard: list[signal.Signals]) -> None:
    with suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    signal.raise_signal(heard[0])  # Ctrl-C, or where that is ignored whatever is not


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _State.came:  # once: what closes files is not interrupted itself
        _State.came = True
        logging.disable(logging.CRITICAL)  # what libraries say of being interrupted helps nobody
        raise KeyboardInterrupt


def _end_late(ends: tuple[socket.socket, socket.socket], heard: list[signal.Signals]) -> None:
    while ends[0].recv(1)[0] not in heard:  # both ends are held here, or the other one would be closed
        pass
    time.sleep(GRACE)
    _end()


def _end() -> None:
    """No thread is waited for."""
    with suppress(Exception):
        say_last_words()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(INTERRUPTED)
