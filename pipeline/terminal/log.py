"""Write ``--log FILE``: a line a stage, with the time; earlier runs stay in the file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.inputs.addresses import without_secrets
from decr_scene.pipeline.inputs.text import plain_line


@contextmanager
def logging_to(path: Path | None, other_options: dict[str, Any]) -> Iterator[None]:
    """Append records of the logger ``decr_scene``, from INFO on, to a file, for a ``with``.

    Args:
        path: The file; ``None``: none.
        other_options: The other options of the command: none of their files may be the log.

    Raises:
        OutputError: It is one of those files, no text, or cannot be written.
    """
    if path is None:
        yield
        return
    try:
        _check(path, other_options)
        handler = _Log(path, encoding="utf-8", errors="backslashreplace")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written to ({error.strerror}): choose another --log") from error
    handler.setFormatter(_Line("%(asctime)s %(message)s"))
    logger = logging.getLogger("decr_scene")
    level = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        with suppress(OSError):  # of a full disk, which is told already
            handler.close()


class _Line(logging.Formatter):
    """Keep a record in its line, and free of control characters and of secrets in addresses."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Format time and message.

        A traceback comes after it.
        """
        return plain_line(without_secrets(super().formatMessage(record)))


class _Log(logging.FileHandler):
    """Go on without lines that cannot be written, and say so once."""

    _is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Warn of the first line that cannot be written."""
        from decr_scene.pipeline.terminal.console import warn  # which logs

        if not self._is_told:
            self._is_told = True
            warn(
                f"{self.baseFilename} cannot be written to ({sys.exc_info()[1]}): the run goes on without it"
            )


def _check(path: Path, other_options: dict[str, Any]) -> None:
    from decr_scene.pipeline.files import is_same_file

    files = {name: value for name, value in other_options.items() if isinstance(value, (str, Path))}
    if isinstance(out := files.get("out"), Path) and out.suffix:
        files["the report"] = out.with_suffix(".json")
    for name, value in files.items():
        place = os.fspath(value).partition("|layername=")[0]
        if is_same_file(place, path) or os.path.abspath(place) == os.path.abspath(path):
            raise OutputError(f"{path} is the file of {name}, too: choose another --log")
    if path.is_fifo():
        raise OutputError(f"{path} is a pipe, whose reader could be waited for in vain: choose a file")
    if path.is_file():
        with path.open("rb") as file:
            if b"\0" in file.read(4096):
                raise OutputError(f"{path} is there and no text: choose another --log")
