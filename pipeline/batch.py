"""`process_directory`: a folder of scenes as one job that may be killed and started again.

find scenes -> refuse what cannot be right -> lock the out folder -> set apart what is finished -> the rest,
each on its own -> ledger.

What is finished is read off the reports beside the outputs. The ledger is for people: losing it loses nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from decr_scene.pipeline.errors import (
    ClusterError,
    OutputError,
)
from decr_scene.pipeline.run import Progress

PATTERN = "*.tif,*.tiff,*.jp2,*.vrt"
LEDGER = "batch.json"
LOCK = ".decr-scene.lock"

Status = Literal["pending", "done", "skipped", "failed"]

_PROGRAM = "decr-scene"
_COMPANIONS = ("", "_provenance", "_uncertainty")
_INDIFFERENT = ("batch_size", "device")
"""Parameters that leave the pixels as they are: another one is no reason to begin anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneEntry:
    """A scene in the ledger.

    Args:
        input: Absolute path.
        output: Absolute path; empty where there is none to be.
        status: ``skipped``: finished by an earlier run, or left out; then ``error`` says why.
        seconds: That this run worked on it.
        error: One line.
    """

    input: str
    output: str = ""
    status: Status = "pending"
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class BatchReport:
    """What became of a folder, as it stands in the ledger; ``ended`` is missing while a run is under way."""

    program: str
    version: str
    started: str
    ended: str | None
    scenes: tuple[SceneEntry, ...]

    def having(self, status: Status) -> list[SceneEntry]:
        """The scenes of one status, in order."""
        return [entry for entry in self.scenes if entry.status == status]

    def to_json(self) -> str:
        """The ledger as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def process_directory(
    src_dir: str | Path,
    dst_dir: str | Path,
    *,
    pattern: str = PATTERN,
    recursive: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    scene_progress: Callable[[str], Progress] | None = None,
    **options: Any,
) -> BatchReport:
    """Remove the clouds of all scenes of a folder, into a folder of the same tree, and keep a ledger there.

    A scene that fails stops no other. A scene that is finished is left alone: its output is whole, and the
    report beside it tells of the same input, model and parameters. An output that is out of date is made
    anew. ``compress``, ``blocksize``, ``quicklook``, ``batch_size`` and ``device`` do not put one out of date.

    Args:
        src_dir: The folder; links that leave it are not followed, hidden files are not seen.
        dst_dir: Where outputs, reports and the ledger go; made if need be.
        pattern: Names of the scenes, comma-separated; upper and lower case are the same.
        recursive: Enter the folders in the folder.
        overwrite: Replace outputs that are not this program's, or come from another input.
        progress: Told how many scenes are done.
        scene_progress: Given the name of a scene that begins, gives what is to be told of its tiles.
        **options: As `process_scene`. A ``restorer`` counts as the same if its ``repr`` is, and never if that
            has its address in memory.

    Returns:
        What is in the ledger.

    Raises:
        OptionError: A wrong option; two scenes of one output; outputs among the inputs; nothing to do.
        LockedError: Another batch writes to the same folder.
        ClusterError: No cluster, before any scene was done.
        OutputError: The folder cannot be made or written to.
    """
    src, dst = Path(os.path.abspath(src_dir)), Path(os.path.abspath(dst_dir))
    recipe = _recipe(options)
    entries = find_scenes(src, dst, pattern, recursive)
    tell = progress or (lambda done, total: None)
    _make_folder(dst)
    with _locked(dst), _Ledger(dst / LEDGER, entries, overwrite) as ledger:
        for number, entry in ledger.pending():
            if recipe is not None and _is_finished(Path(entry.input), Path(entry.output), recipe):
                ledger.entries[number] = replace(entry, status="skipped")
        ledger.save()
        for number, entry in ledger.pending():
            tell(len(entries) - len(ledger.pending()), len(entries))
            name = os.path.relpath(entry.input, src)
            told = scene_progress(name) if scene_progress is not None else None
            try:
                ledger.entries[number] = _attempt(entry, overwrite, {**options, "progress": told})
            except ClusterError:
                if not ledger.report().having("done"):
                    raise
            with suppress(OutputError):  # a full disk may have room again for the next scene
                ledger.save()
        tell(len(entries), len(entries))
    return ledger.report()
