"""What is finished of a scene, so that a run that was killed can go on.

The journal lies beside the scratch file: a first line that says what the run is, then one line a finished
window with the checksum of its pixels and their statistics. A line that a kill cut short or a power cut
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
"""What makes a run this run: plain values, ready for JSON."""

_log = logging.getLogger(__name__)

_SUM = "line_crc"
"""What a line is checked with: CRC-32 of the rest of it."""

_ANY_BYTES = "surrogateescape"


@dataclass(frozen=True)
class Entry:
    """A finished window: checksum of its pixels, statistics of its bands."""

    crc: int
    statistics: tuple[BandStatistics, ...]

    @classmethod
    def of(cls, pixels: Pixels, statistics: tuple[BandStatistics, ...]) -> Entry:
        """The entry of ``(C, h, w)`` pixels."""
        return cls(checksum(pixels), statistics)


@dataclass(frozen=True)
class FileState:
    """What a finished file is known by: size, time of its last change, inode, CRC-32."""

    size: int
    mtime_ns: int
    inode: int
    crc: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file."""
        crc = 0
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                crc = zlib.crc32(part, crc)
            stat = os.fstat(file.fileno())
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino, crc)

    def seems_of(self, path: Path) -> bool:
        """Whether a file is that one, as far as can be told without reading it."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True)
class Left:
    """What an interrupted run has finished: its rasters by name, and the files that it was about to write."""

    made: Mapping[str, FileState]
    beside: tuple[str, ...]

    def is_there(self, output: Path) -> bool:
        """Whether the rasters have their names, as far as can be told without reading them."""
        return all(state.seems_of(output.with_name(name)) for name, state in self.made.items())

    def is_undamaged(self, output: Path) -> bool:
        """Whether the rasters beside an output hold the very bytes."""
        try:
            return all(FileState.of(output.with_name(name)) == state for name, state in self.made.items())
        except OSError:
            return False


def left_at(output: Path) -> Left | None:
    """Read what an interrupted run has finished; `Journal` says whether it was the same run.

    ``None``: it has not come so far, or there was none.
    """
    try:
        lines = journal_path(output).read_text("utf-8", _ANY_BYTES).split("\n")[1:-1]
    except OSError:
        return None
    for line in reversed(lines):
        left = _left(_read(line) or {})
        if left is not None:
            return left
    return None


def _left(noted: Mapping[str, Any]) -> Left | None:
    try:
        return Left(
            {name: FileState(*state) for name, state in noted["made"].items()}, tuple(noted["beside"])
        )
    except (LookupError, TypeError, AttributeError):
        return None


class Journal:
    """The journal of one output, locked while it is open.

    Args:
        path: Its file; made if there is none.
        guard: What the run is.
        fresh: Forget what is there.

    Raises:
        ResumeError: Another run is at it, or what is there belongs to another run.
    """

    def __init__(self, path: Path, guard: Guard, fresh: bool = False) -> None:
        self.path = path
        self.finished: dict[Span, Entry] = {}
        self._lock = self._locked()
        self._file: IO[str] = path.open("a+", encoding="utf-8", errors=_ANY_BYTES)
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

    def note_whole(self, made: Mapping[str, FileState], beside: Sequence[Path]) -> None:
        """Note that all windows are in finished files, which are about to get their names.

        Args:
            made: The files by the names that they will have.
            beside: What is written next.
        """
        states = {name: list(asdict(state).values()) for name, state in made.items()}
        self._write({"made": states, "beside": [os.path.abspath(path) for path in beside]})
        self.sync()

    def keep(self, is_whole: Callable[[Span, Entry], bool]) -> None:
        """Forget the windows whose pixels did not reach the disk."""
        self.finished = {span: entry for span, entry in self.finished.items() if is_whole(span, entry)}

    def sync(self) -> None:
        """Wait until what is noted would survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it; the file stays."""
        self._file.close()
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
        earlier = bool(lines) and f'"{_SUM}"' not in lines[0]
        old = _read(lines[0], earlier) if lines else None
        if old is None:  # of a run that nobody can tell any more
            self._file.truncate(0)
            self._write(guard)
            return
        _check_same(_brought_up(old, guard), guard, self.path)
        damaged = 0
        for line in lines[1:]:
            noted = _read(line, earlier)
            if noted is None or not self._take(noted):
                damaged += 1
        if damaged:
            _log.warning(
                "%s: %d of %d lines are damaged: that part is done again", self.path, damaged, len(lines) - 1
            )
        self._file.truncate(sum(len(line.encode("utf-8", _ANY_BYTES)) + 1 for line in lines))

    def _take(self, noted: Mapping[str, Any]) -> bool:
        """Take what a line says; whether it says anything."""
        if _left(noted) is not None:
            return True
        try:
            statistics = tuple(BandStatistics(*band) for band in noted["statistics"])
            self.finished[Span(*noted["window"])] = Entry(noted["crc"], statistics)
        except (LookupError, TypeError):
            return False
        return True

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({**values, _SUM: _sum_of(values)}) + "\n")
        self._file.flush()


def checksum(pixels: Pixels) -> int:
    """CRC-32 of ``(C, h, w)`` pixels."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _read(line: str, earlier: bool = False) -> dict[str, Any] | None:
    """What a line says; ``None``: not all of it reached the disk before the power went, or it is damaged.

    In a journal of an ``earlier`` version lines may have no checksum.
    """
    try:
        said = json.loads(line)
        if earlier and _SUM not in said:
            return said if isinstance(said, dict) else None
        return said if said.pop(_SUM) == _sum_of(said) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _sum_of(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values).encode())


def _brought_up(old: dict[str, Any], new: Guard) -> Guard:
    """What an earlier version has left: no device is told, which counts as a CPU, and fp32 where not bf16."""
    if "computing" in old or "precision" not in old:
        return old
    precision = "bf16" if old["precision"] == "bf16" else "fp32"
    here = new.get("computing")
    then = here and {**here, "device": "cpu", "device_name": None, "precision": precision}
    return {**{key: value for key, value in old.items() if key != "precision"}, "computing": then}


def _check_same(old: Guard, new: Guard, path: Path) -> None:
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if differing:
        raise ResumeError(
            f"{path} was left by an interrupted run, and it was another one ({', '.join(differing)} differ): "
            "repeat that call to finish it, or start anew with --no-resume"
        )
