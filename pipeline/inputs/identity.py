"""Which state of a file is meant: a path says it on no other machine, and not a moment later.

Identities are taken when a run begins and travel with its plan; whoever opens the file compares first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from decr_scene.pipeline.errors import SceneReadError

_WHOLE, _CHUNK, _CHUNKS = 64 << 20, 256 << 10, 128
"""Files up to so many bytes are read whole for their digest, larger ones in so many pieces of so many."""

_TICK = 2_000_000_000
"""Times of change that differ by less, ns, are one: file systems round them."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, bytes, and when content and then anything at all was changed, ns."""


@dataclass(frozen=True)
class FileIdentity:
    """A file in one state.

    Args:
        path: Where it is, on this machine and on every other that is to read it.
        stamp: What the file system said of it here.
        digest: Of its content; empty where it will not leave this machine.
    """

    path: str
    stamp: Stamp
    digest: str = ""

    @classmethod
    def of(cls, path: str, travels: bool) -> FileIdentity:
        """As it is now."""
        stamp = _stamp(path)
        return cls(path, stamp, _digest(path, stamp) if travels else "")

    def check(self) -> None:
        """Refuse another file under this path, or another state of the file.

        Raises:
            SceneReadError: It is not here, or it is another one.
        """
        try:
            here = _stamp(self.path)
        except OSError as error:
            raise SceneReadError(
                f"{_who()} cannot see {self.path} ({error.strerror}), which is there where the run was "
                "started: keep it in a folder that all machines share under one path"
            ) from error
        if here == self.stamp or (not self.digest and here[:4] == self.stamp[:4]):
            return
        alike = here[2] == self.stamp[2] and abs(here[3] - self.stamp[3]) < _TICK
        if not (self.digest and alike and _digest(self.path, here) == self.digest):
            raise SceneReadError(
                f"{_who()} has another file at {self.path} ({_told(here)}) than the run was started with "
                f"({_told(self.stamp)}): it was changed, or it is an older copy; give all machines the same "
                "file, with its time, such as in a shared folder, then run again"
            )


def identities(paths: Iterable[str], travels: bool) -> tuple[FileIdentity, ...]:
    """Of files, each once."""
    return tuple(FileIdentity.of(path, travels) for path in dict.fromkeys(paths))


def _who() -> str:
    """Who tells it, for a message."""
    from distributed import get_worker

    try:
        return f"worker {get_worker().address}"
    except ValueError:
        return "this machine"


def _told(stamp: Stamp) -> str:
    return f"{stamp[2]} bytes of {stamp[3] / 1e9:.3f} s"


def _stamp(path: str) -> Stamp:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=256)
def _digest(path: str, stamp: Stamp) -> str:
    """SHA-256 of what is in a file, or of pieces spread over a large one."""
    size, found = stamp[2], hashlib.sha256()
    try:
        with open(path, "rb") as file:
            if size <= _WHOLE:
                return hashlib.file_digest(file, "sha256").hexdigest()
            for number in range(_CHUNKS):
                file.seek((size - _CHUNK) * number // (_CHUNKS - 1))
                found.update(file.read(_CHUNK))
    except OSError as error:
        raise SceneReadError(f"{_who()} cannot read {path} ({error.strerror})") from error
    return found.hexdigest()
