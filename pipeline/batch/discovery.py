"""List the scenes of a folder for a batch and the places of their outputs, which are checked.

Files are asked after by `os.path`: a path raises in a folder that may not be entered, which ends no batch.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from decr_scene.pipeline.batch.earlier_outputs import PreviousOutput
from decr_scene.pipeline.batch.ledger import LEDGER, LOCK, SceneEntry
from decr_scene.pipeline.batch.names import listed_scenes, output_stem
from decr_scene.pipeline.defaults import SCENES
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.products.product import is_quality_mask

_COMPANIONS = ("", "_provenance", "_uncertainty")
_OUTSIDE = "a link that leaves the folder: not followed"
_OUTPUT = "an output of decr-scene"
_QUALITY = "named like a vendor's mask of cloud or quality: process it by itself if it is a scene"


def find_scenes(
    src_dir: str | os.PathLike[str], dst: Path, pattern: str, recursive: bool, folders: bool
) -> list[SceneEntry]:
    """List the scenes of a folder and their outputs, in order, with what is left out and why.

    An address is one scene, and a text file names them. With ``folders`` each folder in it is one.

    Raises:
        OptionError: As `process_directory`.
    """
    if folders and recursive:
        raise OptionError(
            "--folders takes a folder as one scene, and --recursive enters it, got both: drop one of the two"
        )
    if (listed := listed_scenes(src_dir, dst)) is not None:
        if folders:
            raise OptionError(
                f"--folders takes the folders in a folder, got {src_dir}: drop it, or name that one"
            )
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
    if folders:
        entries = _folder_entries(src, dst, outputs, patterns if pattern != SCENES else ["*"])
    else:
        entries = _file_entries(src, dst, outputs, patterns, recursive)
    entries.sort(key=lambda entry: entry.input)
    _check_work(src, "folder" if folders else pattern, entries)
    _check_outputs(src, dst, outputs, [entry for entry in entries if entry.status == "pending"])
    return entries


def _folder_entries(src: Path, dst: Path, outputs: Path | None, patterns: list[str]) -> list[SceneEntry]:
    """List the folders in a folder: whether each is a product is told when its turn comes.

    Raises:
        OptionError: It may not be listed.
    """
    try:
        names = os.listdir(src)
    except OSError as error:
        raise OptionError(f"{src} cannot be listed ({error.strerror}): check its permissions") from error
    places = [src / name for name in names if os.path.isdir(src / name) and _has_name(name, patterns)]
    return [
        SceneEntry(str(place), "", "skipped", error=_OUTSIDE)
        if _leaves(place, src)
        else SceneEntry(str(place), str(dst / f"{output_stem(str(place))}.tif"))
        for place in places
        if _may_enter(place, outputs) and not os.path.exists(place / LEDGER)
    ]


def _file_entries(
    src: Path, dst: Path, outputs: Path | None, patterns: list[str], recursive: bool
) -> list[SceneEntry]:
    """List the files in a folder, and in those in it, that have a scene's name."""
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
    return entries


def _may_enter(folder: Path, outputs: Path | None) -> bool:
    """Return whether to descend: not into hidden folders, nor into outputs of this batch or another."""
    return not (folder.name.startswith(".") or _within(folder, outputs) or os.path.exists(folder / LOCK))


def _has_name(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def _matches(path: Path, patterns: list[str]) -> bool:
    """Return whether a file matches.

    A dangling link does too, so that it is reported.
    """
    return _has_name(path.name, patterns) and (os.path.isfile(path) or not os.path.exists(path))


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
        f"nothing to do: no {pattern} in {src}{first_skipped}: check the folder, --pattern, --recursive, and "
        "--folders, by which each folder in it is a scene"
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
