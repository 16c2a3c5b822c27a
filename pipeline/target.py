"""Where an output goes: refused before any work is done, sooner than half-way through it."""

from __future__ import annotations

import os
from pathlib import Path

from decr_scene.pipeline.errors import OutputError, OutputExistsError

SIDECARS = (".aux.xml", ".ovr", ".msk")
"""Endings of what GDAL lays beside a GeoTIFF and takes for a part of it."""

GEOTIFF = (".tif", ".tiff")
"""What names of outputs end in."""

_LONGEST = "._uncertainty.unfinished.scratch.partial.tif.aux.xml"
"""What the longest name beside an output has more than the output's own."""


def check_target(
    source: str | os.PathLike[str] | None, path: str | os.PathLike[str], overwrite: bool
) -> None:
    """Refuse an output before any work is done.

    Args:
        source: The input, if it is a file.
        path: The output.
        overwrite: Whether an output that exists may be replaced.

    Raises:
        OutputExistsError: It exists, or a file that GDAL would take for a part of it.
        OutputError: Its folder is missing or not writable; it is a directory; it is the input.
    """
    path = Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder to write {path.name} to: make it first")
    if path.is_dir():
        raise OutputError(f"{path} is a directory, expected the name of a file: add one")
    if source is not None and is_same_file(source, path):
        raise OutputError(f"{path} is the input itself: choose another name for the output")
    found = [p for p in (with_ending(path, suffix) for suffix in ("", *SIDECARS)) if os.path.lexists(p)]
    if found and not overwrite:
        raise OutputExistsError(f"{found[0]} exists: choose another name, or replace it with --overwrite")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} is not writable: choose another folder, or change its permissions")


def check_name(output: Path) -> None:
    """Refuse a name that no file can have, or none of those that lie beside an output for a while.

    Raises:
        OutputError: It is empty, too long, or promises another format than GeoTIFF.
    """
    if not output.name:
        raise OutputError(f"{output} is not the name of a file: choose one, such as clean.tif")
    if output.suffix.lower() not in GEOTIFF:
        raise OutputError(
            f"{output} ends in {output.suffix or 'nothing'!r}, expected .tif, as the output is a GeoTIFF: "
            f"choose {output.with_suffix('.tif').name}"
        )
    folder = output.absolute().parent
    if not folder.is_dir():
        return  # as `check_target` will say
    length = len(os.fsencode(output.name))
    room = os.pathconf(folder, "PC_NAME_MAX") - len(_LONGEST)
    if length > room:
        raise OutputError(
            f"{output.name[:40]}... has {length} bytes, expected at most {room}, so that there is room for "
            "the names beside it: choose a shorter one"
        )


def is_same_file(one: str | os.PathLike[str], other: Path) -> bool:
    """Whether both are there, and one file, by whatever names."""
    return os.path.exists(one) and other.exists() and os.path.samefile(one, other)


def with_ending(path: Path, suffix: str) -> Path:
    """The name with one more ending."""
    return path.with_name(path.name + suffix)
