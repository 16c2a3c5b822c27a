"""Keep finished tiles on disk until their blocks are written, so that a kill costs only the tiles in a model.

One hidden file beside the output, of slots that each hold one tile: a header, then the tile's values. A slot
is free again when the blocks of its tile are written, so the file grows with the width of a scene and not
with its area. A record that is cut short, damaged or of another run fails its checksum, and its tile is
restored again: no order of writes has to be kept.
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
"""Mark, digest of the guard, tile, type, shape, checksum of the values, checksum of all before it."""

_WORD = struct.Struct("<I")
_MARK = b"dctile 1"
_PAGE = 4096
_SYNC_EVERY = 5.0
"""Least time between two syncs, s; also the factor by which it exceeds the duration of the last sync."""


class _Header(NamedTuple):
    """The header of a slot."""

    tile: int
    kind: str
    shape: tuple[int, int, int]
    crc: int


class TileStore:
    """Store the changes of finished tiles, by number; safe to use from several threads.

    Args:
        path: Its file.
        guard: Identifies the run: records of another run do not count.
        largest: Greatest size of a tile's values, bytes; a larger tile is not saved.
        most_tiles: Greatest number of tiles held at the same time, about.
        resume: Whether to read the tiles of an interrupted run.
    """

    def __init__(self, path: Path, guard: Guard, largest: int, most_tiles: int, resume: bool = True) -> None:
        self.path = path
        self._digest = hashlib.sha256(json.dumps(guard, sort_keys=True).encode()).digest()[:16]
        self._slot_bytes = -(-(_HEADER.size + largest) // _PAGE) * _PAGE
        self._resume = resume
        self.before_forgetting: Callable[[], None] = lambda: None
        self.bytes_needed = most_tiles * self._slot_bytes
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._slot_count = 0
        self._unread = False
        self._file: FileIO | None = None
        self._failed = False
        self._lock = threading.RLock()
        self._synced, self._sync_interval = time.monotonic(), _SYNC_EVERY

    def open(self) -> None:
        """Open or create the file, and read which tiles of this run it holds.

        Raises:
            OutputError: It cannot be opened.
        """
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            self.path.touch()
            self._file = self.path.open("r+b", buffering=0)
            if not self._resume:
                self._file.truncate()
            self._slot_count = -(-self._file.seek(0, os.SEEK_END) // self._slot_bytes)
            self._unread = self._slot_count > 0
            for place in range(self._slot_count):
                tile = self._tile_at(place)
                if tile is None or tile in self._slots:
                    heappush(self._free, place)
                else:
                    self._slots[tile] = place
            self._unread = False

    @property
    def is_worth_keeping(self) -> bool:
        """Return whether it holds tiles, or may hold some, as it was not read to its end."""
        return bool(self._slots) or self._unread

    def __contains__(self, tile: int) -> bool:
        return tile in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def save(self, tiles: Collection[int], changes: Mapping[int, Float]) -> None:
        """Save tiles, also those without a change.

        A closed store saves none. Neither does one whose disk is full or has failed: the run goes on, with
        one warning in the log.

        Args:
            tiles: Numbers of the tiles.
            changes: ``(bands, h, w)`` of those that have a change.
        """
        with self._lock:
            if self._file is None or self._failed:
                return
            try:
                self._save(tiles, changes)
                self._sync_if_due()
            except OSError as error:
                self._failed = True
                _log.warning(
                    "%s cannot be written (%s): finished tiles are no longer kept, so that going on after an "
                    "interruption takes longer",
                    *(self.path, error.strerror),
                )

    def read(self, tiles: Collection[int]) -> dict[int, Float] | None:
        """Return the changes of tiles, ``(bands, h, w)`` each, or ``None`` if one is missing or damaged."""
        changes = {}
        with self._lock:
            for tile in tiles:
                values = None
                with suppress(OSError):
                    values = self._values_at(self._slots[tile], tile) if tile in self._slots else None
                if values is None:
                    self._free_slot(tile)
                    return None
                if values.size:
                    changes[tile] = values
        return changes

    def forget(self, tiles: Collection[int]) -> None:
        """Free the slots of tiles whose blocks are written, once those are on the disk."""
        with self._lock:
            held = [tile for tile in tiles if tile in self._slots]
        if not held:
            return
        self.before_forgetting()
        with self._lock:
            for tile in held:
                self._free_slot(tile)

    def close(self, keep: bool) -> None:
        """Close the store, and remove the file unless ``keep`` is true."""
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
            if tile not in self._slots and _HEADER.size + values.nbytes <= self._slot_bytes:
                place = heappop(self._free) if self._free else self._slot_count
                self._slot_count = max(self._slot_count, place + 1)
                self._put(place, tile, values)
                self._slots[tile] = place

    def _free_slot(self, tile: int) -> None:
        """Free the slot of a tile, if it has one."""
        if tile in self._slots:
            heappush(self._free, self._slots.pop(tile))

    def _put(self, place: int, tile: int, values: Float) -> None:
        content = np.ascontiguousarray(values).data.cast("B") if values.size else memoryview(b"")
        kind, crc = values.dtype.str.encode(), zlib.crc32(content)
        head = _HEADER.pack(_MARK, self._digest, tile, kind, *values.shape, crc, 0)[: -_WORD.size]
        head += _WORD.pack(zlib.crc32(head))
        offset = place * self._slot_bytes
        self._write(offset + len(head), content)
        self._write(offset, memoryview(head))

    def _write(self, offset: int, content: memoryview) -> None:
        assert self._file is not None, "open"
        self._file.seek(offset)
        while content:
            content = content[self._file.write(content) :]

    def _tile_at(self, place: int) -> int | None:
        """Return the number of the undamaged tile of this run in a slot, if there is one."""
        head = self._head(place)
        return None if head is None or self._values_at(place, head.tile) is None else head.tile

    def _head(self, place: int) -> _Header | None:
        assert self._file is not None, "open"
        self._file.seek(place * self._slot_bytes)
        raw = self._file.read(_HEADER.size)
        if len(raw) < _HEADER.size:
            return None
        mark, digest, tile, kind, *shape, crc, head_crc = _HEADER.unpack(raw)
        if (mark, digest, head_crc) != (_MARK, self._digest, zlib.crc32(raw[: -_WORD.size])):
            return None
        return _Header(tile, kind.rstrip(b"\0").decode(), (shape[0], shape[1], shape[2]), crc)

    def _values_at(self, place: int, tile: int) -> Float | None:
        head = self._head(place)
        if head is None or head.tile != tile or self._file is None:
            return None
        values = np.empty(head.shape, head.kind)
        content = values.data.cast("B") if values.size else memoryview(b"")
        self._file.seek(place * self._slot_bytes + _HEADER.size)
        got = self._file.readinto(content) if content else 0
        return values if got == len(content) and zlib.crc32(content) == head.crc else None

    def _sync_if_due(self) -> None:
        """Sync to the disk at intervals, so that a power cut costs little."""
        assert self._file is not None, "open"
        began = time.monotonic()
        if began - self._synced > self._sync_interval:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
            self._sync_interval = max(_SYNC_EVERY, _SYNC_EVERY * (self._synced - began))
