"""List the scenes of a folder for a batch and the places of their outputs, which are checked.

Files are asked after by `os.path`: a path raises in a folder that may not be entered, which ends no batch.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from decr_scene.pipeline.batch.earlier_outputs import PreviousOutput
from decr_scene.pipeline.batch.ledger import LEDGER, LOCK, SceneEntry
from decr_scene.pipeline.batch.names import listed_scenes
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.products.product import is_quality_mask

_COMPANIONS = ("", "_provenance", "_uncertainty")
_OUTSIDE = "a link that leaves the folder: not followed"
_OUTPUT = "an output of decr-scene"
_QUALITY = "named like a vendor's mask of cloud or quality: process it by itself if it is a scene"


def find_scenes(
    src_dir: str | os.PathLike[str], dst: Path, pattern: str, recursive: bool
) -> list[SceneEntry]:
    """List the scenes of a folder and their outputs, in order, with the files left out and why.

    An address is one scene, and a text file names them.

    Raises:
        OptionError: As `process_directory`.
    """
    if (listed := listed_scenes(src_dir, dst)) is not None:
        _check_outputs(dst, dst, dst, listed)
        return listed
    if not os.fspath(src_dir):
        raise OptionError("the name of the folder is empty, expected that of one with scenes")
    src = Path(os.path.abspath(src_dir))
    if not src.is_dir():
        raise OptionError(f"{src} is not a folder, expected one with scenes: check the path")
    patterns = [part.strip().lower() for part in pattern.split(",") if part.strip()]
    if not patterns:
        raise OptionError(f"pattern is {pattern!r}, expected names of scenes such as *.tif,*.jp2")
    outputs = dst if _inside(dst, src) and not _inside(src, dst) else None
    entries: list[SceneEntry] = []

    def unreadable(error: OSError) -> None:
        entries.append(SceneEntry(error.filename, "", "failed", error=f"cannot be listed: {error.strerror}"))

    for folder, folders, files in os.walk(src, onerror=unreadable):
        place = Path(folder)
        folders[:] = [name for name in folders if recursive and _may_enter(place / name, outputs)]
        links = [place / name for name in folders if os.path.islink(place / name)]  # os.walk follows none
        entries += [
            SceneEntry(str(link), "", "skipped", error=_OUTSIDE) for link in links if _leaves(link, src)
        ]
        paths = [place / name for name in files if not name.startswith(".")]
        entries += [_entry(path, src, dst, outputs) for path in paths if _matches(path, patterns)]
    entries.sort(key=lambda entry: entry.input)
    _check_work(src, pattern, entries)
    _check_outputs(src, dst, outputs, [entry for entry in entries if entry.status == "pending"])
    return entries


def _may_enter(folder: Path, outputs: Path | None) -> bool:
    """Return whether to descend: not into hidden folders, nor into outputs of this batch or another."""
    return not (folder.name.startswith(".") or _within(folder, outputs) or os.path.exists(folder / LOCK))


def _matches(path: Path, patterns: list[str]) -> bool:
    """Return whether a file matches.

    A dangling link does too, so that it is reported.
    """
    name_matches = any(fnmatch(path.name.lower(), pattern) for pattern in patterns)
    return name_matches and (os.path.isfile(path) or not os.path.exists(path))


def _entry(path: Path, src: Path, dst: Path, outputs: Path | None) -> SceneEntry:
    if _leaves(path, src):
        return SceneEntry(str(path), "", "skipped", error=_OUTSIDE)
    if _within(path, outputs) or _is_output(path):
        return SceneEntry(str(path), "", "skipped", error=_OUTPUT)
    if is_quality_mask(path):
        return SceneEntry(str(path), "", "skipped", error=_QUALITY)
    return SceneEntry(str(path), str(dst / path.relative_to(src).with_suffix(".tif")))


def _is_output(path: Path) -> bool:
    """Return whether a report proves a file to be an output of ours, or a companion of one."""
    for companion in _COMPANIONS:
        base = path.stem.removesuffix(companion)
        previous = PreviousOutput.read(path.with_name(f"{base}.json"))
        if previous is not None and previous.name == base + path.suffix and path.stem == base + companion:
            return True
    return False


def _check_work(src: Path, pattern: str, entries: list[SceneEntry]) -> None:
    if any(entry.status != "skipped" for entry in entries):
        return
    first_skipped = f" but {entries[0].input}, {entries[0].error}" if entries else ""
    raise OptionError(
        f"nothing to do: no {pattern} in {src}{first_skipped}: check the folder, --pattern and --recursive"
    )


def _check_outputs(src: Path, dst: Path, outputs: Path | None, entries: list[SceneEntry]) -> None:
    """Refuse outputs that would replace each other, the ledger, or an input."""
    makers: dict[str, str] = {}
    for entry in entries:
        if (other := makers.setdefault(entry.output, entry.input)) != entry.input:
            raise OptionError(
                f"{other} and {entry.input} would both become {entry.output}: rename one, or leave one out "
                "with --pattern"
            )
        for path in SideFiles.all_of(Path(entry.output)).paths.values():
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
