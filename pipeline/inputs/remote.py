"""Fetch a raster from a web address once, to a file beside the output.

A run reads a scene three times: to detect cloud, to restore it, to check the output. After a broken
connection the part that came is kept, and the same call continues there if the address still has the same
file, by its ETag or time of change.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decr_scene.pipeline.errors import OutputError, ResumeError, SceneNotFoundError, SceneReadError
from decr_scene.pipeline.files import fetching_paths, lock_path
from decr_scene.pipeline.system.locks import HeldError, Lock

TRIES = 3
"""Greatest number of breaks of a connection in a row without a new byte."""

PAUSE = 1.0
"""Time between two tries, s."""

TIMEOUT = 60.0
"""Time without an answer after which a connection is broken, s."""

_CHUNK = 1 << 20
_RASTERS = (".tif", ".tiff", ".jp2", ".png")
_SIDECARS = (".msk", ".aux.xml")
_RPC = ("_RPC.TXT", "_rpc.txt", ".RPB")
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def is_fetched(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is a web address of one raster; settings of GDAL for the web leave it to GDAL."""
    parts = urlsplit(os.fspath(name))
    if parts.scheme not in ("http", "https") or not parts.path.lower().endswith(_RASTERS):
        return False
    return not any(variable.startswith("GDAL_HTTP_") for variable in os.environ)


@contextmanager
def fetched(address: str, path: Path, marker: Path) -> Iterator[dict[str, Any]]:
    """Fetch the raster of an address to a path, for a ``with``, and for as long as a run may be continued.

    Args:
        address: ``http://`` or ``https://``.
        path: Of the copy.
        marker: While this file exists, the copy is kept.

    Yields:
        For the report: ``address``, ``bytes``, ``etag``.

    Raises:
        SceneNotFoundError: The server has no such file.
        SceneReadError: The connection breaks, or the server refuses.
        OutputError: There is no room, or the folder cannot be written to.
        ResumeError: Another run has it at the same path.
    """
    lock = _locked(address, path)
    try:
        with _copy(address, path, marker) as facts:
            yield facts
    finally:
        lock.release()


@contextmanager
def _copy(address: str, path: Path, marker: Path) -> Iterator[dict[str, Any]]:
    state, partial = fetching_paths(path)
    if not (path.exists() and marker.exists() and _read(state).get("address") == address):
        path.unlink(missing_ok=True)
        with _disk_faults(address, path):
            _fetch(address, partial, state)
            partial.rename(path)
        _fetch_sidecars(address, path)
    facts = _read(state)
    try:
        yield {"address": address, "bytes": path.stat().st_size, "etag": facts.get("etag")}
    finally:
        if not marker.exists():
            sidecars = [path.with_name(path.stem + ending) for ending in _RPC]
            sidecars += [path.with_name(path.name + ending) for ending in _SIDECARS]
            for file in (path, state, *sidecars):
                file.unlink(missing_ok=True)


def _locked(address: str, path: Path) -> Lock:
    """Lock a path against other runs that fetch to it or remove it, until the lock is released."""
    try:
        with _disk_faults(address, path):
            return Lock(lock_path(path))
    except HeldError:
        raise ResumeError(
            f"{path} is in use: another run writes the same output; wait for it or take another name"
        ) from None


@contextmanager
def _disk_faults(address: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, (SceneReadError, *_BROKEN)):
            raise
        raise OutputError(f"{address} cannot be kept in {path.parent} ({error.strerror})") from error


def read_address(address: str) -> bytes:
    """Read a small file at an address.

    Raises:
        SceneNotFoundError: The server has no such file.
        SceneReadError: The connection breaks, or the server refuses.
    """
    try:
        with _open(address, {}) as answer:
            return bytes(answer.read())
    except _BROKEN as error:
        raise _trouble(address, error, "") from error


def _fetch(address: str, partial: Path, state: Path) -> None:
    """Write all of a file, in as many pieces as the connection breaks it into."""
    broken = 0
    if _read(state).get("address") != address:
        partial.unlink(missing_ok=True)
    while True:
        size = partial.stat().st_size if partial.exists() else 0
        try:
            total = _append(address, partial, state, size)
        except _BROKEN as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # nothing is left to fetch
                return
            size_now = partial.stat().st_size if partial.exists() else 0
            broken = broken + 1 if size_now == size else 1
            if isinstance(error, urllib.error.HTTPError) or broken >= TRIES:
                raise _trouble(address, error, f" after {size_now / 1e6:.1f} MB") from error
            time.sleep(PAUSE)
            continue
        if total is None or partial.stat().st_size >= total:
            return


def _append(address: str, partial: Path, state: Path, size: int) -> int | None:
    """Append the missing rest; return the size of the whole, if the server sends it, bytes.

    Raises:
        SceneReadError: The server sends another piece than the rest, or one of another file.
    """
    etag = _read(state).get("etag")
    range_headers = {"Range": f"bytes={size}-", "If-Range": etag} if size and etag else {}
    with _open(address, range_headers) as answer:
        part = answer.status == 206
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        begin, whole = _place(answer.headers.get("Content-Range", "")) if part else (0, None)
        if part and (begin != size or (size and mark not in (None, etag))):
            partial.unlink(missing_ok=True)
            raise SceneReadError(
                f"{address}: the server sends another piece than the rest from byte {size} on: fetch the "
                "file by other means"
            )
        state.write_text(json.dumps({"address": address, "etag": mark}))
        length = answer.headers.get("Content-Length", "")
        told = int(length) + (size if part else 0) if _is_number(length) else None
        total = told if whole is None else whole
        with partial.open("ab" if part else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
        if total is not None and partial.stat().st_size < total:
            raise http.client.IncompleteRead(b"")
    return total


def _place(content_range: str) -> tuple[int | None, int | None]:
    """Read the first byte and the size of the whole from ``Content-Range``; ``None``: not told."""
    found = re.fullmatch(r"\s*bytes\s+([0-9]+)-[0-9]+/([0-9]+|\*)\s*", content_range)
    if found is None:
        return None, None
    return int(found[1]), int(found[2]) if found[2] != "*" else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+", text) is not None


def _fetch_sidecars(address: str, path: Path) -> None:
    """Fetch masks, statistics and RPCs from the addresses where GDAL reads them; mostly there are none."""
    parts = urlsplit(address)
    stem = re.sub(r"\.\w+$", "", parts.path)
    addresses = {path.name + ending: parts.path + ending for ending in _SIDECARS}
    addresses |= {path.stem + ending: stem + ending for ending in _RPC}
    for name, remote_path in addresses.items():
        with suppress(*_BROKEN), _open(parts._replace(path=remote_path).geturl(), {}) as answer:
            path.with_name(name).write_bytes(answer.read())


def _open(address: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(address, headers={"User-Agent": "decr-scene", **headers})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _read(state: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        values = json.loads(state.read_text())
        return values if isinstance(values, dict) else {}
    return {}


def _trouble(address: str, error: Exception, when: str) -> SceneReadError:
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (404, 410):
            return SceneNotFoundError(f"{address}: no such file there (HTTP {error.code}): check the address")
        return SceneReadError(f"{address}: the server refuses it (HTTP {error.code} {error.reason})")
    reason = getattr(error, "reason", None) or type(error).__name__
    return SceneReadError(
        f"{address}: the connection broke{when} ({reason}): what has come is kept, the same command goes on"
    )
