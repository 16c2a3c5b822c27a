"""Name hidden files beside an output, check outputs, and replace files only when they are whole."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises, under no public name
from rasterio.errors import RasterioError

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import OutputError, OutputExistsError

SIDECARS = (".aux.xml", ".ovr", ".msk")
"""Endings of the files beside a GeoTIFF that GDAL reads as parts of it."""

GEOTIFF = (".tif", ".tiff")
"""What names of outputs end in."""

UNFINISHED = "unfinished"
"""Token of a run with a guard, which another run can continue."""

_NOT_ON_WINDOWS = '<>:"/\\|?*'
_NUMBERED = [f"{kind}{number}" for kind in ("COM", "LPT") for number in range(1, 10)]
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *_NUMBERED})

ELSEWHERE = "choose another folder, or change its permissions"
"""What to do where nothing may be written."""

_AGAIN = "check the disk, then run again"

PARTS = ("scratch", "cog")
"""Hidden parts of an output: blocks, and the finished file before it has its name."""


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
        OutputError: Its folder is missing or not writable; it is a directory, a link or a device; it is the
            input.
    """
    path = Path(path)
    _check_folder(path)
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"{path} is a directory, expected the name of a file: add one")
    if source is not None and is_same_file(source, path):
        raise OutputError(f"{path} is the input itself: choose another name for the output")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is a device or a pipe, expected the name of a file: choose another name")
    if path.is_symlink():
        target = os.path.realpath(path)
        raise OutputError(f"{path} is a link to {target}, which an output would not follow: name {target}")
    existing = [p for p in (with_ending(path, suffix) for suffix in ("", *SIDECARS)) if os.path.lexists(p)]
    if existing and not overwrite:
        raise OutputExistsError(f"{existing[0]} exists: choose another name, or replace it with --overwrite")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} is not writable: {ELSEWHERE}")


def _check_folder(path: Path) -> None:
    """Refuse an output in a folder that is not there, or that may not be looked into.

    Raises:
        OutputError: It is one.
    """
    folder = path.absolute().parent
    try:
        reason = "" if stat.S_ISDIR(os.stat(folder).st_mode) else "this is no folder"
    except FileNotFoundError:
        reason = "no such folder"
    except OSError as error:
        reason = error.strerror or str(error)
    if not reason and not os.access(folder, os.X_OK):
        reason = "this folder may not be looked into"
    if reason:
        raise OutputError(f"{folder}: {reason}, where {path.name} was to be written: choose another folder")


def check_no_input(
    targets: Iterable[str | os.PathLike[str]], inputs: Iterable[tuple[str, str | os.PathLike[str] | None]]
) -> None:
    """Refuse outputs that are inputs, by any name, even with ``--overwrite``.

    Args:
        targets: All that is written.
        inputs: Descriptions and paths of the inputs; ``None`` and missing files are skipped.

    Raises:
        OutputError: One is the other.
    """
    there = {_identity(path): path for path in targets if os.path.exists(path)}
    if not there:
        return
    for what, path in inputs:
        if path is not None and os.path.isfile(path) and (target := there.get(_identity(path))) is not None:
            raise OutputError(
                f"{os.fspath(target)} is {what}: choose another name for the output, which no input may have"
            )


