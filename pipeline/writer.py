"""A scene out: blocks as they come, in any order, then a cloud-optimised GeoTIFF, whole or not at all.

Blocks go to a scratch file beside the target: a plain uncompressed GeoTIFF whose tiles have their places from
the start, so a block is a few plain writes, and what is written survives the process, in whatever order it
came. When the last block is in, the COG driver copies it once, with overviews, under a hidden name, and only
the finished file takes the target's name. Whatever goes wrong, nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises, under no public name
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import DiskSpaceError, OutputError, OutputExistsError
from decr_scene.pipeline.metadata import (
    COMPRESSIONS,
    NewBands,
    check_representable,
    cog_options,
    copy_vrt,
    new_vrt,
    release_band_tags,
    verify_roundtrip,
)
from decr_scene.pipeline.scene import RasterioScene, Scene, gdal_env
from decr_scene.pipeline.stats import BandStatistics

Pixels = NDArray[Any]
Bool = NDArray[np.bool_]

_SIDECARS = (".aux.xml", ".ovr", ".msk")
_COG_CONFIG = {"GDAL_CACHEMAX": 32 << 20, "COG_TMP_COMPRESSION": "NONE"}
_LEFTOVERS = ("", *_SIDECARS, ".ovr.tmp", ".msk.ovr.tmp")

__all__ = ["Companion", "Layout", "SceneWriter", "Scratch", "check_target", "verify_roundtrip"]


@dataclass(frozen=True)
class Companion:
    """What is written beside a scene, pixel for pixel: other bands of another dtype in the same place.

    Args:
        scene: The scene, for its size and georeferencing: CRS, transform, GCPs, RPCs.
        bands: Descriptions of the new bands.
        dtype: Of all of them.
        nodata: Of all of them.
        tags: For the default domain.
    """

    scene: Scene
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None = None
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``, px."""
        return self.scene.shape

    @property
    def count(self) -> int:
        """New bands."""
        return len(self.bands)


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
            raise ValueError(f"blocksize must be a positive multiple of 16, got {self.blocksize}")

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
            raise ValueError(f"{start} to {stop} of {end} px does not consist of whole blocks of {self.blocksize}")
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
        with _telling(f"cannot write {path}", path.absolute().parent):
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
            self._file.write(tile)
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()


