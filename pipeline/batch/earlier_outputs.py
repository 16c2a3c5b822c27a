"""Tell whether an output is finished, out of date, or not ours.

The evidence is the report beside the output, and a mark for the moment between output and report.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import Compression
from rasterio.errors import RasterioError

from decr_scene.pipeline.batch.ledger import PROGRAM
from decr_scene.pipeline.errors import OptionError, OutputError, OutputExistsError
from decr_scene.pipeline.files import mark_path, os_faults, sync_to_disk
from decr_scene.pipeline.inputs.addresses import (
    plain_values_without_secrets,
    without_secrets,
    without_signature,
)
from decr_scene.pipeline.inputs.remote import is_fetched
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.outputs.report import parameters_of
from decr_scene.pipeline.planning.options import OLD_NAMES, Options, state_of_named_files
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.products.source import Source
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.writing.cog import check_blocks
from decr_scene.pipeline.writing.journal import FileState, FinishedRasters, read_finished_rasters

_WITHOUT_EFFECT = ("batch_size", "device")
"""Parameters that do not change the pixels: an output of another value is not out of date."""

_OURS = "ours "
"""What a mark begins with that notes an interrupted run."""

_TAIL = 8
"""Bytes at the end of a raster."""

_MAY_END_IN_ZEROS = (None, Compression.zstd)
"""Compressions of which they may all be 0 though the file is whole: zstd stores noise as it is."""


@dataclass(frozen=True)
class Recipe:
    """What decides the pixels of a scene's output.

    Args:
        parameters: As a report has them, without the secrets of addresses.
        model: Its digest, or a restorer's name.
        options: Of a run that begins: what its files are really named.
    """

    parameters: dict[str, Any]
    model: str
    options: Options = field(default_factory=Options, compare=False, repr=False)


@dataclass(frozen=True)
class PreviousOutput:
    """An output as the report beside it describes it."""

    name: str
    size: int
    source: str
    content: dict[str, Any]
    recipe: Recipe
    is_valid: bool
    side_files: tuple[str, ...]
    warnings: tuple[str, ...]
    values: list[str] | None
    named_files: list[list[Any]] | None
    parts: list[list[Any]] | None

    def has(self, path: Path) -> bool:
        """Return whether a file lies beside it as its own."""
        return path.name in self.side_files

    @staticmethod
    def read(path: Path) -> PreviousOutput | None:
        """Read a report, or return ``None`` if there is none of this program."""
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["program"]["name"] != PROGRAM:
                return None
            return PreviousOutput(
                name=Path(report["output"]["path"]).name,
                size=report["output"]["bytes"],
                source=report["input"]["path"],
                content=_content(report["input"]),
                recipe=_recipe(report["parameters"], report["model"]),
                is_valid=all(report["checks"].values()) and not report.get("failed"),
                side_files=tuple(
                    Path(name).name for role, name in report["beside"].items() if role != "polygons"
                ),
                warnings=tuple(map(str, report.get("warnings", ()))),
                values=report.get("values"),  # an earlier version noted neither
                named_files=report.get("named_files"),
                parts=report.get("parts"),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None


def _recipe(parameters: dict[str, Any], model: dict[str, Any], options: Options | None = None) -> Recipe:
    parameters = plain_values_without_secrets(parameters)
    by_new_names = {OLD_NAMES.get(name, name): value for name, value in parameters.items()}
    decisive = {
        name: value
        for name, value in by_new_names.items()
        if name not in _WITHOUT_EFFECT and value is not None
    }
    return Recipe(decisive, model["sha256"] or model["name"], options or Options())


def recipe_of(chosen: Options, elsewhere: bool = False) -> Recipe | None:
    """Return the recipe of a run as its report would have it, or ``None`` if it is not reproducible.

    Args:
        chosen: The options.
        elsewhere: Models run on other machines.

    Raises:
        OptionError: A wrong option, before any scene is begun.
    """
    if chosen.pan not in (None, "none"):
        raise OptionError("pan names one file, got it for a folder of scenes: process them one by one")
    if chosen.asset is not None:
        raise OptionError("asset names a part of one Item, got it for a folder: process Items one by one")
    spec, digest = spec_of(chosen, elsewhere)
    if re.search(r"\bat 0x", repr(chosen.restorer)):
        return None
    parameters = json.loads(json.dumps(parameters_of(chosen)))
    return _recipe(parameters, {"name": spec.name, "sha256": digest}, chosen)


def finished_output(src: str | Path, dst: Path, recipe: Recipe) -> PreviousOutput | None:
    """Return the output if it is there, whole, and of this input and recipe."""
    report = dst.with_suffix(".json")
    previous = PreviousOutput.read(report)
    if previous is None or not previous.is_valid or previous.recipe != recipe or _was_interrupted(dst):
        return None
    try:
        if previous.size != dst.stat().st_size:
            return None
        if not all(_is_whole(path) for path in (dst, *map(dst.with_name, previous.side_files))):
            return None
        written, source = report.stat().st_mtime_ns, Source.of(src)
        same = (
            _is_of(source, previous)
            and _is_as_named(previous, recipe.options, written)
            and _is_unchanged(source, previous, written)
        )
        return previous if same else None
    except Exception:  # whatever is wrong with the input is told by the run that opens it
        return None


def _is_whole(path: Path) -> bool:
    """Return whether a file of an output is there, and has the blocks that it should, if it is a raster.

    What is in them is not read: that would take as long as a copy.
    """
    if path.suffix.lower() != ".tif":
        return path.exists()
    try:
        with path.open("rb") as file:
            check_blocks(path, file)
            file.seek(-_TAIL, os.SEEK_END)
            ends = any(file.read())
        with rasterio.open(path) as dataset:
            return ends or dataset.compression in _MAY_END_IN_ZEROS
    except (OSError, RasterioError, OutputError):
        return False


def _is_of(source: Source, previous: PreviousOutput) -> bool:
    """Return whether an output is of this input.

    What is fetched from the web counts by its address alone, however that is signed.
    """
    if is_fetched(source.origin):
        return without_signature(previous.source) == without_signature(str(source.origin))
    return previous.content == _content(fingerprint(source.origin))


def _is_unchanged(source: Source, previous: PreviousOutput, written: int) -> bool:
    """Return whether what its pixels come from besides, and what they mean, is as it was.

    Args:
        source: The input.
        previous: The output.
        written: When its report was, ns: what an earlier version did not note is to be older.
    """
    if is_fetched(source.origin):
        return True
    with RasterioScene.open(source.origin) as scene:
        if previous.values and previous.values != scene.meaning_of_values:
            return False
    if previous.parts is None:
        return all(os.stat(path).st_mtime_ns <= written for path in source.files)
    return previous.parts == source.state


def _is_as_named(previous: PreviousOutput, chosen: Options, written: int) -> bool:
    """Return whether the files that options name are as they were; of an earlier version's report: older."""
    if previous.named_files is None:
        files = [value for value in vars(chosen).values() if isinstance(value, str) and os.path.isfile(value)]
        return all(os.stat(path).st_mtime_ns <= written for path in files)
    return previous.named_files == state_of_named_files(chosen.mask, chosen.other_date, chosen.aoi)


