"""Write the rasters of one run together: all of them or none, until the report is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.journal import FileState, read_finished_rasters
from decr_scene.pipeline.writing.tile_store import TileStore
from decr_scene.pipeline.writing.writer import SceneWriter, check_disk, size_on_disk


class WritersTogether:
    """The writers of one run: an output and its companions, of the same windows.

    A context manager. A window is finished where all have it. All files are made before any gets its name,
    and the first one gets its name last: where it is, the others are (`finish`). The journal stays until the
    ``with`` ends well, so a run that ends in between goes on with what follows (`published`).

    Args:
        writers: The output's, then those of its companions; not entered yet.
        before_making: Called with the path of each file before it is made, which takes a while.
        tiles: Keeps finished tiles until their windows are written; ``None``: they are not kept.

    Attributes:
        published: Whether all files have their names.
        keeps_journal: Whether the journal stays although all went well, for a run that goes on with what
            else there is to write.

    Raises:
        DiskSpaceError: Too little free disk for all of them together.
    """

    def __init__(
        self,
        writers: Sequence[SceneWriter],
        before_making: Callable[[Path], None] = lambda path: None,
        tiles: TileStore | None = None,
    ) -> None:
        self.writers = tuple(writers)
        self.tiles = tiles
        self.published = False
        self.keeps_journal = False
        self._before_making = before_making
        if tiles is not None:
            tiles.before_forgetting = self._sync
        first = self.writers[0]
        earlier = read_finished_rasters(first.path) if first.resume else None
        self._earlier = earlier if earlier is not None and earlier.is_in_place(first.path) else None
        if self._earlier is None:
            folder = first.path.absolute().parent
            tile_bytes = 0 if tiles is None else tiles.bytes_needed - size_on_disk(tiles.path)
            check_disk(folder, sum(writer.bytes_left for writer in self.writers), tile_bytes)

    def __enter__(self) -> WritersTogether:
        self.published = self._enter_whole()
        if self.published:
            return self
        entered: list[SceneWriter] = []
        try:
            for writer in self.writers:
                writer.__enter__()
                entered.append(writer)
        except BaseException:  # existing tiles may be of another run
            self._keep(entered, None)
            raise
        try:
            if self.tiles is not None:
                self.tiles.open()
        except BaseException:
            self._keep(entered, self.tiles)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        succeeded = False
        try:
            if kind is None:
                self.finish()
                succeeded = True
        finally:
            if self.published:
                self.writers[0].clean_up(keep=self.keeps_journal or not succeeded)
            else:
                self._keep(self.writers, self.tiles)

    @property
    def finished(self) -> frozenset[Span]:
        """Return the windows that all writers have."""
        if self.published:
            return frozenset(self.writers[0].finished)
        return frozenset.intersection(*(frozenset(writer.finished) for writer in self.writers))

    @property
    def goes_on(self) -> bool:
        """Return whether windows or tiles of an interrupted run are used."""
        return bool(self.finished) or (self.tiles is not None and len(self.tiles) > 0)

    def write(self, span: Span, *pixels: Pixels) -> None:
        """Write a window, each writer its own ``(C, h, w)`` pixels.

        One that has it keeps what it has.

        Raises:
            OutputError: As `SceneWriter.write`.
        """
        for writer, part in zip(self.writers, pixels, strict=True):
            if span not in writer.finished:
                writer.write(span, part)

    def finish(self, side_files: Sequence[Path] = ()) -> None:
        """Make all files and name them, the first one last.

        Args:
            side_files: The files that the run writes next; a run that continues it may replace them.

        Raises:
            OutputError: Windows are missing; the disk is full or fails.
        """
        if self.published:
            return
        for writer in self.writers:
            writer.close_scratch()
        rasters = {}
        for writer in self.writers:
            self._before_making(writer.path)
            rasters[writer.path.name] = FileState.of(writer.make())
        journal = self.writers[0].journal
        if journal is not None:
            journal.note_whole(rasters, side_files)
        for writer in reversed(self.writers):
            writer.publish()
        self.published = True
        self._remove_parts()

    def _enter_whole(self) -> bool:
        """Go on with files that an interrupted run has finished, if they are all there undamaged."""
        first, earlier = self.writers[0], self._earlier
        if earlier is None or set(earlier.rasters) != {writer.path.name for writer in self.writers}:
            return False
        first.enter_whole()
        if not earlier.is_undamaged(first.path):
            first.clean_up(keep=True)
            return False
        for writer in self.writers:
            writer.publish_sidecar()
        self._remove_parts()
        return True

    def _remove_parts(self) -> None:
        """Remove scratch files and tiles, but not the journal of the first writer."""
        if self.tiles is not None:
            self.tiles.close(keep=False)
        for writer in self.writers[1:]:
            writer.clean_up()
        self.writers[0].remove_parts()

    def _keep(self, writers: Sequence[SceneWriter], tiles: TileStore | None) -> None:
        """Close everything, and keep it if there are finished windows or tiles."""
        for writer in writers:
            writer.close_scratch()
        saved = tiles is not None and tiles.is_worth_keeping
        if tiles is not None:
            tiles.close(keep=saved)
        for writer in reversed(writers):
            writer.clean_up(keep=writer.journal is not None and (saved or bool(writer.finished)))

    def _sync(self) -> None:
        for writer in self.writers:
            writer.sync()
