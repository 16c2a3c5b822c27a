"""Tell whether an output is finished, out of date, or not ours.

The evidence is the report beside the output, and a mark for the moment between output and report.
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

from decr_scene.pipeline.batch.ledger import PROGRAM
from decr_scene.pipeline.errors import OptionError, OutputExistsError
from decr_scene.pipeline.files import mark_path, os_faults, sync_to_disk
from decr_scene.pipeline.inputs.names import is_gdal_name
from decr_scene.pipeline.inputs.remote import is_fetched
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.outputs.report import parameters_of
from decr_scene.pipeline.planning.options import OLD_NAMES, Options, state_of_named_files
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.products.product import find_product
from decr_scene.pipeline.products.stac_item import find_asset
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.scene import RasterioScene

_WITHOUT_EFFECT = ("batch_size", "device")
"""Parameters that do not change the pixels: an output of another value is not out of date."""

Recipe = tuple[dict[str, Any], str]
"""Decides the pixels of a scene's output: parameters, and the model's digest, or a restorer's name."""


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
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None


def _recipe(parameters: dict[str, Any], model: dict[str, Any]) -> Recipe:
    by_new_names = {OLD_NAMES.get(name, name): value for name, value in parameters.items()}
    decisive = {
        name: value
        for name, value in by_new_names.items()
        if name not in _WITHOUT_EFFECT and value is not None
    }
    return decisive, model["sha256"] or model["name"]


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
    return _recipe(json.loads(json.dumps(parameters_of(chosen))), {"name": spec.name, "sha256": digest})


def warnings_of(dst: Path) -> tuple[str, ...]:
    """Read what the report of a finished output warns of."""
    previous = PreviousOutput.read(dst.with_suffix(".json"))
    return () if previous is None else previous.warnings


def is_finished(src: str | Path, dst: Path, recipe: Recipe) -> bool:
    """Return whether an output is there, whole, and of this input and recipe."""
    report = dst.with_suffix(".json")
    previous = PreviousOutput.read(report)
    if previous is None or not previous.is_valid or previous.recipe != recipe or _was_interrupted(dst):
        return False
    if not all(dst.with_name(name).exists() for name in previous.side_files):
        return False
    try:
        if previous.size != dst.stat().st_size or not _is_source(previous, src):
            return False
        written = report.stat().st_mtime_ns
        if any(os.stat(path).st_mtime_ns > written for path in _other_inputs(src, recipe)):
            return False
        return _has_same_names_and_values(previous, src, recipe)
    except Exception:  # whatever is wrong with the input is told by the run that opens it
        return False


def _has_same_names_and_values(previous: PreviousOutput, src: str | Path, recipe: Recipe) -> bool:
    """Return whether files that options name, and what the values of the input mean, are as they were."""
    chosen = recipe[0]
    named = state_of_named_files(chosen.get("mask", "auto"), chosen.get("other_date"), chosen.get("aoi"))
    if previous.named_files not in (None, named):
        return False
    origin = _origin_of(src)
    if not previous.values or is_fetched(origin):
        return True
    with RasterioScene.open(origin) as scene:
        return previous.values == scene.meaning_of_values


def _is_source(previous: PreviousOutput, src: str | Path) -> bool:
    """Return whether an output is of this input.

    What is fetched from the web counts by its address alone.
    """
    origin = _origin_of(src)
    if is_fetched(origin):
        return previous.source == str(origin)
    return previous.content == _content(fingerprint(origin))


def _other_inputs(src: str | Path, recipe: Recipe) -> list[str]:
    """List other files that pixels come from, beyond the fingerprint: masks, the sources of a VRT."""
    files = [value for value in recipe[0].values() if isinstance(value, str) and os.path.isfile(value)]
    origin = _origin_of(src)
    if is_fetched(origin):
        return files
    product = None if is_gdal_name(src) or not Path(src).is_dir() else find_product(src)
    parts = () if product is None else (product.scene, product.pan, *(path for _, path in product.stack))
    files += [str(path) for path in parts if path is not None]
    with RasterioScene.open(origin) as scene:
        return files + scene.other_files()


def _origin_of(src: str | Path) -> str | Path:
    """Return the raster that pixels are from: of a product's folder or an Item, one of its files."""
    if (asset := find_asset(src, None)) is not None:
        return _origin_of(asset.href)
    if is_gdal_name(src) or not Path(src).is_dir():
        return src
    return find_product(src).scene


def _content(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Return a fingerprint without the path: a folder may be mounted elsewhere."""
    return {name: value for name, value in fingerprint.items() if name != "path"}


def may_replace(src: str | Path, dst: Path) -> bool:
    """Return whether an existing output is ours, of this input.

    Raises:
        OutputExistsError: It is ours, but of another input; or something beside it is not ours.
    """
    if _was_interrupted(dst):
        return True
    previous = PreviousOutput.read(dst.with_suffix(".json"))
    if previous is None or (dst.exists() and previous.size != dst.stat().st_size):
        return False
    if previous.source not in (str(src), str(_origin_of(src))) and not _is_source(previous, src):
        raise OutputExistsError(
            f"{dst} was made of {previous.source}: choose another --out folder, or replace it with "
            "--overwrite"
        )
    for path in SideFiles.all_of(dst).paths.values():
        if path.exists() and path.name not in previous.side_files:
            raise OutputExistsError(
                f"{path} exists and is not ours: choose another --out folder, or replace it with --overwrite"
            )
    return True


@contextmanager
def replacement_marked(output: Path) -> Iterator[None]:
    """Keep a mark beside an output from before it is replaced until its report is there.

    The output gets its name first and its report a moment later. A run that is killed in between leaves the
    mark and an output without a report, or worse, with an older one. The mark holds the earlier state of the
    output: where that has changed, the output is ours.
    """
    mark, report = mark_path(output), output.with_suffix(".json")
    if not _was_interrupted(output):
        with os_faults(f"cannot write {mark}", mark.parent):
            mark.write_text(_state(output), encoding="utf-8")
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
    try:
        return mark_path(output).read_text(encoding="utf-8") != _state(output)
    except OSError:
        return False


def _state(path: Path) -> str:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return "nothing"
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
