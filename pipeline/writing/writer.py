"""Write a scene: blocks in any order, then a cloud-optimised GeoTIFF, whole or not at all.

Blocks go to a scratch file beside the target: a lightly compressed GeoTIFF to which a block is added with a
few plain writes, so that written blocks survive the process. After the last block the COG driver copies it
once, with overviews, under a hidden name, and only the finished file takes the target's name. After a failure
nothing is left, unless the run has a guard: then finished windows are kept in hidden files, for the same run
to continue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.defaults import BLOCKSIZE, COMPRESSIONS
from decr_scene.pipeline.errors import DiskSpaceError, OptionError, OutputError
from decr_scene.pipeline.files import (
    PARTS,
    SIDECARS,
    UNFINISHED,
    check_target,
    journal_path,
    lock_path,
    os_faults,
    part_path,
    size_in_words,
    sync_to_disk,
    with_ending,
)
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.alpha import keep_premultiplied
from decr_scene.pipeline.writing.cog import write_cog
from decr_scene.pipeline.writing.journal import Entry, Guard, Journal, checksum
from decr_scene.pipeline.writing.origin import Origin
from decr_scene.pipeline.writing.scratch import Layout, Scratch
from decr_scene.pipeline.writing.statistics import BandStatistics

_LEFTOVERS = ("", *SIDECARS, ".ovr.tmp", ".msk.ovr.tmp")


class SceneWriter:
    """Write a scene's pixels, changed or not, with everything else that the scene has.

    A context manager: leaving it finishes the file, unless an exception is on its way.

    Args:
        origin: Source of everything but the pixels.
        path: The output, ``.tif``; its folder must exist.
        compress: ``auto``: as the scene, where that is lossless, else deflate; or deflate, zstd, lzw, lzma,
            none.
        blocksize: Side of the output's blocks and of the windows written, px; a multiple of 16.
        overwrite: Replace an output that exists.
        resampling: Of the overviews; bands with a colour table get ``nearest``.
        guard: Identifies the run: with it, finished windows survive a failure or a kill, and a writer
            with the same guard continues (`finished`).
        resume: Whether to continue, or to begin anew.

    Raises:
        OutputExistsError: There is an output already.
        ResumeError: An unfinished output of another run is there, or another run is writing it.
        DiskSpaceError: Too little free disk; with a guard, `WritersTogether` checks.
        OutputError: The folder is missing or not writable, or the output is a file of the input.
        SceneError: A GeoTIFF cannot represent the scene.
    """

    def __init__(
        self,
        origin: Origin,
        path: str | os.PathLike[str],
        compress: str = "auto",
        blocksize: int = BLOCKSIZE,
        overwrite: bool = False,
        resampling: str = "average",
        guard: Guard | None = None,
        resume: bool = True,
    ) -> None:
        if compress not in COMPRESSIONS:
            raise OptionError(f"compress must be one of {', '.join(COMPRESSIONS)}, got {compress!r}")
        self.origin = origin
        self.path = Path(path)
        self.layout = Layout(origin.shape, origin.count, np.dtype(origin.dtype), blocksize)
        self.finished: dict[Span, Entry] = {}
        self.guard, self.resume = guard, resume
        self._blocks: set[tuple[int, int]] = set()
        self._compress, self._overwrite, self._resampling = compress, overwrite, resampling
        self._lock = threading.Lock()
        self._env = contextlib.ExitStack()
        self._token = uuid.uuid4().hex[:8]
        self.journal: Journal | None = None
        self._check()

    def __enter__(self) -> SceneWriter:
        self._env.enter_context(self.origin.env())
        try:
            if self.guard is not None:
                fresh = not self.resume or not self._hidden("scratch").exists()
                self.journal = Journal(journal_path(self.path), self.guard, fresh)
                self.finished = self.journal.finished
            self._open_scratch()
        except BaseException:
            if self.guard is None or self.journal is not None:
                self.clean_up(keep=bool(self.finished))  # of an interrupted run
            else:  # existing files are another run's, which may be writing
                self._env.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        succeeded = False
        try:
            self.close_scratch()
            if kind is None:
                self.make()
                self.publish()
                succeeded = True
        finally:
            self.clean_up(keep=not succeeded and self.journal is not None and bool(self.finished))

    def enter_whole(self) -> None:
        """Enter with a file that is finished and has its name.

        Only the journal is opened.
        """
        assert self.guard is not None, "a journal needs one"
        self._env.enter_context(self.origin.env())
        try:
            self.journal = Journal(journal_path(self.path), self.guard)
            self.finished = self.journal.finished
        except BaseException:
            self._env.close()
            raise

    def write(self, span: Span, pixels: Pixels) -> None:
        """Write one or more whole blocks.

        Args:
            span: Its edges are edges of blocks or of the scene; no block twice.
            pixels: ``(C, h, w)`` in the scene's dtype.

        Raises:
            OutputError: The disk is full or fails.
            ValueError: The span is not made of new whole blocks, or the pixels do not fit it.
        """
        expected = (self.layout.count, span.height, span.width)
        if pixels.shape != expected or pixels.dtype != self.layout.dtype:
            got = f"{pixels.shape} of {pixels.dtype}"
            raise ValueError(f"pixels must be {expected} of {self.layout.dtype}, got {got}")
        statistics = self._measure(span, pixels)
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            blocks = set(self.layout.blocks(span))
            if repeated := self._blocks & blocks:
                raise ValueError(f"block {min(repeated)} is written already")
            self._scratch.write(span, pixels)
            self._blocks |= blocks
            entry = Entry.of(pixels, tuple(statistics))
            self.finished[span] = entry
            if self.journal is not None:
                self.journal.add(span, entry)

    def _measure(self, span: Span, pixels: Pixels) -> list[BandStatistics]:
        valid = self.origin.valid(span, pixels)
        if valid is None:
            return [BandStatistics.of(band) for band in pixels]
        return [BandStatistics.of(band, ok) for band, ok in zip(pixels, valid, strict=True)]

    def _check(self) -> None:
        check_target(self.origin.source, self.path, self._overwrite)
        self.origin.check(self.path)
        if self.guard is None:  # with one, several writers share the disk
            check_disk(self.path.absolute().parent, self.bytes_left)

    @property
    def bytes_left(self) -> int:
        """Return the bytes of the raw scene, without those in the scratch file of an interrupted run."""
        written = 0 if self.guard is None else size_on_disk(self._hidden("scratch"))
        return self.layout.raw_bytes - written

    def sync(self) -> None:
        """Wait until written blocks and their journal would survive a power cut."""
        with self._lock, os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            self._scratch.sync()
            if self.journal is not None:
                self.journal.sync()

    def close_scratch(self) -> None:
        """Close the scratch file.

        No more blocks can be written.
        """
        self._scratch.close()

    def make(self) -> Path:
        """Make the finished file under a hidden name, and return that.

        Raises:
            OutputError: Blocks are missing; the disk is full or fails.
        """
        rows, cols = self.layout.grid
        if count := rows * cols - len(self._blocks):
            raise OutputError(f"{self.path}: {count} of {rows * cols} blocks were never written")
        cog, statistics = self._hidden("cog"), [band.tags() for band in self._statistics()]
        with os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            write_cog(
                *self.origin.vrt(
                    str(self._scratch.path), self.layout.blocksize, statistics, self._resampling.upper()
                ),
                cog,
                self.origin.compression(self._compress),
                self.layout.blocksize,
                self._resampling.upper(),
            )
            if self.origin.source is not None:
                keep_premultiplied(self.origin.source, cog)
        return cog

    def _statistics(self) -> tuple[BandStatistics, ...]:
        """Add up the statistics of all windows in order of place: the sums do not depend on a resume."""
        total = (BandStatistics(),) * self.layout.count
        for _, entry in sorted(self.finished.items()):
            total = tuple(a + b for a, b in zip(total, entry.statistics, strict=True))
        return total

    def _open_scratch(self) -> None:
        """Create the scratch file, or open the existing one and check which windows of it are whole."""
        path = self._hidden("scratch")
        if self.journal is not None and self.finished:
            try:
                self._scratch = Scratch(path, self.layout)
            except OutputError:  # after a power cut it may be damaged
                self.journal.keep(lambda span, entry: False)
            else:
                try:
                    with rasterio.open(path) as written:
                        self.journal.keep(lambda span, entry: _is_whole(written, span, entry))
                except BaseException:  # it stays for the next call
                    self._scratch.close()
                    raise
                if not self.journal.finished:
                    self._scratch.close()
            self.finished = self.journal.finished
            self._blocks = {block for span in self.finished for block in self.layout.blocks(span)}
        if not self.finished:
            self._scratch = Scratch.create(path, self.layout, *self.origin.place)

    def publish(self) -> None:
        """Give the finished file its name, and its sidecar (attribute tables) too."""
        with os_faults(f"cannot write {self.path}", self.path.absolute().parent):
            check_target(None, self.path, self._overwrite)
            for suffix in SIDECARS:
                with_ending(self.path, suffix).unlink(missing_ok=True)
            os.replace(self._hidden("cog"), self.path)
            self.publish_sidecar()
            sync_to_disk(self.path.absolute().parent)

    def publish_sidecar(self) -> None:
        """Give the sidecar of the finished file its name, if it has a hidden one."""
        sidecar = with_ending(self._hidden("cog"), ".aux.xml")
        if sidecar.exists():
            os.replace(sidecar, with_ending(self.path, ".aux.xml"))

    def _hidden(self, role: str) -> Path:
        return part_path(self.path, self._token if self.guard is None else UNFINISHED, role)

    def remove_parts(self, except_roles: tuple[str, ...] = ()) -> None:
        """Remove the hidden files of the output, but for some roles."""
        for role in PARTS:
            for suffix in _LEFTOVERS if role not in except_roles else ():
                with_ending(self._hidden(role), suffix).unlink(missing_ok=True)

    def clean_up(self, keep: bool = False) -> None:
        """Close everything, and remove it unless ``keep`` is true."""
        self.remove_parts(except_roles=("scratch",) if keep else ())
        if self.journal is not None:
            self.journal.close(keep)
        elif self.guard is not None and not keep:
            journal_path(self.path).unlink(missing_ok=True)
            lock_path(journal_path(self.path)).unlink(missing_ok=True)
        self._env.close()


def check_disk(folder: Path, raw: int, tiles: int = 0) -> None:
    """Refuse a disk without room for scratch file and output of noise, which does not compress.

    Args:
        folder: Of the output.
        raw: Bytes of the pixels.
        tiles: Bytes of finished tiles.

    Raises:
        DiskSpaceError: There is too little room.
    """
    needed, free = raw + raw // 3 + raw + tiles, shutil.disk_usage(folder).free
    if free < needed:
        for_tiles = f", finished tiles {size_in_words(tiles)}" if tiles else ""
        raise DiskSpaceError(
            f"{folder} has {size_in_words(free)} free, expected {size_in_words(needed)} "
            f"(scratch {size_in_words(raw)}, overviews {size_in_words(raw // 3)}, output up to "
            f"{size_in_words(raw)}{for_tiles}): free some, or write to another disk"
        )


def size_on_disk(path: Path) -> int:
    """Return the bytes that a file takes on disk, 0 if it is missing."""
    return path.stat().st_blocks * 512 if path.exists() else 0


def _is_whole(dataset: Any, span: Span, entry: Entry) -> bool:
    """Return whether the pixels of a window have reached the disk."""
    try:
        return checksum(dataset.read(window=span.window)) == entry.crc
    except RasterioError:
        return False
