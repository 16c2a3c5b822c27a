"""Keep finished blocks in a scratch file that GDAL reads as a GeoTIFF and that is filled in any order."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.errors import OptionError, OutputError
from decr_scene.pipeline.files import os_faults
from decr_scene.pipeline.tiling.grid import Span

_OFFSETS, _SIZES = 324, 325  # tags of a TIFF: TileOffsets, TileByteCounts
_LONG8 = 16  # a type of its numbers
_WORD, _ENTRY, _VALUE = struct.Struct("<Q"), struct.Struct("<HHQQ"), 12
_HEAD = 1 << 20
"""Bytes read from the beginning of a scratch file: its directory, and more."""


LARGEST_BLOCK = 8192
"""Greatest side of a block, px: of four bands of 16 bits one takes half a gigabyte, several times over."""


def check_blocksize(blocksize: int) -> None:
    """Refuse a side of blocks that a tiled GeoTIFF cannot or should not have.

    Raises:
        OptionError: It is no positive multiple of 16 px, or so large that a block would fill the memory.
    """
    if not isinstance(blocksize, int) or not 16 <= blocksize <= LARGEST_BLOCK or blocksize % 16:
        raise OptionError(
            f"blocksize must be a positive multiple of 16 px, {LARGEST_BLOCK} at most, got {blocksize!r}"
        )


@dataclass(frozen=True)
class Layout:
    """Square blocks of a raster, the last ones cut by its edges.

    Args:
        shape: ``(height, width)``, px.
        count: Bands.
        dtype: Of all bands.
        blocksize: Side of a block, px, a multiple of 16.
    """

    shape: tuple[int, int]
    count: int
    dtype: np.dtype[Any]
    blocksize: int

    def __post_init__(self) -> None:
        check_blocksize(self.blocksize)

    @property
    def grid(self) -> tuple[int, int]:
        """Return the number of rows and of columns of blocks."""
        return -(-self.shape[0] // self.blocksize), -(-self.shape[1] // self.blocksize)

    @property
    def raw_bytes(self) -> int:
        """Return the bytes of all pixels."""
        return self.shape[0] * self.shape[1] * self.count * self.dtype.itemsize

    def blocks(self, span: Span) -> Iterator[tuple[int, int]]:
        """Yield ``(row, column)`` of the blocks that a span covers.

        Raises:
            ValueError: It does not cover them whole, or reaches beyond the raster.
        """
        rows = self._covered(span.row, span.height, self.shape[0])
        cols = self._covered(span.col, span.width, self.shape[1])
        for row in rows:
            yield from ((row, col) for col in cols)

    def _covered(self, start: int, extent: int, end: int) -> range:
        stop = start + extent
        if start % self.blocksize or (stop % self.blocksize and stop != end) or not 0 <= start < stop <= end:
            raise ValueError(
                f"{start} to {stop} of {end} px does not consist of whole blocks of {self.blocksize}"
            )
        return range(start // self.blocksize, -(-stop // self.blocksize))


class Scratch:
    """Blocks, lightly compressed, in a file that GDAL reads as a GeoTIFF and we write ourselves.

    GDAL creates the file and encodes the blocks; each is appended, and its offset entered in the file's index
    last of all: whenever the process is killed, the file is whole but for blocks that are not in it. A
    surviving file can be opened again and completed.

    Args:
        path: An existing scratch file.
        layout: The one it was created with.

    Raises:
        OutputError: It is not the scratch file of this layout.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self._offsets, self._sizes = _index(path, layout)
        self._file = path.open("r+b", buffering=0)  # unbuffered: closing it writes nothing
        self._end = self._file.seek(0, os.SEEK_END)

    @classmethod
    def create(cls, path: Path, layout: Layout, crs: CRS | None, transform: Affine) -> Scratch:
        """Create the file without blocks, which read as zeros.

        Raises:
            OutputError: It cannot be written there.
        """
        shape = {"height": layout.shape[0], "width": layout.shape[1]}
        place = {"crs": crs, "transform": transform}
        with os_faults(f"cannot write {path}", path.absolute().parent):
            path.unlink(missing_ok=True)  # GDAL opens what it is to replace, and may fail to
            rasterio.open(
                path, "w", driver="GTiff", **_profile(layout), **shape, **place, sparse_ok=True
            ).close()
            _add_index(path, layout)
            return cls(path, layout)

    def write(self, span: Span, pixels: Pixels) -> None:
        """Write ``(C, h, w)`` pixels of whole blocks."""
        rows, cols = self.layout.grid
        blocks = list(self.layout.blocks(span))
        encoded = _encode(pixels, self.layout)
        self._put(self._end, b"".join(encoded))
        places = (
            (band * rows + row) * cols + col for band in range(self.layout.count) for row, col in blocks
        )
        for number, content in zip(places, encoded, strict=True):
            self._put(self._offsets + _WORD.size * number, _WORD.pack(self._end))
            self._put(self._sizes + _WORD.size * number, _WORD.pack(len(content)))
            self._end += len(content)

    def sync(self) -> None:
        """Wait until all written blocks would survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def _put(self, offset: int, content: bytes) -> None:
        self._file.seek(offset)
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]


def _profile(layout: Layout) -> dict[str, Any]:
    """Return the profile: a BigTIFF, band after band, with a fast compression."""
    return {
        **{"count": layout.count, "dtype": layout.dtype.name, "interleave": "band"},
        **{"tiled": True, "blockxsize": layout.blocksize, "blockysize": layout.blocksize},
        **{"compress": "zstd", "zstd_level": 1, "predictor": predictor_of(layout.dtype)},
        **{"bigtiff": "yes", "endianness": "little"},
    }


def predictor_of(dtype: np.dtype[Any]) -> int:
    """Return GDAL's predictor for images of this type."""
    return 3 if dtype.kind == "f" else 2


