"""Keep the origin of a training run in its folder: configuration, versions and a fingerprint of the data.

A continued run checks the fingerprint: other data would give other weights than an unbroken run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import model_sha256
from decr_scene.models.errors import TrainingError
from decr_scene.models.training.loop import CHECKPOINT
from decr_scene.pipeline.files import file_sha256

CONFIG, RUN, DATA = "config.toml", "run.json", "data.csv"

_DATA_OF = f"data-{CONFIG}"
_NAMES_CONFIG = re.compile(rf"""^[ \t]*data\s*=\s*["']{re.escape(CONFIG)}["']""", re.MULTILINE)

HASHED_BYTES = 2**28
"""Greatest size of a file that is digested, bytes; larger ones have name, size and time of change alone."""

Row = tuple[str, str, str]


def weights_of(place: Path) -> Path:
    """Find the checkpoint of a run folder, else a model's file by its path or name.

    Raises:
        UnknownModelError: There is neither.
    """
    return place / CHECKPOINT if place.is_dir() else find_model(place)


def open_run_folder(
    folder: Path, texts: Mapping[str, str] | None, root: Path, files: list[Path], initial: list[Path]
) -> None:
    """Write the origin of the run, or check it when the run is continued.

    Args:
        folder: The run folder; made if it does not exist.
        texts: TOML of the run, as its author wrote it, then of the run whose data it takes, if any, by name;
            one of the name that the first gets is kept under another, by which the copies name it.
        root: Folder that the data are relative to.
        files: Every image that the run reads.
        initial: Checkpoints of the stages before.

    Raises:
        TrainingError: The run has begun with other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listing = fingerprint(root, files)
    begun = (folder / CHECKPOINT).exists()
    if begun and (folder / DATA).exists():
        _check_same(folder, listing)
    record = _read(folder / RUN) if begun else {}
    if begun and record:
        record["resumed"] = [*record.get("resumed", []), {"at": _now(), "versions": versions()}]
    else:
        record = {
            "started": _now(),
            "versions": versions(),
            "data": _summary(root, listing),
            "initial": [{"path": str(path), "sha256": model_sha256(path)} for path in initial],
        }
    if texts:
        for place, text in _under_own_names(texts).items():
            (folder / place).write_text(text, encoding="utf-8")
    (folder / DATA).write_text(_to_csv(listing), encoding="utf-8", newline="")
    (folder / RUN).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _under_own_names(texts: Mapping[str, str]) -> dict[str, str]:
    """Name the first text `CONFIG`; another one that is called so gets a name by which the copies call it."""
    own, *others = texts
    if CONFIG not in others:
        return {CONFIG if name == own else name: text for name, text in texts.items()}
    names = {own: CONFIG, CONFIG: _DATA_OF}
    copies = {name: _NAMES_CONFIG.sub(f'data = "{_DATA_OF}"', text) for name, text in texts.items()}
    return {names.get(name, name): text for name, text in copies.items()}


def weights_begun_with(folder: Path) -> set[str] | None:
    """Read the digests of the weights that a run began with, or return ``None`` if none is under way."""
    record = _read(folder / RUN) if (folder / CHECKPOINT).exists() else {}
    try:
        return {str(weights["sha256"]) for weights in record["initial"]}
    except (LookupError, TypeError):  # an earlier version's, or somebody else's
        return None


def versions() -> dict[str, str]:
    """Return the versions of everything that the weights depend on."""
    return {
        "python": platform.python_version(),
        "decr-scene": version("decr-scene"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
        "machine": platform.machine(),
    }


def fingerprint(root: Path, files: list[Path]) -> list[Row]:
    """List name, bytes and sha256 of every file, or the time of change of files above `HASHED_BYTES`."""
    return [_row(root, path) for path in sorted(set(files))]


def _row(root: Path, path: Path) -> Row:
    stat = path.stat()
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    state = file_sha256(path) if stat.st_size <= HASHED_BYTES else f"changed {stat.st_mtime_ns}"
    return name, str(stat.st_size), state


def _summary(root: Path, listing: list[Row]) -> dict[str, Any]:
    return {
        "root": str(root),
        "files": len(listing),
        "bytes": sum(int(row[1]) for row in listing),
        "sha256 of data.csv": hashlib.sha256(_to_csv(listing).encode()).hexdigest(),
    }


def _check_same(folder: Path, listing: list[Row]) -> None:
    with (folder / DATA).open(encoding="utf-8", newline="") as file:
        before = {(row[0], row[1], row[2]) for row in list(csv.reader(file))[1:]}
    changed = sorted({row[0] for row in before ^ set(listing)})
    if changed:
        raise TrainingError(
            f"{folder} was begun with other data, {len(changed)} files differ: {', '.join(changed[:5])}; "
            "bring them back, or take another folder"
        )


def _to_csv(listing: list[Row]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("name", "bytes", "sha256"), *listing])
    return text.getvalue()


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or cut short by a kill: it is written again
        return {}
    return values


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
