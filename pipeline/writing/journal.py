"""Keep a journal of the finished windows of a scene, so that a run that was killed can be continued.

The journal is beside the scratch file: a first line that identifies the run, then one line a finished window
with the checksum of its pixels and their statistics. A line that a kill cut short or a power cut
damaged does not count, and neither does a window whose pixels did not reach the disk.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.errors import ResumeError
from decr_scene.pipeline.files import journal_path, lock_path
from decr_scene.pipeline.system.locks import HeldError, Lock
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.statistics import BandStatistics

Guard = Mapping[str, Any]
"""Identifies a run: plain values, ready for JSON."""

_log = logging.getLogger(__name__)

_CHECKSUM = "line_crc"
"""Key of a line's checksum: CRC-32 of the rest of the line."""

_KEEP_BYTES = "surrogateescape"
_LATER = (
    "values of the input",
    "limits are fitted to 8 bits",
    "files of the mask",
    "files of the other date",
)
"""What earlier versions have not noted of a run."""


@dataclass(frozen=True)
class Entry:
    """A finished window: checksum of its pixels, statistics of its bands."""

    crc: int
    statistics: tuple[BandStatistics, ...]

    @classmethod
    def of(cls, pixels: Pixels, statistics: tuple[BandStatistics, ...]) -> Entry:
        """Return the entry of ``(C, h, w)`` pixels."""
        return cls(checksum(pixels), statistics)


@dataclass(frozen=True)
class FileState:
    """Identity of a finished file: size, time of its last change, inode, CRC-32."""

    size: int
    mtime_ns: int
    inode: int
    crc: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Return the state of a file, which is read whole."""
        crc = 0
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                crc = zlib.crc32(part, crc)
            stat = os.fstat(file.fileno())
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino, crc)

    def matches(self, path: Path) -> bool:
        """Return whether a file is that one by size, time and inode, without reading it."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (self.size, self.mtime_ns, self.inode)

    def has_bytes_of(self, path: Path) -> bool:
        """Return whether a file has the same bytes, as a copy has; it is read whole if it has as many."""
        try:
            return path.stat().st_size == self.size and FileState.of(path).crc == self.crc
        except OSError:
            return False


@dataclass(frozen=True)
class FinishedRasters:
    """Rasters that an interrupted run has finished, by name, and side files that it was about to write."""

    rasters: Mapping[str, FileState]
    side_files: tuple[str, ...]

    def is_in_place(self, output: Path) -> bool:
        """Return whether the rasters have their names, without reading them."""
        return all(state.matches(output.with_name(name)) for name, state in self.rasters.items())

    def is_undamaged(self, output: Path) -> bool:
        """Return whether the rasters at an output have the same bytes."""
        try:
            return all(FileState.of(output.with_name(name)) == state for name, state in self.rasters.items())
        except OSError:
            return False


def read_finished_rasters(output: Path) -> FinishedRasters | None:
    """Read from a journal whether all rasters were finished.

    `Journal` checks that it was the same run. ``None``: they were not, or there is no journal.
    """
    try:
        lines = journal_path(output).read_text("utf-8", _KEEP_BYTES).split("\n")[1:-1]
    except OSError:
        return None
    for line in reversed(lines):
        finished = _finished_rasters_of(_read(line) or {})
        if finished is not None:
            return finished
    return None


def _finished_rasters_of(values: Mapping[str, Any]) -> FinishedRasters | None:
    try:
        return FinishedRasters(
            {name: FileState(*state) for name, state in values["made"].items()}, tuple(values["beside"])
        )
    except (LookupError, TypeError, AttributeError):
        return None


