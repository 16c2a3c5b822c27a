"""Blocks on their way: an uncompressed file that GDAL reads as a GeoTIFF and that we fill in any order."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises, under no public name
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OptionError, OutputError

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Square blocks over a raster, the last ones cut by its edges.

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
        if self.blocksize < 16 or self.blocksize % 16:
            raise OptionError(f"blocksize must be a positive multiple of 16, got {self.blocksize}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.shape[0] // self.blocksize), -(-self.shape[1] // self.blocksize)

    @property
    def block_bytes(self) -> int:
        """Of a whole block of one band."""
        return self.blocksize**2 * self.dtype.itemsize

    @property
    def raw_bytes(self) -> int:
        """Of all pixels."""
        return self.shape[0] * self.shape[1] * self.count * self.dtype.itemsize

    def blocks(self, window: Window) -> Iterator[tuple[int, int]]:
        """(row, column) of the blocks that a window covers.

        Raises:
            ValueError: It does not cover them whole, or reaches beyond the raster.
        """
        rows = self._covered(window.row_off, window.height, self.shape[0])
        cols = self._covered(window.col_off, window.width, self.shape[1])
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
    """Uncompressed blocks in a file that GDAL reads as a GeoTIFF and we write ourselves.

    GDAL lays the file out, band after band, all blocks in their places; a block is then written to its place.
    A scratch file that survived can be opened again and filled up.

    Args:
        path: An existing scratch file.
        layout: What it was created with.

    Raises:
        OutputError: It is not the scratch file of this layout.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self._first = _first_block(path, layout)
        self._file: BinaryIO = path.open("r+b")

    @classmethod
    def create(cls, path: Path, layout: Layout, crs: CRS | None, transform: Affine) -> Scratch:
        """Make the file, full of zeros (a sparse one, where the file system has such).

        Raises:
            OutputError: It cannot be written there.
        """
        profile = {
            **{"driver": "GTiff", "height": layout.shape[0], "width": layout.shape[1], "count": layout.count},
            **{"dtype": layout.dtype.name, "tiled": True, "interleave": "band", "bigtiff": "IF_SAFER"},
            **{"blockxsize": layout.blocksize, "blockysize": layout.blocksize},
        }
        with telling(f"cannot write {path}", path.absolute().parent):
            rasterio.open(path, "w", **profile, crs=crs, transform=transform).close()
            return cls(path, layout)

    def write(self, block: tuple[int, int], pixels: Pixels) -> None:
        """Put ``(C, h, w)`` pixels of one block in place."""
        height, width = pixels.shape[1:]
        size = self.layout.blocksize
        rows, cols = self.layout.grid
        tile = np.zeros((size, size), self.layout.dtype)
        for band, values in enumerate(pixels):
            tile[:height, :width] = values
            number = (band * rows + block[0]) * cols + block[1]
            self._file.seek(self._first + number * self.layout.block_bytes)
            self._file.write(tile.data)
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()


@contextlib.contextmanager
def telling(what: str, folder: Path) -> Iterator[None]:
    """Tell what the system or GDAL has to say as our own error; our own errors pass.

    Args:
        what: What cannot be done.
        folder: Where, for the free disk.

    Raises:
        OutputError: Instead of what was raised.
    """
    try:
        yield
    except DecrSceneError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        free = giga(shutil.disk_usage(folder).free)
        raise OutputError(f"{what} ({reason}; {free} free): check the disk, then run again") from error


def _first_block(path: Path, layout: Layout) -> int:
    """Byte offset of the first block, once it is sure that the others follow in order."""
    rows, cols = layout.grid
    with rasterio.open(path) as dataset:
        fits = (dataset.shape, dataset.count) == (layout.shape, layout.count)
        places = [
            dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
            for row, col, band in ((0, 0, 1), (rows - 1, cols - 1, layout.count))
            if fits
        ]
    distance = (layout.count * rows * cols - 1) * layout.block_bytes
    if not fits or None in places or int(places[1]) - int(places[0]) != distance:
        raise OutputError(f"{path} is not a scratch file of {layout}: remove it")
    return int(places[0])


def giga(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB"
