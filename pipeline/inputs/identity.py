"""Identify the state of a file, which a path does not on another machine, or a moment later.

Identities are taken when a run begins and go with its plan; they are checked before the file is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from decr_scene.pipeline.errors import SceneReadError

_WHOLE, _CHUNK, _CHUNKS = 64 << 20, 256 << 10, 128
"""Greatest size of a file that is digested whole, bytes; size and number of the pieces of a larger one."""

_TICK = 2_000_000_000
"""Greatest difference between times of change that count as equal, ns: file systems round them."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, bytes, and times of the last change of content and of status, ns."""


@dataclass(frozen=True)
class FileIdentity:
    """A file in one state.

    Args:
        path: Its path, on every machine that reads it.
        stamp: Its stamp on this machine.
        digest: Of its content; empty where no other machine reads it.
    """

    path: str
    stamp: Stamp
    digest: str = ""

    @classmethod
    def of(cls, path: str, travels: bool) -> FileIdentity:
        """Identify the present state."""
        stamp = _stamp(path)
        return cls(path, stamp, _digest(path, stamp) if travels else "")

    def check(self) -> None:
        """Refuse another file under this path, or another state of the file.

        Raises:
            SceneReadError: It is missing here, or it is another one.
        """
        try:
            stamp = _stamp(self.path)
        except OSError as error:
            if not self.digest:
                raise SceneReadError(
                    f"{self.path} was there when the run began, and cannot be seen now ({error.strerror}): "
                    "put it back"
                ) from error
            raise SceneReadError(
                f"{_observer()} cannot see {self.path} ({error.strerror}), which is there where the run was "
                "started: keep it in a folder that all machines share under one path"
            ) from error
        if stamp == self.stamp or (not self.digest and stamp[:4] == self.stamp[:4]):
            return
        nearly_same = stamp[2] == self.stamp[2] and abs(stamp[3] - self.stamp[3]) < _TICK
        if not self.digest:
            raise SceneReadError(
                f"{self.path} was changed or replaced during the run: put the former file back, or start "
                "anew with --no-resume"
            )
        if not (nearly_same and _digest(self.path, stamp) == self.digest):
            raise SceneReadError(
                f"{_observer()} has another file at {self.path} ({_text(stamp)}) than the run was started "
                f"with ({_text(self.stamp)}): it was changed, or it is an older copy; give all machines the "
                "same file, with its time, such as in a shared folder, then run again"
            )


def identities(paths: Iterable[str], travels: bool) -> tuple[FileIdentity, ...]:
    """Identify files, each once."""
    return tuple(FileIdentity.of(path, travels) for path in dict.fromkeys(paths))


def _observer() -> str:
    """Return the name of this worker or machine, for a message."""
    from distributed import get_worker

    try:
        return f"worker {get_worker().address}"
    except ValueError:
        return "this machine"


def _text(stamp: Stamp) -> str:
    return f"{stamp[2]} bytes of {stamp[3] / 1e9:.3f} s"


def _stamp(path: str) -> Stamp:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=256)
def _digest(path: str, stamp: Stamp) -> str:
    """Return the SHA-256 of a file, or of pieces spread over a large one."""
    size, digest = stamp[2], hashlib.sha256()
    try:
        with open(path, "rb") as file:
            if size <= _WHOLE:
                return hashlib.file_digest(file, "sha256").hexdigest()
            for number in range(_CHUNKS):
                file.seek((size - _CHUNK) * number // (_CHUNKS - 1))
                digest.update(file.read(_CHUNK))
    except OSError as error:
        raise SceneReadError(f"{_observer()} cannot read {path} ({error.strerror})") from error
    return digest.hexdigest()
