"""What earlier runs have left at an output: finished work, work that is out of date, or what is not ours.

All of it is read off the report beside an output, and off a mark for the moment in which that is not there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.batch.ledger import PROGRAM
from decr_scene.pipeline.errors import OptionError, OutputExistsError
from decr_scene.pipeline.files import mark_path, os_faults, sync_to_disk
from decr_scene.pipeline.outputs.names import Beside
from decr_scene.pipeline.outputs.report import parameters_of
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.options import OLD_NAMES, Options
from decr_scene.pipeline.restoration.spec import spec_of

_INDIFFERENT = ("batch_size", "device")
"""Parameters that leave the pixels as they are: another one is no reason to begin anew."""

Recipe = tuple[dict[str, Any], str]
"""What makes two outputs of one scene the same: parameters, and the model's digest, or a restorer's name."""


@dataclass(frozen=True)
class Made:
    """What a report of ours says of the output beside it."""

    name: str
    size: int
    source: str
    content: dict[str, Any]
    recipe: Recipe
    good: bool
    beside: tuple[str, ...]

    @staticmethod
    def read(path: Path) -> Made | None:
        """``None``: there is no report there, or none of ours."""
        try:
            report = json.loads(path.read_text())
            if report["program"]["name"] != PROGRAM:
                return None
            return Made(
                name=Path(report["output"]["path"]).name,
                size=report["output"]["bytes"],
                source=report["input"]["path"],
                content=_content(report["input"]),
                recipe=_as_recipe(report["parameters"], report["model"]),
                good=all(report["checks"].values()) and not report.get("failed"),
                beside=tuple(
                    Path(name).name for role, name in report["beside"].items() if role != "polygons"
                ),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None


def _as_recipe(parameters: dict[str, Any], model: dict[str, Any]) -> Recipe:
    named = {OLD_NAMES.get(name, name): value for name, value in parameters.items()}
    decisive = {
        name: value for name, value in named.items() if name not in _INDIFFERENT and value is not None
    }
    return decisive, model["sha256"] or model["name"]


def recipe_of(chosen: Options, elsewhere: bool = False) -> Recipe | None:
    """Say what decides the pixels, as a report would; ``None``: it is not reproducible.

    Args:
        chosen: The options.
        elsewhere: Models run on other machines.

    Raises:
        OptionError: A wrong option; so no scene needs to be begun to find out.
    """
    if chosen.pan not in (None, "none"):
        raise OptionError("pan names one file, got it for a folder of scenes: process them one by one")
    if chosen.asset is not None:
        raise OptionError("asset names a part of one Item, got it for a folder: process Items one by one")
    spec, digest = spec_of(chosen, elsewhere)
    if re.search(r"\bat 0x", repr(chosen.restorer)):
        return None
    return _as_recipe(json.loads(json.dumps(parameters_of(chosen))), {"name": spec.name, "sha256": digest})


def is_finished(src: Path, dst: Path, recipe: Recipe) -> bool:
    """Whether an output is there and whole, and was made of this very input in this very way."""
    report = dst.with_suffix(".json")
    made = Made.read(report)
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


def _also_read(src: Path, recipe: Recipe) -> list[str]:
    """Other files that pixels come from, which no fingerprint knows: masks, what a VRT is made of."""
    files = [value for value in recipe[0].values() if isinstance(value, str) and os.path.isfile(value)]
    with RasterioScene.open(src) as scene:
        return files + scene.other_files()


def _content(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """A folder may be mounted elsewhere: what counts is what is in the file, and since when."""
    return {name: value for name, value in fingerprint.items() if name != "path"}


def may_replace(src: Path, dst: Path) -> bool:
    """Whether what lies at the output is ours, of this very input.

    Raises:
        OutputExistsError: It is ours, but of another input; or something beside it is not ours.
    """
    if _was_cut_short(dst):
        return True
    made = Made.read(dst.with_suffix(".json"))
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


@contextmanager
def marked(output: Path) -> Iterator[None]:
    """Keep a mark beside an output from before it is replaced until its report is there.

    The output gets its name first and its report a moment later. A run that is killed in between leaves an
    output that nothing proves to be ours, or worse, that an older report seems to tell of, and the mark. It
    holds the state of the output before: where that has changed, the mark is the proof.
    """
    mark, report = mark_path(output), output.with_suffix(".json")
    if not _was_cut_short(output):
        with os_faults(f"cannot write {mark}", mark.parent):
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
        return mark_path(output).read_text() != _state(output)
    except OSError:
        return False


def _state(path: Path) -> str:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return "nothing"
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
