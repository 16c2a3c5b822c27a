"""Scenes of a batch that are named one by one: an address, or a text file with a name a line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from decr_scene.pipeline.batch.ledger import SceneEntry
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.names import is_gdal_name
from decr_scene.pipeline.inputs.text import decoded

MOST_BYTES = 1 << 24
"""Size of a list above which it is none."""

_SUBDATASET = re.compile(r"^[A-Z0-9_]+:(?!//)\"?([^\"]+?)\"?(?::/{0,2}([^:/\\][^:]*))?$")


def listed_scenes(src: str | os.PathLike[str], dst: Path) -> list[SceneEntry] | None:
    """List the scenes of an address or a text file of names, or return ``None`` for anything else.

    Names are as `process` takes them; paths among them start from the folder of the file. Empty lines, and
    lines that begin with ``#``, are none.

    Raises:
        OptionError: The file is no text, or has no name.
    """
    if is_gdal_name(src):
        return [_entry(os.fspath(src), dst)]
    path = Path(os.path.abspath(src))
    if not path.is_file():
        return None
    entries: dict[str, SceneEntry] = {}
    for name in _read(path):
        absolute = os.path.join(path.parent, name)
        entry = _entry(absolute if os.path.exists(absolute) or not is_gdal_name(name) else name, dst)
        entries[entry.input] = entry
    if not entries:
        raise OptionError(f"{path} names no scene, expected a name a line: write some, or name a folder")
    return list(entries.values())


def name_in(name: str, src: str | os.PathLike[str]) -> str:
    """Return the name of a scene as a user wrote it: a path from its folder, or the name itself."""
    return os.path.relpath(name, src) if os.path.isdir(src) else name


def output_stem(name: str) -> str:
    """Return the stem of the output of a name: of its last part, or of a subdataset's file and variable.

    A dot before a digit in the name of a folder is one of a number.
    """
    subdataset = _SUBDATASET.match(name)
    if subdataset is not None:
        file, variable = subdataset.groups()
        if file.isdigit():  # GTIFF_DIR:2:pages.tif has its page first
            file, variable = variable or "", file
        stem = "_".join([Path(file).stem, *([] if variable is None else [variable])])
    else:
        last = Path(unquote(name.split("?")[0]).rstrip("/"))
        whole = last.suffix[1:2].isdigit() and os.path.isdir(name)
        stem = last.name if whole else last.stem
    return re.sub(r"[^\w.+-]+", "_", stem).strip("_.") or "scene"


def _entry(name: str, dst: Path) -> SceneEntry:
    return SceneEntry(name, str(dst / f"{output_stem(name)}.tif"))


def _read(path: Path) -> list[str]:
    """Read the names in a text file."""
    message = (
        f"{path} is a file, expected a folder of scenes or a text file with a name a line: "
        "a single scene goes to decr-scene process"
    )
    if path.stat().st_size > MOST_BYTES:
        raise OptionError(message)
    text = decoded(path.read_bytes())
    if "\0" in text:
        raise OptionError(message)
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
