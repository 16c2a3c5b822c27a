"""A scene out: blocks as they come, in any order, then a cloud-optimised GeoTIFF, whole or not at all.

Blocks go to a scratch file beside the target: a lightly compressed GeoTIFF to which a block is added with a
few plain writes, so what is written survives the process, in whatever order it came. When the last block is
in, the COG driver copies it once, with overviews, under a hidden name, and only the finished file takes the
target's name. Whatever goes wrong, nothing is left, unless the run has said what it is: then what is finished
is kept, out of sight, for the same run to go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.pipeline.arrays import Bool, Pixels
from decr_scene.pipeline.errors import DiskSpaceError, OptionError, OutputError
from decr_scene.pipeline.files import (
    PARTS,
    SIDECARS,
    UNFINISHED,
    check_target,
    gigabytes,
    is_same_file,
    journal_path,
    os_faults,
    part_path,
    sync_to_disk,
    with_ending,
)
from decr_scene.pipeline.raster.nodata import is_nodata
from decr_scene.pipeline.raster.scene import RasterioScene, Scene, gdal_env
from decr_scene.pipeline.raster.vrt import NewBands, check_representable, copy_vrt, new_vrt
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.alpha import keep_premultiplied
from decr_scene.pipeline.writing.cog import COMPRESSIONS, has_palette, lossless, write_cog
from decr_scene.pipeline.writing.journal import Entry, Guard, Journal, checksum
from decr_scene.pipeline.writing.scratch import Layout, Scratch
from decr_scene.pipeline.writing.statistics import BandStatistics
from decr_scene.pipeline.writing.tile_store import TileStore

_LEFTOVERS = ("", *SIDECARS, ".ovr.tmp", ".msk.ovr.tmp")


@dataclass(frozen=True)
class Companion:
    """What is written beside a scene, pixel for pixel: other bands of another dtype in the same place.

    Args:
        scene: The scene, for its size and georeferencing: CRS, transform, GCPs, RPCs.
        bands: Descriptions of the new bands.
        dtype: Of all of them.
        nodata: Of all of them.
        tags: For the default domain.
        colors: Colour table of a single band of classes: ``(red, green, blue, alpha)`` of 0, 1, ...
    """

    scene: Scene
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None = None
    tags: tuple[tuple[str, str], ...] = ()
    colors: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``, px."""
        return self.scene.shape

    @property
    def count(self) -> int:
        """New bands."""
        return len(self.bands)


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
        guard: What the run is: with it, what is finished survives a failure or a kill, and a writer with the
            same guard goes on from there (`finished`).
        resume: Whether to go on, or to begin anew.

    Raises:
        OutputExistsError: There is an output already.
        ResumeError: An unfinished output of another run is there, or another run is at it.
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
        guard: Guard | None = None,
        resume: bool = True,
    ) -> None:
        if compress not in COMPRESSIONS:
            raise OptionError(f"compress must be one of {', '.join(COMPRESSIONS)}, got {compress!r}")
        self.scene = scene
        self.path = Path(path)
        self.layout = Layout(scene.shape, scene.count, np.dtype(scene.dtype), blocksize)
        self.finished: dict[Span, Entry] = {}
        self._guard, self._resume = guard, resume
        self._blocks: set[tuple[int, int]] = set()
        self._compress, self._overwrite, self._resampling = compress, overwrite, resampling
        self._lock = threading.Lock()
        self._check()

    def __enter__(self) -> SceneWriter:
        self._env = contextlib.ExitStack()
        origin = self.scene.scene if isinstance(self.scene, Companion) else self.scene
        self._env.enter_context(gdal_env(origin if isinstance(origin, RasterioScene) else None))
        self._token = uuid.uuid4().hex[:8]
        self._journal: Journal | None = None
        try:
            if self._guard is not None:
                fresh = not self._resume or not self._hidden("scratch").exists()
                self._journal = Journal(journal_path(self.path), self._guard, fresh)
                self.finished = self._journal.finished
            self._open_scratch(origin.crs, origin.transform)
        except BaseException:
            self._clean_up(keep=self._journal is None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close([self], finish=kind is None)

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
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            blocks = set(self.layout.blocks(window))
            if twice := self._blocks & blocks:
                raise ValueError(f"block {min(twice)} is written already")
            self._scratch.write(window, pixels)
            self._blocks |= blocks
            span = Span(window.row_off, window.col_off, window.height, window.width)
            entry = Entry.of(pixels, tuple(statistics))
            self.finished[span] = entry
            if self._journal is not None:
                self._journal.add(span, entry)

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
        differs = ~is_nodata(pixels, self.scene.nodata)
        return differs if valid is None else valid & differs

    def _check(self) -> None:
        source = self.scene.path if isinstance(self.scene, RasterioScene) else None
        check_target(source, self.path, self._overwrite)
        if isinstance(self.scene, RasterioScene):
            with self.scene.dataset() as dataset:
                check_representable(dataset)
                if any(is_same_file(name, self.path) for name in dataset.files):
                    raise OutputError(
                        f"{self.path} is a file of the input: choose another name for the output"
                    )
        _check_disk(self.path.absolute().parent, self.bytes_left)

    @property
    def bytes_left(self) -> int:
        """Of the raw scene, without those that an interrupted run has in its scratch file."""
        there = 0 if self._guard is None else _size_on_disk(self._hidden("scratch"))
        return self.layout.raw_bytes - there

    def sync(self) -> None:
        """Wait until what is written, and the journal of it, would survive a power cut."""
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            self._scratch.sync()
            if self._journal is not None:
                self._journal.sync()

    def _make(self) -> None:
        """Make the finished file under its hidden name."""
        rows, cols = self.layout.grid
        if missing := rows * cols - len(self._blocks):
            raise OutputError(f"{self.path}: {missing} of {rows * cols} blocks were never written")
        with os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            write_cog(
                *self._describe(),
                self._hidden("cog"),
                self._compression(),
                self.layout.blocksize,
                self._resampling.upper(),
            )
            if isinstance(self.scene, RasterioScene):
                keep_premultiplied(self.scene.path, self._hidden("cog"))

    def _describe(self) -> tuple[str, int]:
        """The output as a VRT over the scratch file."""
        pixels, size = str(self._scratch.path), self.layout.blocksize
        statistics = [band.tags() for band in self._statistics()]
        if isinstance(self.scene, RasterioScene):
            with self.scene.dataset() as dataset:
                return copy_vrt(dataset, pixels, size, statistics, self._resampling.upper())
        colors = self.scene.colors if isinstance(self.scene, Companion) else ()
        bands = NewBands(self.scene.bands, self.layout.dtype.name, self.scene.nodata, colors)
        if isinstance(self.scene, Companion) and isinstance(self.scene.scene, RasterioScene):
            with self.scene.scene.dataset() as dataset:
                return new_vrt(dataset, bands, dict(self.scene.tags), pixels, size, statistics)
        with rasterio.open(pixels) as dataset:
            return new_vrt(dataset, bands, {}, pixels, size, statistics)

    def _statistics(self) -> tuple[BandStatistics, ...]:
        """Of all windows, added up in the order of their places: resumed or not, the sums are the same."""
        total = (BandStatistics(),) * self.layout.count
        for _, entry in sorted(self.finished.items()):
            total = tuple(a + b for a, b in zip(total, entry.statistics, strict=True))
        return total

    def _open_scratch(self, crs: CRS | None, transform: Affine) -> None:
        """Make the scratch file, or open the one that is there and look which windows of it are whole."""
        path = self._hidden("scratch")
        if self._journal is not None and self.finished:
            try:
                self._scratch = Scratch(path, self.layout)
            except OutputError:  # a power cut has left nothing of it to go on from
                self._journal.keep(lambda span, entry: False)
            else:
                with rasterio.open(path) as written:
                    self._journal.keep(lambda span, entry: _is_whole(written, span, entry))
                if not self._journal.finished:
                    self._scratch.close()
            self.finished = self._journal.finished
            self._blocks = {block for span in self.finished for block in self.layout.blocks(span.window)}
        if not self.finished:
            self._scratch = Scratch.create(path, self.layout, crs, transform)

    def _compression(self) -> dict[str, str]:
        if not isinstance(self.scene, RasterioScene):
            indexed = isinstance(self.scene, Companion) and bool(self.scene.colors)
            return lossless(self._compress, "DEFLATE", indexed)
        with self.scene.dataset() as dataset:
            stored = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
            return lossless(self._compress, stored, has_palette(dataset))

    def _publish(self) -> None:
        """Give the finished file its name; what GDAL had to put beside it (attribute tables) goes along."""
        whole = self._hidden("cog")
        with os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            check_target(None, self.path, self._overwrite)
            for suffix in SIDECARS:
                with_ending(self.path, suffix).unlink(missing_ok=True)
            os.replace(whole, self.path)
            if with_ending(whole, ".aux.xml").exists():
                os.replace(with_ending(whole, ".aux.xml"), with_ending(self.path, ".aux.xml"))
            sync_to_disk(self.path.absolute().parent)

    def _hidden(self, role: str) -> Path:
        return part_path(self.path, self._token if self._guard is None else UNFINISHED, role)

    def _clean_up(self, keep: bool = False) -> None:
        for role in PARTS:
            if keep and role == "scratch":
                continue
            for suffix in _LEFTOVERS:
                with_ending(self._hidden(role), suffix).unlink(missing_ok=True)
        if self._journal is not None:
            if not keep:
                self._journal.path.unlink(missing_ok=True)
            self._journal.close()
        self._env.close()


class WritersTogether:
    """The writers of one run: an output and its companions, of the same windows.

    A context manager. A window is finished where all have it. All files are made before any gets its name,
    and the first one gets its name last: where it is, the others are.

    Args:
        writers: The output's, then those of its companions; not entered yet.
        making: Told of each finished file before it is made, which takes a while.
        tiles: Where finished tiles are kept until their windows are written; ``None``: nowhere.

    Raises:
        DiskSpaceError: Too little free disk for all of them together.
    """

    def __init__(
        self,
        writers: Sequence[SceneWriter],
        making: Callable[[Path], None] = lambda path: None,
        tiles: TileStore | None = None,
    ) -> None:
        self.writers = tuple(writers)
        self.tiles = tiles
        self._making = making
        if tiles is not None:
            tiles.before_forgetting = self._sync
        folder = self.writers[0].path.absolute().parent
        there = 0 if tiles is None else _size_on_disk(tiles.path)
        more = 0 if tiles is None else tiles.bytes_needed - there
        _check_disk(folder, sum(writer.bytes_left for writer in self.writers), more)

    def __enter__(self) -> WritersTogether:
        entered: list[SceneWriter] = []
        try:
            for writer in self.writers:
                writer.__enter__()
                entered.append(writer)
            if self.tiles is not None:
                self.tiles.open()
        except BaseException:
            _close(entered, finish=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self.writers, finish=kind is None, making=self._making, tiles=self.tiles)

    def _sync(self) -> None:
        for writer in self.writers:
            writer.sync()

    @property
    def finished(self) -> frozenset[Span]:
        """Windows that all have."""
        return frozenset.intersection(*(frozenset(writer.finished) for writer in self.writers))

    @property
    def goes_on(self) -> bool:
        """Whether an interrupted run has left anything that is taken."""
        return bool(self.finished) or (self.tiles is not None and len(self.tiles) > 0)

    def write(self, span: Span, *pixels: Pixels) -> None:
        """Write a window, each writer its own ``(C, h, w)`` pixels; one that has it keeps what it has.

        Raises:
            OutputError: As `SceneWriter.write`.
        """
        for writer, own in zip(self.writers, pixels, strict=True):
            if span not in writer.finished:
                writer.write(span.window, own)


def _close(
    writers: Sequence[SceneWriter],
    finish: bool,
    making: Callable[[Path], None] = lambda path: None,
    tiles: TileStore | None = None,
) -> None:
    """Make all files and name them, the first one last; or keep what there is to go on from."""
    done = False
    try:
        for writer in writers:
            writer._scratch.close()
        if finish:
            for writer in writers:
                making(writer.path)
                writer._make()
            for writer in reversed(writers):
                writer._publish()
            done = True
    finally:
        saved = tiles is not None and len(tiles) > 0
        if tiles is not None:
            tiles.close(keep=not done and saved)
        for writer in reversed(writers):
            worth = saved or bool(writer.finished)
            writer._clean_up(keep=not done and writer._journal is not None and worth)


def _check_disk(folder: Path, raw: int, tiles: int = 0) -> None:
    """Room for scratch and output of noise, which nothing compresses; those of images take less."""
    needed, free = raw + raw // 3 + raw + tiles, shutil.disk_usage(folder).free
    if free < needed:
        also = f", finished tiles {gigabytes(tiles)}" if tiles else ""
        raise DiskSpaceError(
            f"{folder} has {gigabytes(free)} free, expected {gigabytes(needed)} (scratch {gigabytes(raw)}, "
            f"overviews {gigabytes(raw // 3)}, output up to {gigabytes(raw)}{also}): free some, or write to "
            "another disk"
        )


def _size_on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _is_whole(written: Any, span: Span, entry: Entry) -> bool:
    """Whether the pixels of a window have reached the disk."""
    try:
        return checksum(written.read(window=span.window)) == entry.crc
    except RasterioError:
        return False