def files_under(place: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a file, or all those in a folder, however deep."""
    if os.path.isfile(place):
        yield os.fspath(place)
    for folder, _, names in os.walk(place):
        yield from (os.path.join(folder, name) for name in names)


def written_for(output: Path) -> list[Path]:
    """List the names that making an output writes or removes, but for lasting side files."""
    return [output, *(with_ending(output, suffix) for suffix in SIDECARS), *_hidden(output)]


def _hidden(output: Path) -> list[Path]:
    """List the temporary names beside an output."""
    journal, source = journal_path(output), source_path(output)
    return [
        *(journal, lock_path(journal), tiles_path(output)),
        *(source, lock_path(source), *fetching_paths(source)),
        *(name(output) for name in (detection_path, ground_path, vrt_path, mark_path)),
        *(part_path(output, UNFINISHED, role) for role in PARTS),
    ]


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def check_name(output: Path) -> None:
    """Refuse a name that no file can have, or no temporary file beside the output.

    Raises:
        OutputError: It is empty, too long, or promises another format than GeoTIFF; or its folder is missing.
    """
    try:
        os.fspath(output.absolute()).encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"{output} has bytes that are no UTF-8, which no raster can be written under: choose another name"
        ) from None
    if os.path.exists(output) and not (os.path.isfile(output) or os.path.isdir(output)):
        raise OutputError(f"{output} is a device or a pipe, expected the name of a file: choose another name")
    if not output.name:
        raise OutputError(f"{output} is not the name of a file: choose one, such as clean.tif")
    if os.name == "nt" and (trouble := refused_by_windows(output.name)):
        raise OutputError(f"{output} {trouble}, which Windows has no file for: choose another name")
    if output.suffix.lower() not in GEOTIFF:
        raise OutputError(
            f"{output} ends in {output.suffix or 'nothing'!r}, expected .tif, as the output is a GeoTIFF: "
            f"choose {output.with_suffix('.tif')}"
        )
    _check_folder(output)
    folder = output.absolute().parent
    length = len(os.fsencode(output.name))
    room = _longest_name(folder) - _longest()
    if length > room:
        raise OutputError(
            f"{output.name[:40]}... has {length} bytes, expected at most {room}, so that there is room for "
            "the names beside it: choose a shorter one"
        )


def _longest_name(folder: Path) -> int:
    """Return the greatest length of a file name in a folder, in bytes or, on Windows, characters."""
    return os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255


def refused_by_windows(name: str) -> str | None:
    """Find what Windows refuses in the name of a file: a character, a device, a dot at the end."""
    if bad := [c for c in name if c in _NOT_ON_WINDOWS or ord(c) < 32]:
        return f"has {bad[0]!r}"
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        return f"is the device {name.partition('.')[0].upper()}"
    return f"ends in {name[-1]!r}" if name.endswith((".", " ")) else None


def is_same_file(one: str | os.PathLike[str], other: Path) -> bool:
    """Return whether two names are of one file that exists."""
    return os.path.exists(one) and other.exists() and os.path.samefile(one, other)


def with_ending(path: Path, suffix: str) -> Path:
    """Add an ending to a name."""
    return path.with_name(path.name + suffix)


def journal_path(output: Path) -> Path:
    """Return the path of the journal of an unfinished output."""
    return output.with_name(f".{output.name}.{UNFINISHED}.jsonl")


def lock_path(path: Path) -> Path:
    """Return the path of the lock of a hidden file, such as a journal."""
    return with_ending(path, ".lock")


def tiles_path(output: Path) -> Path:
    """Return the path of the finished tiles of an unfinished output."""
    return output.with_name(f".{output.name}.{UNFINISHED}.tiles")


def part_path(output: Path, token: str, role: str) -> Path:
    """Return the path of a part of an output.

    The token separates runs.
    """
    return output.with_name(f".{output.name}.{token}.{role}.partial.tif")


def detection_path(output: Path) -> Path:
    """Return the path of the cloud detector's raster of an unfinished output."""
    return output.with_name(f".{output.name}.cloud.partial.tif")


def ground_path(output: Path) -> Path:
    """Return the path of the raster of the ground of an unfinished output."""
    return output.with_name(f".{output.name}.ground.partial.tif")


def source_path(output: Path) -> Path:
    """Return the path of a scene from a web address of an unfinished output."""
    return output.with_name(f".{output.name}.source.partial.tif")


def fetching_paths(source: Path) -> tuple[Path, Path]:
    """Return the paths of the state and of the part of a scene that is being fetched."""
    return source.with_suffix(".json"), source.with_suffix(".download")


def vrt_path(output: Path) -> Path:
    """Return the path of the VRT of a sharpened scene of an unfinished output."""
    return output.with_name(f".{output.name}.pansharpened.vrt")


def mark_path(output: Path) -> Path:
    """Return the path of the mark of a batch: the state of an output before it was replaced."""
    return output.with_name(f".{output.name}.batch.partial")


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden name to write a file under, renamed when the ``with`` succeeds, else removed.

    Under its own name it survives a power cut.
    """
    partial = path.with_name(f".{path.stem.lstrip('.')}.partial{path.suffix}")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        sync_to_disk(partial)
        os.replace(partial, path)
        sync_to_disk(path.absolute().parent)
    finally:
        partial.unlink(missing_ok=True)


def write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Write a CSV, whole or not at all."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*head], *rows])


def _longest() -> int:
    """Return the bytes by which the longest hidden name beside an output exceeds its own."""
    output = Path("_uncertainty.tif")  # the longest that a companion's name has more
    return max(len(path.name) for path in _hidden(output)) + max(map(len, SIDECARS)) - len(output.suffix)


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def os_faults(what: str, folder: Path, advice: str = _AGAIN) -> Iterator[None]:
    """Convert errors of the system or GDAL to our own.

    Our own errors pass.

    Args:
        what: What cannot be done.
        folder: Where, for the free disk.
        advice: What to do.

    Raises:
        OutputError: Instead of the error raised.
    """
    try:
        yield
    except DecrSceneError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EROFS or (number in (errno.EACCES, errno.EPERM) and advice == _AGAIN):
            raise OutputError(f"{what} ({reason}): {ELSEWHERE}") from error
        raise OutputError(f"{what} ({reason}; {free_disk(folder)} free): {advice}") from error


def free_disk(folder: Path) -> str:
    """Measure the free disk of a folder, in words."""
    return size_in_words(shutil.disk_usage(folder).free)


def size_in_words(size: int) -> str:
    """Format a number of bytes: from a hundredth of a GB on in GB, below in MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # which syncs them itself, and opens no folder
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder, and those that it is in.

    Args:
        folder: The folder.
        option: The one that names another.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"folder {folder} cannot be made ({error.strerror}): choose another {option} folder"
        ) from error
