"""Finished tiles on disk until their blocks are written, so that a kill costs only what is in a model.

One hidden file beside the output, of slots that each hold one tile: a header, then the tile's values. A slot
is free again when the blocks of its tile are written, so the file grows with the width of a scene and not
with its area. A record that was cut short, damaged or left by another run fails its checksum, and then the
tile is restored again: no order of writes has to be kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from heapq import heappop, heappush
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.files import os_faults
from decr_scene.pipeline.writing.journal import Guard

_log = logging.getLogger(__name__)

_HEADER = struct.Struct("<8s16sQ4s3III")
"""Mark, digest of the guard, tile, type, shape, checksum of the values, checksum of what comes before."""

_WORD = struct.Struct("<I")
_MARK = b"dctile 1"
_PAGE = 4096
_SYNC_EVERY = 5.0
"""Seconds between two waits for the disk, and as many times as long as the last one took."""


class _Head(NamedTuple):
    """What the header of a slot says."""

    tile: int
    kind: str
    shape: tuple[int, int, int]
    crc: int


class TileStore:
    """What sampling has changed in tiles, by number; safe to use from several threads.

    Args:
        path: Its file.
        guard: What the run is: records of another run do not count.
        largest: Bytes of a tile's values at most; what is larger is not saved.
        most: Tiles that are held at the same time, about.
        resume: Whether to look for what an interrupted run has left.
    """

    def __init__(self, path: Path, guard: Guard, largest: int, most: int, resume: bool = True) -> None:
        self.path = path
        self._digest = hashlib.sha256(json.dumps(guard, sort_keys=True).encode()).digest()[:16]
        self._slot = -(-(_HEADER.size + largest) // _PAGE) * _PAGE
        self._resume = resume
        self.before_forgetting: Callable[[], None] = lambda: None
        self.bytes_needed = most * self._slot
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._end = 0
        self._file: FileIO | None = None
        self._failed = False
        self._lock = threading.RLock()
        self._synced, self._patience = time.monotonic(), _SYNC_EVERY

    def open(self) -> None:
        """Open or make the file, and look which tiles of this run it holds.

        Raises:
            OutputError: It cannot be opened.
        """
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            self.path.touch()
            self._file = self.path.open("r+b", buffering=0)
            if not self._resume:
                self._file.truncate()
            self._end = -(-self._file.seek(0, os.SEEK_END) // self._slot)
            for place in range(self._end):
                tile = self._tile_at(place)
                if tile is None or tile in self._places:
                    heappush(self._free, place)
                else:
                    self._places[tile] = place

    def __contains__(self, tile: int) -> bool:
        return tile in self._places

    def __len__(self) -> int:
        return len(self._places)

    def save(self, tiles: Collection[int], changes: Mapping[int, Float]) -> None:
        """Save tiles; those without a change are noted as such. A store that is closed takes nothing.

        Neither does one whose disk has been full or has failed: a run needs no store to go on, and says it
        once, in the log.

        Args:
            tiles: Numbers of the tiles.
            changes: ``(bands, h, w)`` of those that have a change.
        """
        with self._lock:
            if self._file is None or self._failed:
                return
            try:
                self._save(tiles, changes)
                self._sync_now_and_then()
            except OSError as error:
                self._failed = True
                _log.warning(
                    "%s cannot be written (%s): finished tiles are no longer kept, so that going on after an "
                    "interruption takes longer",
                    *(self.path, error.strerror),
                )

    def read(self, tiles: Collection[int]) -> dict[int, Float] | None:
        """The changes of tiles, as they were saved; ``None``: not all of them are there undamaged."""
        changes = {}
        with self._lock:
            for tile in tiles:
                values = None
                with suppress(OSError):
                    values = self._values_at(self._places[tile], tile) if tile in self._places else None
                if values is None:
                    self._let_go(tile)
                    return None
                if values.size:
                    changes[tile] = values
        return changes

    def forget(self, tiles: Collection[int]) -> None:
        """Let go of tiles whose blocks are written, once those are on the disk."""
        with self._lock:
            held = [tile for tile in tiles if tile in self._places]
        if not held:
            return
        self.before_forgetting()
        with self._lock:
            for tile in held:
                self._let_go(tile)

    def close(self, keep: bool) -> None:
        """Close it, and remove the file unless it is to be kept."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            if not keep:
                self.path.unlink(missing_ok=True)

    def _save(self, tiles: Collection[int], changes: Mapping[int, Float]) -> None:
        nothing = np.zeros((0, 0, 0), np.float32)
        for tile in tiles:
            values = changes.get(tile, nothing)
            if tile not in self._places and _HEADER.size + values.nbytes <= self._slot:
                place = heappop(self._free) if self._free else self._end
                self._end = max(self._end, place + 1)
                self._put(place, tile, values)
                self._places[tile] = place

    def _let_go(self, tile: int) -> None:
        """Have the slot of a tile be free, if it has one."""
        if tile in self._places:
            heappush(self._free, self._places.pop(tile))

    def _put(self, place: int, tile: int, values: Float) -> None:
        content = np.ascontiguousarray(values).data.cast("B") if values.size else memoryview(b"")
        kind, crc = values.dtype.str.encode(), zlib.crc32(content)
        head = _HEADER.pack(_MARK, self._digest, tile, kind, *values.shape, crc, 0)[: -_WORD.size]
        head += _WORD.pack(zlib.crc32(head))
        where = place * self._slot
        self._write(where + len(head), content)
        self._write(where, memoryview(head))

    def _write(self, where: int, content: memoryview) -> None:
        assert self._file is not None, "open"
        self._file.seek(where)
        while content:
            content = content[self._file.write(content) :]

    def _tile_at(self, place: int) -> int | None:
        """Which tile of this run a slot holds whole."""
        head = self._head(place)
        return None if head is None or self._values_at(place, head.tile) is None else head.tile

    def _head(self, place: int) -> _Head | None:
        assert self._file is not None, "open"
        self._file.seek(place * self._slot)
        found = self._file.read(_HEADER.size)
        if len(found) < _HEADER.size:
            return None
        mark, digest, tile, kind, *shape, crc, own = _HEADER.unpack(found)
        if (mark, digest, own) != (_MARK, self._digest, zlib.crc32(found[: -_WORD.size])):
            return None
        return _Head(tile, kind.rstrip(b"\0").decode(), (shape[0], shape[1], shape[2]), crc)

    def _values_at(self, place: int, tile: int) -> Float | None:
        head = self._head(place)
        if head is None or head.tile != tile or self._file is None:
            return None
        values = np.empty(head.shape, head.kind)
        content = values.data.cast("B") if values.size else memoryview(b"")
        self._file.seek(place * self._slot + _HEADER.size)
        got = self._file.readinto(content) if content else 0
        return values if got == len(content) and zlib.crc32(content) == head.crc else None

    def _sync_now_and_then(self) -> None:
        """See to it that a power cut costs little, without waiting for the disk all the time."""
        assert self._file is not None, "open"
        began = time.monotonic()
        if began - self._synced > self._patience:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
            self._patience = max(_SYNC_EVERY, _SYNC_EVERY * (self._synced - began))