def as_geotiff(pixels: Pixels, profile: dict[str, Any]) -> bytes:
    """Encode ``(C, h, w)`` pixels as a file.

    Its transform is made up, as rasterio warns without one.
    """
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with MemoryFile() as memory:
        with memory.open(**{**profile, **shape}, driver="GTiff", transform=Affine.scale(2)) as dataset:
            dataset.write(pixels)
        return bytes(memory.getbuffer())


def _encode(pixels: Pixels, layout: Layout) -> list[bytes]:
    """Encode ``(C, h, w)`` pixels as GDAL's blocks, band after band.

    Edges are padded with zeros.
    """
    height, width = pixels.shape[1:]
    padding = (-height % layout.blocksize, -width % layout.blocksize)
    if any(padding):
        pixels = np.pad(pixels, ((0, 0), (0, padding[0]), (0, padding[1])))
    file = as_geotiff(pixels, _profile(layout))
    offsets, sizes = (_numbers(file, tag) for tag in (_OFFSETS, _SIZES))
    return [file[first : first + extent] for first, extent in zip(offsets, sizes, strict=True)]


def _add_index(path: Path, layout: Layout) -> None:
    """Add an index with room for 64-bit offsets of all blocks.

    GDAL's own has room for existing ones only.
    """
    blocks = _blocks_of(layout)
    with path.open("r+b") as file:
        head = file.read()
        for tag in (_OFFSETS, _SIZES):
            entry = _entry(head, tag)
            where = entry + _VALUE if blocks == 1 else file.seek(0, os.SEEK_END)
            file.seek(where)
            file.write(bytes(_WORD.size * blocks))
            file.seek(entry)
            file.write(_ENTRY.pack(tag, _LONG8, blocks, 0 if blocks == 1 else where))


def _index(path: Path, layout: Layout) -> tuple[int, int]:
    """Return the offsets of the index's table of block offsets and of that of their sizes, bytes."""
    mismatch = OutputError(f"{path} is not a scratch file of {layout}: remove it")
    profile = _profile(layout)
    try:
        with rasterio.open(path) as dataset:
            existing = (dataset.shape, dataset.count, dataset.dtypes[0], *dataset.block_shapes[0])
    except RasterioError as error:
        raise mismatch from error
    if existing != (layout.shape, layout.count, profile["dtype"], layout.blocksize, layout.blocksize):
        raise mismatch
    with path.open("rb") as file:
        directory = file.read(_HEAD)
    offsets = []
    for tag in (_OFFSETS, _SIZES):
        try:
            entry = _entry(directory, tag)
        except ValueError:
            raise mismatch from None
        _, kind, count, offset = _ENTRY.unpack_from(directory, entry)
        if (kind, count) != (_LONG8, _blocks_of(layout)):
            raise mismatch
        offsets.append(entry + _VALUE if count == 1 else offset)
    if path.stat().st_size < max(offsets) + _WORD.size * _blocks_of(layout):
        raise mismatch
    return offsets[0], offsets[1]


def _entry(content: bytes, tag: int) -> int:
    """Return the offset of a tag's entry in a little-endian BigTIFF, bytes.

    Raises:
        ValueError: It has no such tag, or is no such file.
    """
    if content[:4] == b"II+\0":
        (directory,) = _WORD.unpack_from(content, 8)
        (count,) = _WORD.unpack_from(content, directory)
        for entry in range(directory + 8, directory + 8 + _ENTRY.size * count, _ENTRY.size):
            if _ENTRY.unpack_from(content, entry)[0] == tag:
                return entry
    raise ValueError(f"no tag {tag}")


def _numbers(content: bytes, tag: int) -> list[int]:
    """Return the values of a tag of whole numbers."""
    entry = _entry(content, tag)
    _, kind, count, where = _ENTRY.unpack_from(content, entry)
    dtype = np.dtype({3: "<u2", 4: "<u4", _LONG8: "<u8"}[kind])
    first = entry + _VALUE if count * dtype.itemsize <= _WORD.size else where
    return [int(value) for value in np.frombuffer(content, dtype, count, first)]


def _blocks_of(layout: Layout) -> int:
    rows, cols = layout.grid
    return rows * cols * layout.count
