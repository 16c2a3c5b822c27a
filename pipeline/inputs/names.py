"""Resolve names of rasters: paths, or names of GDAL's own for pages, members and addresses."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from decr_scene.pipeline.errors import OptionError, SceneReadError
from decr_scene.pipeline.files import SIDECARS

_PREFIX = re.compile(r"^(/vsi\w+/|(?:zip|tar|gzip|7z|rar)\+|file://|[A-Za-z0-9]+://)")
_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)|(https?|ftp|s3|gs|az|oss)://")
_FILE = re.compile(r"^file://(?:localhost)?(?=/)", re.IGNORECASE)
_DRIVE = re.compile(r"^/[A-Za-z]:[/\\]")
_AROUND = "{}\"'"


def full_name(name: str | os.PathLike[str]) -> str:
    """Return a name with absolute paths of its files, valid in any folder.

    Raises:
        SceneReadError: As `refuse_pipe`.
        OptionError: It is no name.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise OptionError(f"the input is a {type(name).__name__}, expected a path or a name")
    text = local_path(name)
    refuse_pipe(text)
    if os.path.exists(text):
        return os.path.abspath(text)
    for file in _files_in(text):
        if not os.path.isabs(file):
            text = text.replace(file, os.path.abspath(file), 1)
    return text


def local_path(name: str | os.PathLike[str]) -> str:
    """Return the path of a ``file://`` address of this machine; any other name as it is."""
    text = os.fspath(name)
    match = _FILE.match(text)
    if match is None:
        return text
    path = text[match.end() :]
    return on_disk(path.lstrip("/") if _DRIVE.match(path) else path)


def on_disk(path: str) -> str:
    """Decode a path that is there when decoded: references are percent-encoded, though many are not."""
    decoded = unquote(path)
    return decoded if not os.path.exists(path) and os.path.exists(decoded) else path


def for_gdal(name: str) -> str:
    """Return a name that GDAL opens also inside a VRT: web addresses have a prefix there."""
    return f"/vsicurl/{name}" if name.lower().startswith(("http://", "https://", "ftp://")) else name


def resolved_name(name: str) -> str:
    """Return a name that workers elsewhere find, links followed; of what is no file here as `full_name`.

    Raises:
        SceneReadError: As `refuse_pipe`.
    """
    refuse_pipe(name)
    return os.path.realpath(name) if os.path.exists(name) else full_name(name)


def refuse_pipe(path: str | os.PathLike[str]) -> None:
    """Refuse an input, or what GDAL reads beside it, that is there and no file.

    Its end could be waited for in vain.

    Raises:
        SceneReadError: It is a pipe, a socket, a device or standard input.
    """
    if os.fspath(path).startswith("/vsistdin"):
        raise SceneReadError(f"{os.fspath(path)} can be read once only: write it to a file first")
    for name in (os.fspath(path) + ending for ending in ("", *SIDECARS)):
        if os.path.exists(name) and not (os.path.isfile(name) or os.path.isdir(name)):
            raise SceneReadError(f"{name} is a pipe or a device, expected a file: write it to one first")


def local_files(name: str | os.PathLike[str]) -> list[str]:
    """List the local files of a name (itself, an archive, a container), none of an address."""
    text = local_path(name)
    files = [text] if os.path.isfile(text) else _files_in(text)
    return [os.path.abspath(file) for file in files]


def is_gdal_name(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is no existing path, but may be one of GDAL's own."""
    text = os.fspath(name)
    return not os.path.exists(text) and ("/vsi" in text or ":" in text or "<" in text)


def _files_in(text: str) -> list[str]:
    """List the parts of a name that are files, unchanged."""
    if "<" in text or "\0" in text or _REMOTE.search(text):  # the text of a VRT, or an address
        return []
    while match := _PREFIX.match(text):
        text = text[match.end() :]
    whole = [text, *re.split(r"[:!,]|\.zip/(?=vsi)", text)]
    files = (_file_at_head(part.strip(_AROUND).split("}")[0]) for part in whole)
    return list(dict.fromkeys(file for file in files if file))


def _file_at_head(path: str) -> str:
    """Return the file that a path leads to or through, empty if there is none."""
    while path and not os.path.isfile(path):
        path = os.path.dirname(path) if os.path.dirname(path) != path else ""
    return path