def _content(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Return a fingerprint without the path: a folder may be mounted elsewhere."""
    return {name: value for name, value in fingerprint.items() if name != "path"}


def may_replace(src: str | Path, dst: Path) -> bool:
    """Return whether an existing output is ours, of this input.

    Raises:
        OutputExistsError: It is ours, but of another input; or something beside it is not ours.
    """
    previous = PreviousOutput.read(dst.with_suffix(".json"))
    run = _interrupted_run_of(dst)
    if run is not None:
        _check_beside(dst, lambda path: _is_noted(run, path) or (previous is not None and previous.has(path)))
        return True
    if previous is None or (dst.exists() and previous.size != dst.stat().st_size):
        return False
    source = Source.of(src)
    names = {without_secrets(str(name)) for name in (src, source.origin)}
    if without_secrets(previous.source) not in names and not _is_of(source, previous):
        raise OutputExistsError(
            f"{dst} was made of {previous.source}: choose another --out folder, or replace it with "
            "--overwrite"
        )
    _check_beside(dst, previous.has)
    return True


def _check_beside(dst: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse an output beside which lies a file of a side file's name that is not ours.

    Raises:
        OutputExistsError: There is one.
    """
    for path in SideFiles.all_of(dst).paths.values():
        if path.exists() and not is_ours(path):
            raise OutputExistsError(
                f"{path} exists and is not ours: choose another --out folder, or replace it with --overwrite"
            )


@contextmanager
def replacement_marked(output: Path) -> Iterator[None]:
    """Keep a mark beside an output from before it is replaced until its report is there.

    The output gets its name first and its report a moment later. A run that is killed in between leaves the
    mark and an output without a report, or worse, with an older one. The mark holds the earlier state of the
    output: where that has changed, no report speaks for it. Whether it is ours then says the journal, or,
    once a run with other options has discarded that, the mark again.
    """
    mark, report = mark_path(output), output.with_suffix(".json")
    if not _was_interrupted(output):
        _write_mark(mark, _state(output))
    elif (run := _interrupted_run_of(output)) is not None:  # whose journal one with other options discards
        _write_mark(mark, _OURS + json.dumps(asdict(run)))
    try:
        yield
    except BaseException:
        if not _was_interrupted(output):
            mark.unlink(missing_ok=True)
        raise
    for path in (report, report.parent):
        sync_to_disk(path)
    mark.unlink(missing_ok=True)


def _was_interrupted(output: Path) -> bool:
    """Return whether a run replaced an output and ended before its report was written."""
    mark = _mark_of(output)
    return mark is not None and mark != _state(output)


def _mark_of(output: Path) -> str | None:
    """Read the mark of an output, or return ``None`` if there is none."""
    try:
        return mark_path(output).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _write_mark(mark: Path, text: str) -> None:
    with os_faults(f"cannot write {mark}", mark.parent):
        mark.write_text(text, encoding="utf-8")


def _interrupted_run_of(output: Path) -> FinishedRasters | None:
    """Return what an interrupted run has noted of an output that has its name since; ``None``: nobody has."""
    if not _was_interrupted(output):
        return None
    noted = (read_finished_rasters(output), _noted_in(_mark_of(output) or ""))
    return next((run for run in noted if run is not None and _is_noted(run, output)), None)


def _noted_in(mark: str) -> FinishedRasters | None:
    """Read what a mark notes of an interrupted run, if it does."""
    try:
        values = json.loads(mark.removeprefix(_OURS)) if mark.startswith(_OURS) else {}
        rasters = {str(name): FileState(**state) for name, state in values["rasters"].items()}
        return FinishedRasters(rasters, tuple(map(str, values["side_files"])))
    except (ValueError, LookupError, TypeError, AttributeError):  # none, or cut short by a kill
        return None


def _is_noted(run: FinishedRasters, path: Path) -> bool:
    """Return whether a file is a raster that a run has noted, or a document that it was about to write."""
    raster = run.rasters.get(path.name)
    if raster is not None:
        return raster.matches(path) or raster.has_bytes_of(path)
    return path.name in map(os.path.basename, run.side_files)


def _state(path: Path) -> str:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return "nothing"
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