class SceneWriter:
    """Write a scene's pixels, changed or not, with everything else that the scene has.

    A context manager: leaving it finishes the file, unless an exception is on its way.

    Args:
        scene: Where everything but the pixels comes from; or a `Companion` of it.
        path: The output, ``.tif``; its folder must exist.
        compress: ``auto``: as the scene, where that is lossless, else deflate; or deflate, zstd, lzw, lzma,
            none.
        blocksize: Side of the output's blocks and of the windows written, px; a multiple of 16.
        overwrite: Replace an output that exists.
        resampling: Of the overviews; bands with a colour table get ``nearest``.

    Raises:
        OutputExistsError: There is an output already.
        DiskSpaceError: Too little free disk.
        OutputError: The folder is missing or not writable, or the output is a file of the input.
        SceneError: The scene has something that a GeoTIFF cannot say.
    """

    def __init__(
        self,
        scene: Scene | Companion,
        path: str | os.PathLike[str],
        compress: str = "auto",
        blocksize: int = 512,
        overwrite: bool = False,
        resampling: str = "average",
    ) -> None:
        if compress not in COMPRESSIONS:
            raise ValueError(f"compress must be one of {', '.join(COMPRESSIONS)}, got {compress!r}")
        self.scene = scene
        self.path = Path(path)
        self.layout = Layout(scene.shape, scene.count, np.dtype(scene.dtype), blocksize)
        self.finished: set[tuple[int, int]] = set()
        self._compress, self._overwrite, self._resampling = compress, overwrite, resampling
        self._statistics = (BandStatistics(),) * scene.count
        self._lock = threading.Lock()
        self._check()

    def __enter__(self) -> SceneWriter:
        self._env = contextlib.ExitStack()
        origin = self.scene.scene if isinstance(self.scene, Companion) else self.scene
        self._env.enter_context(gdal_env(origin if isinstance(origin, RasterioScene) else None))
        self._token = uuid.uuid4().hex[:8]
        try:
            self._scratch = Scratch.create(self._hidden("scratch"), self.layout, origin.crs, origin.transform)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._scratch.close()
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def write(self, window: Window, pixels: Pixels) -> None:
        """Write one or more whole blocks.

        Args:
            window: Its edges are edges of blocks or of the scene; no block twice.
            pixels: ``(C, h, w)`` in the scene's dtype.

        Raises:
            OutputError: The disk is full or fails.
            ValueError: The window is not made of new whole blocks, or the pixels do not fit it.
        """
        expected = (self.layout.count, window.height, window.width)
        if pixels.shape != expected or pixels.dtype != self.layout.dtype:
            found = f"{pixels.shape} of {pixels.dtype}"
            raise ValueError(f"pixels must be {expected} of {self.layout.dtype}, got {found}")
        statistics = self._measure(window, pixels)
        with self._lock, _telling(f"cannot write {self.path}", self.path.absolute().parent):
            blocks = list(self.layout.blocks(window))
            if twice := self.finished.intersection(blocks):
                raise ValueError(f"block {min(twice)} is written already")
            for row, col in blocks:
                self._scratch.write((row, col), _part(pixels, window, row, col, self.layout.blocksize))
            self.finished.update(blocks)
            self._statistics = tuple(a + b for a, b in zip(self._statistics, statistics, strict=True))

    def _measure(self, window: Window, pixels: Pixels) -> list[BandStatistics]:
        valid = self._valid(window, pixels)
        if valid is None:
            return [BandStatistics.of(band) for band in pixels]
        return [BandStatistics.of(band, ok) for band, ok in zip(pixels, valid, strict=True)]

    def _valid(self, window: Window, pixels: Pixels) -> Bool | None:
        """What counts in the statistics; ``None``: all."""
        if isinstance(self.scene, RasterioScene):
            return None if self.scene.always_valid else self.scene.valid(window, pixels)
        valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else None
        if self.scene.nodata is None or np.isnan(self.scene.nodata):
            return valid
        differs = pixels != self.scene.nodata
        return differs if valid is None else valid & differs

    def _check(self) -> None:
        source = self.scene.path if isinstance(self.scene, RasterioScene) else None
        check_target(source, self.path, self._overwrite)
        if isinstance(self.scene, RasterioScene):
            with self.scene.dataset() as dataset:
                check_representable(dataset)
                if any(_same_file(name, self.path) for name in dataset.files):
                    raise OutputError(f"{self.path} is a file of the input: choose another name for the output")
        _check_disk(self.path.absolute().parent, self.layout.raw_bytes)

    def _finish(self) -> None:
        rows, cols = self.layout.grid
        if missing := rows * cols - len(self.finished):
            raise OutputError(f"{self.path}: {missing} of {rows * cols} blocks were never written")
        whole = self._hidden("cog")
        with _telling(f"cannot write {self.path}", self.path.absolute().parent):
            text, marked = self._describe()
            with rasterio.Env(**_COG_CONFIG), rasterio.open(text) as vrt:
                rasterio.shutil.copy(vrt, whole, driver="COG", **self._options(vrt))
            release_band_tags(str(whole), marked)
            _sync(whole)
            self._publish(whole)

    def _describe(self) -> tuple[str, int]:
        """The output as a VRT over the scratch file."""
        pixels, size = str(self._scratch.path), self.layout.blocksize
        statistics = [band.tags() for band in self._statistics]
        if isinstance(self.scene, RasterioScene):
            with self.scene.dataset() as dataset:
                return copy_vrt(dataset, pixels, size, statistics, self._resampling.upper())
        bands = NewBands(self.scene.bands, self.layout.dtype.name, self.scene.nodata)
        if isinstance(self.scene, Companion) and isinstance(self.scene.scene, RasterioScene):
            with self.scene.scene.dataset() as dataset:
                return new_vrt(dataset, bands, dict(self.scene.tags), pixels, size, statistics)
        with rasterio.open(pixels) as dataset:
            return new_vrt(dataset, bands, {}, pixels, size, statistics)

    def _options(self, vrt: Any) -> dict[str, str]:
        indexed = any(colour.name == "palette" for colour in vrt.colorinterp)
        return {
            **cog_options(self._compress, self._stored_compression(), indexed),
            "BLOCKSIZE": str(self.layout.blocksize),
            "OVERVIEW_RESAMPLING": "NEAREST" if indexed else self._resampling.upper(),
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": "ALL_CPUS",
            "COPY_SRC_MDD": "YES",
        }

    def _stored_compression(self) -> str:
        if not isinstance(self.scene, RasterioScene):
            return "DEFLATE"
        with self.scene.dataset() as dataset:
            return str(dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", ""))

    def _publish(self, whole: Path) -> None:
        """Give the finished file its name; what GDAL had to put beside it (attribute tables) goes along."""
        check_target(None, self.path, self._overwrite)
        for suffix in _SIDECARS:
            _beside(self.path, suffix).unlink(missing_ok=True)
        os.replace(whole, self.path)
        if _beside(whole, ".aux.xml").exists():
            os.replace(_beside(whole, ".aux.xml"), _beside(self.path, ".aux.xml"))
        _sync(self.path.absolute().parent)

    def _hidden(self, role: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{self._token}.{role}.partial.tif")

    def _clean_up(self) -> None:
        for role in ("scratch", "cog"):
            for suffix in _LEFTOVERS:
                _beside(self._hidden(role), suffix).unlink(missing_ok=True)
        self._env.close()


def check_target(source: str | os.PathLike[str] | None, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse an output before any work is done.

    Args:
        source: The input, if it is a file.
        path: The output.
        overwrite: Whether an output that exists may be replaced.

    Raises:
        OutputExistsError: It exists, or a file that GDAL would take for a part of it.
        OutputError: Its folder is missing or not writable; it is a directory; it is the input.
    """
    path = Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder to write {path.name} to: make it first")
    if path.is_dir():
        raise OutputError(f"{path} is a directory, expected the name of a file: add one")
    if source is not None and _same_file(source, path):
        raise OutputError(f"{path} is the input itself: choose another name for the output")
    found = [p for p in (_beside(path, suffix) for suffix in ("", *_SIDECARS)) if os.path.lexists(p)]
    if found and not overwrite:
        raise OutputExistsError(f"{found[0]} exists: choose another name, or replace it with --overwrite")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} is not writable: choose another folder, or change its permissions")


def _check_disk(folder: Path, raw: int) -> None:
    """Scratch file, overviews on their way, and an output that compresses to no less than its overviews add."""
    needed, free = raw + raw // 3 + raw, shutil.disk_usage(folder).free
    if free < needed:
        raise DiskSpaceError(
            f"{folder} has {_giga(free)} free, expected {_giga(needed)} (scratch {_giga(raw)}, overviews "
            f"{_giga(raw // 3)}, output up to {_giga(raw)}): free some, or write to another disk"
        )


def _first_block(path: Path, layout: Layout) -> int:
    """Byte offset of the first block, once it is sure that the others follow in order."""
    rows, cols = layout.grid
    with rasterio.open(path) as dataset:
        places = [
            dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
            for row, col, band in ((0, 0, 1), (rows - 1, cols - 1, layout.count))
        ]
    distance = (layout.count * rows * cols - 1) * layout.block_bytes
    if None in places or int(places[1]) - int(places[0]) != distance:
        raise OutputError(f"{path} is not a scratch file of {layout}: remove it")
    return int(places[0])


def _part(pixels: Pixels, window: Window, row: int, col: int, size: int) -> Pixels:
    top, left = row * size - window.row_off, col * size - window.col_off
    return pixels[:, top : top + size, left : left + size]


@contextlib.contextmanager
def _telling(what: str, folder: Path) -> Iterator[None]:
    """Tell what the system or GDAL has to say as our own error; our own errors pass."""
    try:
        yield
    except DecrSceneError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        free = _giga(shutil.disk_usage(folder).free)
        raise OutputError(f"{what} ({reason}; {free} free): check the disk, then run again") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _same_file(one: str | os.PathLike[str], other: Path) -> bool:
    return os.path.exists(one) and other.exists() and os.path.samefile(one, other)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _giga(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
