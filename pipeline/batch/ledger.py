"""Keep the ledger of a batch, which is for people and may be lost, and the lock of its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from decr_scene.pipeline.errors import LockedError, OutputError, OutputExistsError
from decr_scene.pipeline.files import os_faults, sync_to_disk, write_whole
from decr_scene.pipeline.inputs.addresses import without_secrets
from decr_scene.pipeline.system.locks import HeldError, Lock

PROGRAM = "decr-scene"
LEDGER = "batch.json"
LOCK = ".decr-scene.lock"

Status = Literal["pending", "done", "skipped", "failed"]


@dataclass(frozen=True)
class SceneEntry:
    """A scene in the ledger.

    Args:
        input: Absolute path, or an address.
        output: Absolute path; empty where the scene is left out.
        status: ``skipped``: finished by an earlier run, or left out; then ``error`` says why.
        seconds: Time that this run spent on it, s.
        error: One line.
        warnings: What a user should know of its output, a sentence each.
    """

    input: str
    output: str = ""
    status: Status = "pending"
    seconds: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchReport:
    """The content of a ledger; ``ended`` is ``None`` while a run is under way."""

    program: str
    version: str
    started: str
    ended: str | None
    scenes: tuple[SceneEntry, ...]

    def having(self, status: Status) -> list[SceneEntry]:
        """Return the scenes of one status, in order."""
        return [entry for entry in self.scenes if entry.status == status]

    def to_json(self) -> str:
        """Return the ledger as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


class Ledger:
    """The ledger of a run, on disk whole at any time; a context manager that writes it a last time."""

    def __init__(self, path: Path, entries: list[SceneEntry]) -> None:
        self.path, self.entries = path, entries
        self.started, self.ended = _now(), ""

    def __enter__(self) -> Ledger:
        self.save()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = _now()
        self.save()

    def pending(self) -> list[tuple[int, SceneEntry]]:
        """Return the scenes still to be processed, with their numbers."""
        return [(number, entry) for number, entry in enumerate(self.entries) if entry.status == "pending"]

    def report(self) -> BatchReport:
        """Return the present content, without the secrets of addresses."""
        entries = tuple(map(_without_secrets, self.entries))
        return BatchReport(PROGRAM, version(PROGRAM), self.started, self.ended or None, entries)

    def save(self) -> None:
        """Write the file.

        Raises:
            OutputError: It cannot be written.
        """
        with os_faults(f"cannot write {self.path}", self.path.parent), write_whole(self.path) as partial:
            partial.write_text(self.report().to_json(), encoding="utf-8")
            sync_to_disk(partial)


def _without_secrets(entry: SceneEntry) -> SceneEntry:
    error = None if entry.error is None else without_secrets(entry.error)
    warnings = tuple(map(without_secrets, entry.warnings))
    return replace(entry, input=without_secrets(entry.input), error=error, warnings=warnings)


def check_ledger(path: Path, overwrite: bool) -> None:
    """Refuse a place for the ledger before any work is done.

    Raises:
        OutputError: It is a link.
        OutputExistsError: It has something else, which is not to be replaced.
    """
    if os.path.islink(path):  # false where it may not be looked at
        raise OutputError(
            f"{path} is a link to {os.path.realpath(path)}, which the ledger would not follow: remove the "
            "link, or choose another --out folder"
        )
    if os.path.lexists(path) and not overwrite and not _is_ledger(path):
        raise OutputExistsError(
            f"{path} is not a ledger of ours: choose another --out folder, or --overwrite"
        )


def _is_ledger(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["program"] == PROGRAM
    except (OSError, ValueError, LookupError, TypeError):
        return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    The system releases it when the process ends, however it ends.
    """
    with os_faults(f"cannot lock {folder}", folder):
        try:
            lock = Lock(folder / LOCK, stays=True)
        except HeldError as busy:
            holder = str(busy) or "another batch"
            raise LockedError(
                f"{holder} is writing to {folder}: wait for it, or choose another --out"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
