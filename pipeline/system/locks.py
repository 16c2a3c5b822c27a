"""Lock by a file: one process at a time, released by the system however that process ends."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout


class HeldError(Exception):
    """Another run has the lock; the argument names its process, if that is known."""


class Lock:
    """Hold a lock until `release`.

    Args:
        path: The lock file, made if there is none; nothing else is ever written to it.
        stays: Whether the file stays when the lock is released.

    Raises:
        HeldError: Another process has it.
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, stays: bool = False) -> None:
        self._path, self._stays = path, stays
        self._lock = FileLock(path, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise HeldError(_holder(path)) from None
        if self._is_readable:
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")

    @property
    def _is_readable(self) -> bool:
        """Return whether other processes can read the locked file.

        Windows locks its content, too.
        """
        return os.name == "posix" and not isinstance(self._lock, SoftFileLock)

    def release(self) -> None:
        """Release the lock.

        A process that waits for the removed file notices, and makes a new one.
        """
        if self._is_readable and not self._stays:
            self._path.unlink(missing_ok=True)
        self._lock.release()


def _holder(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8").strip()
        return text if text.startswith("process ") else ""
    return ""
