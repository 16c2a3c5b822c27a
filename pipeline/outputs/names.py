"""Name, check and write the side files of an output: all that exist, and those of one run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OptionError, OutputError
from decr_scene.pipeline.files import check_target, os_faults, write_whole, written_for
from decr_scene.pipeline.outputs.polygons import Polygons
from decr_scene.pipeline.outputs.quicklook import Quicklook
from decr_scene.pipeline.outputs.rasters import Provenance, Uncertainty
from decr_scene.pipeline.outputs.side_file import FinishedRun, SideDocument, SideFile, SideRaster
from decr_scene.pipeline.outputs.stac import StacItem
from decr_scene.pipeline.outputs.style import ProvenanceStyle, Style, UncertaintyStyle
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.system.signals import was_interrupted

SIDE_FILES: tuple[type[SideFile], ...] = (
    Provenance,
    Uncertainty,
    Style,
    ProvenanceStyle,
    UncertaintyStyle,
    Quicklook,
    Polygons,
    StacItem,
)
"""All there are: rasters in the order of `Blended`, and last the Item, which names those that are there."""

_PROGRAM = "decr-scene"
_AGAIN = "check the disk, then the same command makes it"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SideFiles:
    """The side files of one output.

    Args:
        output: The output.
        files: All but the report, which is always there.

    Raises:
        OptionError: Two of them have the same name.
    """

    output: Path
    files: tuple[SideFile, ...] = ()

    def __post_init__(self) -> None:
        names = [os.path.abspath(path) for path in (self.output, *self.paths.values())]
        if twice := {name for name in names if names.count(name) > 1}:
            raise OptionError(f"{min(twice)} would be two files of one run: choose another name")

    def targets(self) -> list[Path]:
        """List all that a run writes to or removes."""
        rasters = [self.output, *(path for path in self.paths.values() if path.suffix == ".tif")]
        return [*self.paths.values(), *(path for raster in rasters for path in written_for(raster))]

    @staticmethod
    def requested(output: Path, options: Mapping[str, Any]) -> SideFiles:
        """Gather the files that the options ask for.

        Args:
            output: The output.
            options: The fields of `Options`, and ``stac``, ``quicklook`` and ``polygons`` of `process_scene`.
        """
        made = (kind.requested(options) for kind in SIDE_FILES)
        return SideFiles(output, tuple(file for file in made if file is not None))

    @staticmethod
    def all_of(output: Path) -> SideFiles:
        """Gather all side files that an output can have under names of their own."""
        return SideFiles(output, tuple(kind() for kind in SIDE_FILES if kind.ending))

    @property
    def report(self) -> Path:
        """Return the path of the report."""
        return self.output.with_suffix(".json")

    @property
    def paths(self) -> dict[str, Path]:
        """Return all files by role, the report among them."""
        return {"report": self.report, **{file.role: file.path(self.output) for file in self.files}}

    @property
    def rasters(self) -> tuple[SideRaster, ...]:
        """Return the rasters that are written with the output."""
        return tuple(file for file in self.files if isinstance(file, SideRaster))

    def check(self, scene: RasterioScene, overwrite: bool, resumes: bool, ours: Collection[str] = ()) -> None:
        """Refuse before any work is done.

        Args:
            scene: The input.
            overwrite: Whether files that exist may be replaced.
            resumes: Whether an interrupted run of the same output is continued, which may have its rasters.
            ours: Paths that it was about to write when all its rasters were finished.

        Raises:
            OutputError: As `check_target`.
            DecrSceneError: One of the files cannot be made of the scene.
        """
        if (other := self._other_output()) is not None:
            raise OutputError(
                f"{self.report} is the report of {other}, which shares its side files with {self.output}: "
                "choose another name or folder"
            )
        finished = [file.role for file in self.rasters] if resumes else []
        for role, path in self.paths.items():
            check_target(scene.path, path, overwrite or role in finished or os.path.abspath(path) in ours)
        for file in self.files:
            file.check(scene)

    def _other_output(self) -> Path | None:
        """Return the output that the report there is of, if that is another one and is still there."""
        try:
            report = json.loads(self.report.read_text(encoding="utf-8"))
            other = self.report.with_name(Path(report["output"]["path"]).name)
            is_ours = report["program"]["name"] == _PROGRAM and other.with_suffix(".json") == self.report
            is_there = other.name != self.output.name and other.is_file()
            is_same = is_there and self.output.exists() and other.samefile(self.output)
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return other if is_ours and is_there and not is_same else None

    def write(self, run: FinishedRun) -> tuple[dict[str, str], bool]:
        """Write the documents of a finished run.

        One that fails stops no other and leaves no file.

        Returns:
            Why, by role, for those that could not be written; whether the disk is to blame for some.
        """
        failed: dict[str, str] = {}
        no_disk = False
        for file in self.files:
            if not isinstance(file, SideDocument):
                continue
            path = self.paths[file.role]
            try:
                there = {role: name for role, name in run.paths.items() if role not in failed}
                what, folder = f"cannot write {path}", path.absolute().parent
                with os_faults(what, folder, _AGAIN), write_whole(path) as partial:
                    file.write(replace(run, paths=there), partial)
            except Exception as error:
                if was_interrupted():
                    raise
                _log.debug("%s was not written", path, exc_info=True)
                failed[file.role] = _reason(error)
                no_disk = no_disk or isinstance(error, OutputError)
                path.unlink(missing_ok=True)  # of the output before
        return failed, no_disk

    def remove_earlier(self, inputs: Iterable[str | Path]) -> None:
        """Remove the documents of an earlier run, which tell of pixels that are gone.

        So a run that ends before it has written its own leaves none, rather than those. What this one does
        not make the earlier report lists; polygons, whose name is the user's own, stay then.

        Args:
            inputs: Files that this run has read, which are left alone.
        """
        for path in (*self._listed_earlier(inputs), *self._documents):
            path.unlink(missing_ok=True)

    @property
    def _documents(self) -> list[Path]:
        """Return the report, last of all, and the other files that are written beside the rasters."""
        documents = [self.paths[file.role] for file in self.files if isinstance(file, SideDocument)]
        return [*documents, self.report]

    def _listed_earlier(self, inputs: Iterable[str | Path]) -> Iterator[Path]:
        """Yield the files of an earlier run that this one neither makes nor reads."""
        try:
            report = json.loads(self.report.read_text(encoding="utf-8"))
            named = report["beside"] if report["program"]["name"] == _PROGRAM else {}
            before = {role: Path(name).name for role, name in named.items() if role in _OF_OUTPUT}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return
        current = {os.path.realpath(path) for path in (*self.paths.values(), *inputs)}
        for name in before.values():
            path = self.output.with_name(name)
            if name.startswith(self.output.stem) and os.path.realpath(path) not in current:
                yield path


_OF_OUTPUT = {kind.role for kind in SIDE_FILES if kind.ending}
"""Roles of files that are named after the output."""


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, DecrSceneError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
