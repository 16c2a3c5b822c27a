"""`process_directory`: a folder of scenes as one job that may be killed and started again.

find scenes -> refuse what cannot be right -> lock the out folder -> set apart what is finished -> the rest,
each on its own -> ledger.

What is finished is read off the reports beside the outputs; the ledger is for people and may be lost.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from fnmatch import fnmatch
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.beside import Beside
from decr_scene.pipeline.errors import (
    ClusterError,
    LockedError,
    OptionError,
    OutputError,
    OutputExistsError,
    ResumeError,
)
from decr_scene.pipeline.planning import Options, spec_of
from decr_scene.pipeline.run import Progress, Report, parameters_of, process_scene
from decr_scene.pipeline.scene import RasterioScene, fingerprint
from decr_scene.pipeline.scratch import Layout, telling
from decr_scene.pipeline.writer import sync_to_disk

PATTERN = "*.tif,*.tiff,*.jp2,*.vrt"
LEDGER = "batch.json"
LOCK = ".decr-scene.lock"

Status = Literal["pending", "done", "skipped", "failed"]

_PROGRAM = "decr-scene"
_COMPANIONS = ("", "_provenance", "_uncertainty")
_INDIFFERENT = ("batch_size", "device")
"""Parameters that leave the pixels as they are: another one is no reason to begin anew."""
_HOW = frozenset(signature(process_scene).parameters)
"""Options that are none of `Options`: where it is done and how it is written."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneEntry:
    """A scene in the ledger.

    Args:
        input: Absolute path.
        output: Absolute path; empty where there is none to be.
        status: ``skipped``: finished by an earlier run, or left out; then ``error`` says why.
        seconds: That this run worked on it.
        error: One line.
    """

    input: str
    output: str = ""
    status: Status = "pending"
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class BatchReport:
    """What became of a folder, as it stands in the ledger; ``ended`` is missing while a run is under way."""

    program: str
    version: str
    started: str
    ended: str | None
    scenes: tuple[SceneEntry, ...]

    def having(self, status: Status) -> list[SceneEntry]:
        """The scenes of one status, in order."""
        return [entry for entry in self.scenes if entry.status == status]

    def to_json(self) -> str:
        """The ledger as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def process_directory(
    src_dir: str | Path,
    dst_dir: str | Path,
    *,
    pattern: str = PATTERN,
    recursive: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    scene_progress: Callable[[str], Progress] | None = None,
    **options: Any,
) -> BatchReport:
    """Remove the clouds of all scenes of a folder, into a folder of the same tree, and keep a ledger there.

    A scene that fails stops no other. A scene that is finished is left alone: its output is whole, and the
    report beside it tells of the same input, model and parameters. An output that is out of date is made
    anew, and so is one beside which a file is missing that the report tells of; another ``compress``,
    ``blocksize``, ``quicklook``, ``stac``, ``batch_size`` or ``device`` does not make it so.

    Args:
        src_dir: The folder; links that leave it are not followed, hidden files are not seen.
        dst_dir: Where outputs, reports and the ledger go; made if need be.
        pattern: Names of the scenes, comma-separated; upper and lower case are the same.
        recursive: Enter the folders in the folder.
        overwrite: Replace outputs that are not this program's, or come from another input.
        progress: Told how many scenes are done.
        scene_progress: Given the name of a scene that begins, gives what is to be told of its tiles.
        **options: As `process_scene`. A ``restorer`` counts as the same if its ``repr`` is, and never if that
            has its address in memory.

    Returns:
        What is in the ledger.

    Raises:
        OptionError: A wrong option; ``polygons``, which names one file; two scenes of one output; outputs
            among the inputs; nothing to do.
        LockedError: Another batch writes to the same folder.
        ClusterError: No cluster, before any scene was done.
        OutputError: The folder cannot be made or written to.
    """
    src, dst = Path(os.path.abspath(src_dir)), Path(os.path.abspath(dst_dir))
    recipe = _recipe(options)
    entries = find_scenes(src, dst, pattern, recursive)
    tell = progress or (lambda done, total: None)
    _make_folder(dst)
    with _locked(dst), _Ledger(dst / LEDGER, entries, overwrite) as ledger:
        for number, entry in ledger.pending():
            if recipe is not None and _is_finished(Path(entry.input), Path(entry.output), recipe):
                ledger.entries[number] = replace(entry, status="skipped")
        ledger.save()
        for number, entry in ledger.pending():
            tell(len(entries) - len(ledger.pending()), len(entries))
            name = os.path.relpath(entry.input, src)
            told = scene_progress(name) if scene_progress is not None else None
            fatal = () if ledger.report().having("done") else (ClusterError,)
            ledger.entries[number] = _attempt(entry, overwrite, {**options, "progress": told}, fatal)
            with suppress(OutputError):  # a full disk may have room again for the next scene
                ledger.save()
        tell(len(entries), len(entries))
    return ledger.report()


# -- which scenes --------------------------------------------------------------------------------------------


def find_scenes(src: Path, dst: Path, pattern: str, recursive: bool) -> list[SceneEntry]:
    """List the scenes of a folder and their outputs, in order, with what is left out and why.

    Raises:
        OptionError: As `process_directory`.
    """
    if not src.is_dir():
        raise OptionError(f"{src} is not a folder, expected one with scenes: check the path")
    patterns = [part.strip().lower() for part in pattern.split(",")]
    below = dst if _inside(dst, src) and not _inside(src, dst) else None
    entries: list[SceneEntry] = []

    def unreadable(error: OSError) -> None:
        entries.append(SceneEntry(error.filename, "", "failed", error=f"cannot be listed: {error.strerror}"))

    for folder, folders, files in os.walk(src, onerror=unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if recursive and _may_enter(here / name, below)]
        links = [here / name for name in folders if (here / name).is_symlink()]  # os.walk follows none
        entries += [
            SceneEntry(str(link), "", "skipped", error=_OUTSIDE) for link in links if _leaves(link, src)
        ]
        paths = [here / name for name in files if not name.startswith(".")]
        entries += [_entry(path, src, dst, below) for path in paths if _is_wanted(path, patterns)]
    entries.sort(key=lambda entry: entry.input)
    _check_work(src, pattern, entries)
    _check_outputs(src, dst, below, [entry for entry in entries if entry.status == "pending"])
    return entries


_OUTSIDE = "a link that leaves the folder: not followed"
_OUTPUT = "an output of decr-scene"


def _may_enter(folder: Path, outputs: Path | None) -> bool:
    """Not what is hidden, and not where this batch or another one has its outputs."""
    return not (folder.name.startswith(".") or _within(folder, outputs) or (folder / LOCK).exists())


def _is_wanted(path: Path, patterns: list[str]) -> bool:
    """A file of a name that is asked for; a link to nothing is one too, so that somebody is told."""
    named = any(fnmatch(path.name.lower(), pattern) for pattern in patterns)
    return named and (path.is_file() or not path.exists())


def _entry(path: Path, src: Path, dst: Path, outputs: Path | None) -> SceneEntry:
    if _leaves(path, src):
        return SceneEntry(str(path), "", "skipped", error=_OUTSIDE)
    if _within(path, outputs) or _is_output(path):
        return SceneEntry(str(path), "", "skipped", error=_OUTPUT)
    return SceneEntry(str(path), str(dst / path.relative_to(src).with_suffix(".tif")))


def _is_output(path: Path) -> bool:
    """Whether a report beside a file, or beside the file whose companion it is, says that we made it."""
    for companion in _COMPANIONS:
        base = path.stem.removesuffix(companion)
        made = _Made.read(path.with_name(f"{base}.json"))
        if made is not None and made.name == base + path.suffix and path.stem == base + companion:
            return True
    return False


def _check_work(src: Path, pattern: str, entries: list[SceneEntry]) -> None:
    if any(entry.status != "skipped" for entry in entries):
        return
    left_out = f" but {entries[0].input}, {entries[0].error}" if entries else ""
    raise OptionError(
        f"nothing to do: no {pattern} in {src}{left_out}: check the folder, --pattern and --recursive"
    )


def _check_outputs(src: Path, dst: Path, outputs: Path | None, entries: list[SceneEntry]) -> None:
    """Refuse outputs that would meet each other, the ledger, or the inputs."""
    makers: dict[str, str] = {}
    for entry in entries:
        if (other := makers.setdefault(entry.output, entry.input)) != entry.input:
            raise OptionError(
                f"{other} and {entry.input} would both become {entry.output}: rename one, or leave one out "
                "with --pattern"
            )
        for path in Beside.all_of(Path(entry.output)).paths.values():
            if (other := makers.setdefault(str(path), entry.input)) != entry.input:
                raise OptionError(
                    f"{path} would lie beside the output of one of {other} and {entry.input}, and be that of "
                    "the other: rename one, or leave one out with --pattern"
                )
        if Path(entry.output).with_suffix(".json") == dst / LEDGER:
            raise OptionError(
                f"the report of {entry.input} would be {dst / LEDGER}, the ledger: rename the scene"
            )
        if outputs is None and _inside(Path(entry.output), src):
            raise OptionError(
                f"{entry.output} would lie among the inputs in {src}: choose an --out folder beside it"
            )


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _within(path: Path, folder: Path | None) -> bool:
    return folder is not None and _inside(path, folder)


def _leaves(link: Path, src: Path) -> bool:
    return not _inside(link, src)


# -- what is finished ----------------------------------------------------------------------------------------

_Recipe = tuple[dict[str, Any], str]
"""Parameters, and the digest of the model or the name of what has none."""


@dataclass(frozen=True)
class _Made:
    """What a report of ours says of the output beside it."""

    name: str
    size: int
    source: str
    content: dict[str, Any]
    recipe: _Recipe
    good: bool
    beside: tuple[str, ...]

    @staticmethod
    def read(path: Path) -> _Made | None:
        """``None``: there is no report there, or none of ours."""
        try:
            report = json.loads(path.read_text())
            if report["program"]["name"] != _PROGRAM:
                return None
            return _Made(
                name=Path(report["output"]["path"]).name,
                size=report["output"]["bytes"],
                source=report["input"]["path"],
                content=_content(report["input"]),
                recipe=_as_recipe(report["parameters"], report["model"]),
                good=all(report["checks"].values()),
                beside=tuple(
                    Path(name).name for role, name in report["beside"].items() if role != "polygons"
                ),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None


def _as_recipe(parameters: dict[str, Any], model: dict[str, Any]) -> _Recipe:
    kept = {name: value for name, value in parameters.items() if name not in _INDIFFERENT}
    return kept, model["sha256"] or model["name"]


def _recipe(options: dict[str, Any]) -> _Recipe | None:
    """What decides the pixels, as a report would say it; ``None``: nobody can tell it again.

    Raises:
        OptionError: A wrong option; so no scene needs to be begun to find out.
    """
    if options.get("polygons") is not None:
        raise OptionError("polygons names one file, got it for a folder of scenes: process them one by one")
    if options.get("pan") not in (None, "none"):
        raise OptionError("pan names one file, got it for a folder of scenes: process them one by one")
    chosen = Options(**{name: value for name, value in options.items() if name not in _HOW})
    Layout((1, 1), 1, np.dtype(np.uint8), options.get("blocksize", 512))
    spec, digest = spec_of(chosen)
    if re.search(r"\bat 0x", repr(chosen.restorer)):
        return None
    return _as_recipe(json.loads(json.dumps(parameters_of(chosen))), {"name": spec.name, "sha256": digest})


def _is_finished(src: Path, dst: Path, recipe: _Recipe) -> bool:
    report = dst.with_suffix(".json")
    made = _Made.read(report)
    if made is None or not made.good or made.recipe != recipe or _was_cut_short(dst):
        return False
    if not all(dst.with_name(name).exists() for name in made.beside):
        return False
    try:
        if made.size != dst.stat().st_size or made.content != _content(fingerprint(src)):
            return False
        written = report.stat().st_mtime_ns
        return all(os.stat(path).st_mtime_ns <= written for path in _also_read(src, recipe))
    except (OSError, DecrSceneError):
        return False


def _also_read(src: Path, recipe: _Recipe) -> list[str]:
    """Other files that pixels come from, which no fingerprint knows: a mask, what a VRT is made of."""
    files = [value for value in recipe[0].values() if isinstance(value, str) and os.path.isfile(value)]
    if src.suffix.lower() == ".vrt":
        with RasterioScene.open(src) as scene, scene.dataset() as dataset:
            files += dataset.files
    return files


def _content(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """A folder may be mounted elsewhere: what counts is what is in the file, and since when."""
    return {name: value for name, value in fingerprint.items() if name != "path"}


def _may_replace(src: Path, dst: Path) -> bool:
    """Whether what lies at the output is ours, of this very input.

    Raises:
        OutputExistsError: It is ours, but of another input; or something beside it is not ours.
    """
    if _was_cut_short(dst):
        return True
    made = _Made.read(dst.with_suffix(".json"))
    if made is None or (dst.exists() and made.size != dst.stat().st_size):
        return False
    if made.source != str(src) and made.content != _content(fingerprint(src)):
        raise OutputExistsError(
            f"{dst} was made of {made.source}: choose another --out folder, or replace it with --overwrite"
        )
    for path in Beside.all_of(dst).paths.values():
        if path.exists() and path.name not in made.beside:
            raise OutputExistsError(
                f"{path} exists and is not ours: choose another --out folder, or replace it with --overwrite"
            )
    return True


# -- one scene -----------------------------------------------------------------------------------------------


def _attempt(
    entry: SceneEntry, overwrite: bool, options: dict[str, Any], fatal: tuple[type[Exception], ...]
) -> SceneEntry:
    """Process a scene, whatever comes of it, but for errors that are ``fatal`` to all."""
    began = time.perf_counter()
    try:
        checks = _process(Path(entry.input), Path(entry.output), overwrite, options).checks
        bad = ", ".join(name for name, good in checks.items() if not good)
        error = f"check failed: {bad}" if bad else None
    except fatal:
        raise
    except Exception as problem:
        _log.debug("%s failed", entry.input, exc_info=True)
        error = _one_line(problem)
    seconds = round(time.perf_counter() - began, 3)
    return replace(entry, status="failed" if error else "done", seconds=seconds, error=error)


def _process(src: Path, dst: Path, overwrite: bool, options: dict[str, Any]) -> Report:
    _make_folder(dst.parent)
    replacing = overwrite or _may_replace(src, dst)
    with _marked(dst):
        try:
            return process_scene(src, dst, overwrite=replacing, **options)
        except ResumeError:  # left by a run with other options: what it had begun is out of date
            return process_scene(src, dst, overwrite=replacing, **{**options, "resume": False})


def _one_line(error: Exception) -> str:
    told = str(error) if isinstance(error, DecrSceneError) else f"unexpected {type(error).__name__}: {error}"
    return " ".join(told.split())


@contextmanager
def _marked(output: Path) -> Iterator[None]:
    """Keep a mark beside an output from before it is replaced until its report is there.

    The output gets its name first and its report a moment later. A run that is killed in between leaves an
    output that nothing proves to be ours, or worse, that an older report seems to tell of, and the mark. It
    holds the state of the output before: where that has changed, the mark is the proof.
    """
    mark, report = _mark(output), output.with_suffix(".json")
    if not _was_cut_short(output):
        with telling(f"cannot write {mark}", mark.parent):
            mark.write_text(_state(output))
    try:
        yield
    except BaseException:
        if not _was_cut_short(output):
            mark.unlink(missing_ok=True)
        raise
    for path in (report, report.parent):
        sync_to_disk(path)
    mark.unlink(missing_ok=True)


def _was_cut_short(output: Path) -> bool:
    """Whether a run replaced an output and was gone before its report was there."""
    try:
        return _mark(output).read_text() != _state(output)
    except OSError:
        return False


def _mark(output: Path) -> Path:
    return output.with_name(f".{output.name}.batch.partial")


def _state(path: Path) -> str:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return "nothing"
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


# -- the out folder ------------------------------------------------------------------------------------------


class _Ledger:
    """The ledger of a run, on disk whole at any time; a context manager that writes it a last time."""

    def __init__(self, path: Path, entries: list[SceneEntry], overwrite: bool) -> None:
        self.path, self.entries = path, entries
        self.started, self.ended = _now(), ""
        if os.path.lexists(path) and not overwrite and not _is_ledger(path):
            raise OutputExistsError(
                f"{path} is not a ledger of ours: choose another --out folder, or --overwrite"
            )

    def __enter__(self) -> _Ledger:
        self.save()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = _now()
        self.save()

    def pending(self) -> list[tuple[int, SceneEntry]]:
        """What is still to be done, by number."""
        return [(number, entry) for number, entry in enumerate(self.entries) if entry.status == "pending"]

    def report(self) -> BatchReport:
        """As it stands."""
        return BatchReport(_PROGRAM, version(_PROGRAM), self.started, self.ended or None, tuple(self.entries))

    def save(self) -> None:
        """Write it.

        Raises:
            OutputError: It cannot be.
        """
        partial = self.path.with_name(f".{self.path.name}.partial")
        with telling(f"cannot write {self.path}", self.path.parent):
            partial.write_text(self.report().to_json())
            sync_to_disk(partial)
            os.replace(partial, self.path)


def _is_ledger(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["program"] == _PROGRAM
    except (OSError, ValueError, LookupError, TypeError):
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it when the process is gone, however it went."""
    with telling(f"cannot lock {folder}", folder):
        file = (folder / LOCK).open("a+")
    with file:
        with telling(f"cannot lock {folder}", folder):
            _take(file, folder)
        yield


def _take(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another batch"
        raise LockedError(f"{holder} is writing to {folder}: wait for it, or choose another --out") from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"folder {folder} cannot be made ({error.strerror}): choose another --out folder"
        ) from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