class Journal:
    """The journal of one output, locked while it is open.

    Args:
        path: Its file; made if there is none.
        guard: Identifies the run.
        fresh: Discard an existing journal.

    Raises:
        ResumeError: Another run has it open, or it belongs to another run.
    """

    def __init__(self, path: Path, guard: Guard, fresh: bool = False) -> None:
        self.path = path
        self.finished: dict[Span, Entry] = {}
        self._lock = self._locked()
        self._file: IO[str] = path.open("a+", encoding="utf-8", errors=_KEEP_BYTES)
        try:
            self._begin(json.loads(json.dumps(guard)), fresh)
        except BaseException:
            self.close()
            raise

    def add(self, span: Span, entry: Entry) -> None:
        """Note a window whose pixels are written."""
        self.finished[span] = entry
        statistics = [list(asdict(band).values()) for band in entry.statistics]
        self._write({"window": list(span), "crc": entry.crc, "statistics": statistics})

    def note_whole(self, rasters: Mapping[str, FileState], side_files: Sequence[Path]) -> None:
        """Note that all windows are in finished files, which are about to get their names.

        Args:
            rasters: The files by the names that they will have.
            side_files: The files that are written next.
        """
        states = {name: list(asdict(state).values()) for name, state in rasters.items()}
        self._write({"made": states, "beside": [os.path.abspath(path) for path in side_files]})
        self.sync()

    def keep(self, is_whole: Callable[[Span, Entry], bool]) -> None:
        """Forget the windows whose pixels did not reach the disk."""
        self.finished = {span: entry for span, entry in self.finished.items() if is_whole(span, entry)}

    def sync(self) -> None:
        """Wait until all notes would survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self, keep: bool = True) -> None:
        """Close the journal, and remove the file unless ``keep`` is true.

        Windows removes no open file.
        """
        self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)
        self._lock.release()

    def _locked(self) -> Lock:
        try:
            return Lock(lock_path(self.path))
        except HeldError:
            raise ResumeError(
                f"{self.path} is in use: another run writes the same output; wait for it or take another name"
            ) from None

    def _begin(self, guard: Guard, fresh: bool) -> None:
        self._file.seek(0)
        lines = [] if fresh else self._file.read().split("\n")[:-1]
        without_checksums = bool(lines) and f'"{_CHECKSUM}"' not in lines[0]
        old = _read(lines[0], without_checksums) if lines else None
        if old is None:  # an unreadable first line: of an unknown run
            self._file.truncate(0)
            self._write(guard)
            return
        _check_same(_converted(old, guard), guard, self.path)
        damaged = 0
        for line in lines[1:]:
            values = _read(line, without_checksums)
            if values is None or not self._take(values):
                damaged += 1
        if damaged:
            _log.warning(
                "%s: %d of %d lines are damaged: that part is done again", self.path, damaged, len(lines) - 1
            )
        self._file.truncate(sum(len(line.encode("utf-8", _KEEP_BYTES)) + 1 for line in lines))

    def _take(self, values: Mapping[str, Any]) -> bool:
        """Take over the values of a line, and return whether they make an entry."""
        if _finished_rasters_of(values) is not None:
            return True
        try:
            statistics = tuple(BandStatistics(*band) for band in values["statistics"])
            self.finished[Span(*values["window"])] = Entry(values["crc"], statistics)
        except (LookupError, TypeError):
            return False
        return True

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({**values, _CHECKSUM: _line_crc(values)}) + "\n")
        self._file.flush()


def checksum(pixels: Pixels) -> int:
    """Return the CRC-32 of ``(C, h, w)`` pixels."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _read(line: str, without_checksums: bool = False) -> dict[str, Any] | None:
    """Parse a line, or return ``None`` if it is cut short or damaged.

    In a journal of an earlier version lines may be ``without_checksums``.
    """
    try:
        values = json.loads(line)
        if without_checksums and _CHECKSUM not in values:
            return values if isinstance(values, dict) else None
        return values if values.pop(_CHECKSUM) == _line_crc(values) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _line_crc(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values).encode())


def _converted(old: dict[str, Any], new: Guard) -> Guard:
    """Convert the guard of an earlier version, which had no device, nor what the values of the input mean.

    It was a CPU, in fp32 where not in bf16.
    """
    if "values of the input" not in old:
        old = {**{key: new[key] for key in _LATER if key in new}, **old}
    if "computing" in old or "precision" not in old:
        return old
    precision = "bf16" if old["precision"] == "bf16" else "fp32"
    computing = new.get("computing")
    earlier = computing and {**computing, "device": "cpu", "device_name": None, "precision": precision}
    return {**{key: value for key, value in old.items() if key != "precision"}, "computing": earlier}


def _check_same(old: Guard, new: Guard, path: Path) -> None:
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if "input" in differing:
        raise ResumeError(
            f"{path} was left by an interrupted run of another input, or of this one before it changed "
            f"({', '.join(differing)} differ): put the former one back to finish it, or start anew with "
            "--no-resume"
        )
    if differing:
        raise ResumeError(
            f"{path} was left by an interrupted run, and it was another one ({', '.join(differing)} differ): "
            "repeat that call to finish it, or start anew with --no-resume"
        )
