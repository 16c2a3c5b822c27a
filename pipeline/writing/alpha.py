"""Mark premultiplied alpha in a copy: GDAL writes a COG's alpha as any other.

TIFF has it in tag 338, ExtraSamples, one number for each band beyond those of the photometric
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
    """The extra samples of an image in a file, and their offset in it, bytes."""

    offset: int
    order: str
    values: tuple[int, ...]


def keep_premultiplied(source: str, copy: Path) -> None:
    """Mark alpha in a copy and in its overviews as premultiplied where the source has it so.

    Args:
        source: Of the copy, with the same bands; nothing is done for one that is no local TIFF.
        copy: A TIFF; a few bytes are changed in place.
    """
    if not os.path.isfile(source):
        return
    of_source = None
    with open(source, "rb") as file, suppress(EOFError):
        of_source = next(_extra_samples(file), None)
    if of_source is None or _ASSOCIATED not in of_source.values:
        return
    with copy.open("r+b") as file:
        for samples in list(_extra_samples(file)):
            values = [
                _sample_kind(samples.values, of_source.values, index) for index in range(len(samples.values))
            ]
            file.seek(samples.offset)
            file.write(struct.pack(f"{samples.order}{len(values)}H", *values))
        file.flush()
        os.fsync(file.fileno())


def _sample_kind(copied: tuple[int, ...], of_source: tuple[int, ...], index: int) -> int:
    """Return the kind of a copied sample.

    Extra samples are the last bands, so the lists align at the end.
    """
    source_index = len(of_source) - len(copied) + index
    premultiplied = (
        copied[index] == _UNASSOCIATED and source_index >= 0 and of_source[source_index] == _ASSOCIATED
    )
    return _ASSOCIATED if premultiplied else copied[index]


def _extra_samples(file: BinaryIO) -> Iterator[_Samples]:
    """Yield the extra samples of all images in a TIFF, classic or big, none of another file."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    kind = struct.unpack(f"{order}H", head[2:4])[0]
    if kind not in (42, 43):
        return
    pointer, count, size = ("I", "H", 4) if kind == 42 else ("Q", "Q", 8)
    directory, visited = struct.unpack(f"{order}{pointer}", head[4:8] if kind == 42 else head[8:16])[0], set()
    while directory and directory not in visited:  # a damaged file may lead back to where it was
        visited.add(directory)
        file.seek(directory)
        (entries,) = _read(file, f"{order}{count}")
        for _ in range(entries):
            tag, type_, number = _read(file, f"{order}HH{pointer}")
            place = file.tell()
            (value,) = _read(file, f"{order}{pointer}")
            if (tag, type_) == (_EXTRA_SAMPLES, _SHORT) and number < 1 << 16:
                offset, next_entry = (place if 2 * number <= size else value), file.tell()
                file.seek(offset)
                yield _Samples(offset, order, _read(file, f"{order}{number}H"))
                file.seek(next_entry)
        (directory,) = _read(file, f"{order}{pointer}")


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    raw = file.read(struct.calcsize(layout))
    if len(raw) != struct.calcsize(layout):
        raise EOFError(f"{file.name} ends within its directory")
    return struct.unpack(layout, raw)
