"""Keep datasets open: one a thread, because GDAL's serve one thread at a time, and none across a fork."""

from __future__ import annotations

import os
import threading
import traceback
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import rasterio

from decr_scene.pipeline.inputs.names import local_files
from decr_scene.pipeline.inputs.text import decoded

PER_THREAD = 8
"""Number of files that a thread keeps open."""


class Handles:
    """Open datasets by process, thread and file, the latest few a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[Any, ...], Any] = {}

    def get(self, path: str, state: tuple[int, ...]) -> Any:
        """Return the dataset of this thread, opened if it is not.

        Args:
            path: Of the file.
            state: As `file_state` returned it; empty: not a local file.

        Raises:
            OSError: It cannot be opened, or is not in that state any more.
        """
        key = (path, *state)
        mine = (os.getpid(), threading.get_ident())
        with self._lock:
            dataset = self._open.pop((*mine, key), None)
        if dataset is None or dataset.closed:
            dataset = _open(path, state)
        with self._lock:
            self._open[*mine, key] = dataset
            oldest = [k for k in self._open if k[:2] == mine][:-PER_THREAD]
            stale = [self._open.pop(k) for k in oldest]
        for other in stale:
            other.close()
        return dataset

    def close(self, path: str, state: tuple[int, ...]) -> None:
        """Drop the datasets of a file of all threads of this process.

        A dataset that another run is reading is closed when that drops it too: GDAL crashes if it is closed
        under a thread.
        """
        key = (path, *state)
        with self._lock:
            for name in [k for k in self._open if k[0] == os.getpid() and k[2] == key]:
                del self._open[name]


def row_by_row(dataset: Any = None) -> AbstractContextManager[Any]:
    """Have GDAL decode PNG by rows, for a ``with``: its quicker way for whole images passes over damage.

    Args:
        dataset: What is read meanwhile, if it has been opened so; ``None``: anything that is opened and read.
    """
    if dataset is not None and dataset.driver not in ("PNG", "VRT"):
        return nullcontext()
    return rasterio.Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO")


def message_in(error: UnicodeDecodeError) -> str | None:
    """Return GDAL's message that is no UTF-8, or ``None`` where rasterio fails at something else."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    if not last or not last[0].filename.endswith("_err.pyx"):
        return None
    return " ".join(decoded(bytes(error.object)).split())


def file_state(path: str) -> tuple[int, ...]:
    """Return numbers that change when a file or its sidecars are replaced, none unless it is local."""
    if not os.path.exists(path):
        return tuple(number for file in local_files(path) for number in file_state(file))
    stat = os.stat(path)
    sidecars = (_modified(path + suffix) for suffix in (".aux.xml", ".msk"))
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, *sidecars)


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _open(path: str, state: tuple[int, ...]) -> Any:
    if state and file_state(path) != state:
        raise OSError("it has changed since it was opened")
    try:
        with row_by_row():
            return rasterio.open(path)
    except UnicodeEncodeError:
        raise OSError("its name has bytes that are no UTF-8: rename it, or give it a link") from None
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):  # of what is in it, not of its name
            if (message := message_in(error)) is not None:
                raise OSError(message) from None
            raise
        raise OSError(f"its name is no address: {error}") from None
