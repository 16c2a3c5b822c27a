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
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import (
    DamagedCopyError,
    DiskSpaceError,
    OutputError,
    ResumeError,
    SceneNotFoundError,
    SceneReadError,
)
from decr_scene.pipeline.files import fetching_paths, free_disk, lock_path, size_in_words
from decr_scene.pipeline.inputs.addresses import without_secrets, without_signature
from decr_scene.pipeline.system.locks import HeldError, Lock

TRIES = 3
"""Greatest number of breaks of a connection in a row without a new byte."""

PAUSE = 1.0
"""Time between two tries, s."""

TIMEOUT = 60.0
"""Time without an answer after which a connection is broken, s."""

LEAST = 1000
"""Bytes that a connection gives in that time, or is broken, too."""

LARGEST_SIDECAR = 1 << 28
"""Greatest size of a file beside a scene that is fetched with it, bytes."""

_CHUNK = 1 << 20
_RASTERS = (".tif", ".tiff", ".jp2", ".png")
_SIDECARS = (".msk", ".aux.xml")
_RPC = ("_RPC.TXT", "_rpc.txt", ".RPB")
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def is_fetched(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is a web address of one raster.

    Settings of GDAL for the web leave it to GDAL.
    """
    text = os.fspath(name)
    if not text.lower().startswith(("http://", "https://")):
        return False
    if not path_of_address(text).lower().endswith(_RASTERS):
        return False
    return not any(variable.startswith("GDAL_HTTP_") for variable in os.environ)


def path_of_address(name: str) -> str:
    """Return the path in an address, which a plain path is as a whole, empty if it is malformed."""
    try:
        return urlsplit(name).path
    except ValueError:
        return ""


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
        SceneReadError: It is no address, the connection breaks, or the server refuses.
        DamagedCopyError: What came cannot be read; it is not kept.
        OutputError: There is no room, or the folder cannot be written to.
        ResumeError: Another run has it at the same path.
    """
    _check_address(address)
    lock = _locked(address, path)
    try:
        with _copy(address, path, marker) as facts:
            yield facts
    finally:
        lock.release()


@contextmanager
def _copy(address: str, path: Path, marker: Path) -> Iterator[dict[str, Any]]:
    state, partial = fetching_paths(path)
    if not (path.exists() and marker.exists() and _is_of(state, address)):
        path.unlink(missing_ok=True)
        with _disk_faults(address, path):
            _fetch(address, partial, state)
            partial.replace(path)
        _fetch_sidecars(address, path)
    facts = _read(state)
    damaged = False
    try:
        yield {"address": address, "bytes": path.stat().st_size, "etag": facts.get("etag")}
    except DecrSceneError as error:
        text = _with_address(str(error), address, path)
        damaged = isinstance(error, SceneReadError) and text != str(error)
        if damaged:
            begun = "; --no-resume fetches it anew" if marker.exists() else ""
            raise DamagedCopyError(text + begun) from error
        if text != str(error):
            raise type(error)(text) from error
        raise
    finally:
        if damaged or not marker.exists():
            sidecars = [path.with_name(path.stem + ending) for ending in _RPC]
            sidecars += [path.with_name(path.name + ending) for ending in _SIDECARS]
            for file in (path, state, *sidecars):
                file.unlink(missing_ok=True)


def _with_address(text: str, address: str, path: Path) -> str:
    """Name an address in the place of its copy, which is hidden and soon gone."""
    for name in (os.path.abspath(path), os.fspath(path)):
        text = text.replace(name, address)
    return text.replace(path.name, path_of_address(address).rpartition("/")[2])


def _check_address(address: str) -> None:
    """Refuse an address that leads to no server, or that nobody else may see.

    Raises:
        SceneReadError: It is one.
    """
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        raise SceneReadError(
            f"{parts.scheme}://...@{parts.hostname}{parts.path} has a user and a password, which every "
            "list of processes shows: take them out, and set the variable GDAL_HTTP_USERPWD=user:password"
        )


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
        if isinstance(error, (DecrSceneError, *_BROKEN)):
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
        raise _trouble(address, error, 0) from error


def _fetch(address: str, partial: Path, state: Path) -> None:
    """Write all of a file, in as many pieces as the connection breaks it into."""
    broken = 0
    if not _is_of(state, address):
        partial.unlink(missing_ok=True)
    while True:
        size = partial.stat().st_size if partial.exists() else 0
        try:
            total = _append(address, partial, state, size)
        except _BROKEN as error:
            size_now = partial.stat().st_size if partial.exists() else 0
            if isinstance(error, urllib.error.HTTPError) and error.code == 416 and size_now:
                return  # nothing is left to fetch
            broken = broken + 1 if size_now - size < LEAST else 1
            if isinstance(error, urllib.error.HTTPError) or broken >= TRIES:
                if not size_now:
                    partial.unlink(missing_ok=True)
                    state.unlink(missing_ok=True)
                raise _trouble(address, error, size_now) from error
            time.sleep(PAUSE)
            continue
        if total is None or partial.stat().st_size >= total:
            return


def _append(address: str, partial: Path, state: Path, size: int) -> int | None:
    """Append the missing rest, and return the size of the whole in bytes, if the server sends it.

    Raises:
        SceneReadError: The server sends another piece than the rest, or one of another file.
        DiskSpaceError: The rest has no room.
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
        state.write_text(json.dumps({"address": without_secrets(address), "etag": mark}), encoding="utf-8")
        length = answer.headers.get("Content-Length", "")
        announced = int(length) + (size if part else 0) if _is_number(length) else None
        total = announced if whole is None else whole
        _check_room(address, partial, None if total is None else total - (size if part else 0))
        with partial.open("ab" if part else "wb") as file:
            for chunk in _chunks(answer):
                file.write(chunk)
        if total is not None and partial.stat().st_size < total:
            raise http.client.IncompleteRead(b"")
    return total


def _check_room(address: str, partial: Path, rest: int | None) -> None:
    folder = partial.absolute().parent
    if rest is not None and rest > shutil.disk_usage(folder).free:
        raise DiskSpaceError(
            f"{address}: {size_in_words(rest)} are still to come, {free_disk(folder)} are free in {folder}: "
            "free some disk, or take another --out"
        )


def _chunks(answer: Any) -> Iterator[bytes]:
    """Yield what comes, as it comes.

    Raises:
        TimeoutError: It comes too slowly ever to end.
    """
    began, got = time.monotonic(), 0
    while chunk := answer.read1(_CHUNK):
        yield chunk
        got += len(chunk)
        if time.monotonic() - began > TIMEOUT:
            if got < LEAST:
                raise TimeoutError(f"only {got} bytes in {TIMEOUT:.0f} s")
            began, got = time.monotonic(), 0


def _place(content_range: str) -> tuple[int | None, int | None]:
    """Read the first byte and the size of the whole from ``Content-Range``, each ``None`` if unknown."""
    found = re.fullmatch(r"\s*bytes\s+([0-9]+)-[0-9]+/([0-9]+|\*)\s*", content_range)
    if found is None:
        return None, None
    return int(found[1]), int(found[2]) if found[2] != "*" else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+", text) is not None


def _fetch_sidecars(address: str, path: Path) -> None:
    """Fetch masks, statistics and RPCs from the addresses where GDAL reads them.

    Mostly there are none. A server that lets wait for one is asked for no more.
    """
    parts = urlsplit(address)
    stem = re.sub(r"\.\w+$", "", parts.path)
    addresses = {path.name + ending: parts.path + ending for ending in _SIDECARS}
    addresses |= {path.stem + ending: stem + ending for ending in _RPC}
    for name, remote_path in addresses.items():
        content = b""
        try:
            with _open(parts._replace(path=remote_path).geturl(), {}) as answer:
                content = answer.read(LARGEST_SIDECAR + 1)
        except (SceneReadError, *_BROKEN) as error:
            if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
                return
        if 0 < len(content) <= LARGEST_SIDECAR:
            path.with_name(name).write_bytes(content)


def _open(address: str, headers: Mapping[str, str]) -> Any:
    """Ask for an address.

    Raises:
        SceneReadError: It is none, or leads to none.
    """
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "decr-scene", **headers})
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except (ValueError, http.client.InvalidURL) as error:
        raise SceneReadError(
            f"{address} is no web address, or leads to none ({error}): check it, and write %20 for a space"
        ) from error


def _read(state: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        values = json.loads(state.read_text(encoding="utf-8"))
        return values if isinstance(values, dict) else {}
    return {}


def _is_of(state: Path, address: str) -> bool:
    """Return whether what came is of an address, however that was signed then."""
    return without_signature(str(_read(state).get("address", ""))) == without_signature(address)


def _trouble(address: str, error: Exception, size: int) -> SceneReadError:
    """Make the error of ours about a connection that gave some bytes."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            return SceneNotFoundError(f"{address}: no such file there (HTTP {error.code}): check the address")
        answer = " ".join(f"{error.code} {error.reason}".split())
        return SceneReadError(f"{address}: the server refuses it (HTTP {answer}): check the address")
    text = str(error) if isinstance(error, TimeoutError) else type(error).__name__
    reason = getattr(error, "reason", None) or text
    if not size:
        return SceneReadError(
            f"{address}: nothing comes from there ({reason}): check the address and the network, then run "
            "again"
        )
    return SceneReadError(
        f"{address}: the connection broke after {size / 1e6:.1f} MB ({reason}): what has come is kept, the "
        "same command goes on"
    )
