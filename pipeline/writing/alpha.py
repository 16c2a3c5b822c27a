"""Alpha that colours are multiplied with already: GDAL reads and writes a COG's as any other.

TIFF tells it by tag 338, ExtraSamples, one number for each band beyond those of the photometric
interpretation: 1 is associated (premultiplied) alpha, 2 unassociated (TIFF 6.0, section 18).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

_EXTRA_SAMPLES, _SHORT, _ASSOCIATED, _UNASSOCIATED = 338, 3, 1, 2


class _Samples(NamedTuple):
    """Extra samples of an image in a file, and where they stand in it."""

    offset: int
    order: str
    values: tuple[int, ...]


def keep_premultiplied(source: str, copy: Path) -> None:
    """Say in a copy, and in its overviews, that alpha is premultiplied where the source says so.

    Args:
        source: What was copied, with the same bands; one that is no TIFF of this machine says nothing.
        copy: A TIFF; a few bytes are changed in place.
    """
    if not os.path.isfile(source):
        return
    told = None
    with open(source, "rb") as file, suppress(EOFError):
        told = next(_extra_samples(file), None)
    if told is None or _ASSOCIATED not in told.values:
        return
    with copy.open("r+b") as file:
        for found in list(_extra_samples(file)):
            values = [_kept(found.values, told.values, place) for place in range(len(found.values))]
            file.seek(found.offset)
            file.write(struct.pack(f"{found.order}{len(values)}H", *values))
        file.flush()
        os.fsync(file.fileno())


def _kept(found: tuple[int, ...], told: tuple[int, ...], place: int) -> int:
    """Extra samples are the last bands: the two lists agree at their ends."""
    there = len(told) - len(found) + place
    premultiplied = found[place] == _UNASSOCIATED and there >= 0 and told[there] == _ASSOCIATED
    return _ASSOCIATED if premultiplied else found[place]


def _extra_samples(file: BinaryIO) -> Iterator[_Samples]:
    """Of all images in a TIFF, classic or big; nothing of another file."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    kind = struct.unpack(f"{order}H", head[2:4])[0]
    if kind not in (42, 43):
        return
    word, count, size = ("I", "H", 4) if kind == 42 else ("Q", "Q", 8)
    at, seen = struct.unpack(f"{order}{word}", head[4:8] if kind == 42 else head[8:16])[0], set()
    while at and at not in seen:  # a damaged file may lead back to where it was
        seen.add(at)
        file.seek(at)
        (entries,) = _read(file, f"{order}{count}")
        for _ in range(entries):
            tag, type_, number = _read(file, f"{order}HH{word}")
            place = file.tell()
            (value,) = _read(file, f"{order}{word}")
            if (tag, type_) == (_EXTRA_SAMPLES, _SHORT) and number < 1 << 16:
                offset, after = (place if 2 * number <= size else value), file.tell()
                file.seek(offset)
                yield _Samples(offset, order, _read(file, f"{order}{number}H"))
                file.seek(after)
        (at,) = _read(file, f"{order}{word}")


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    raw = file.read(struct.calcsize(layout))
    if len(raw) != struct.calcsize(layout):
        raise EOFError(f"{file.name} ends within its directory")
    return struct.unpack(layout, raw)
