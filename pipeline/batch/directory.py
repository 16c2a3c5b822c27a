"""Process a folder of scenes as one job that may be killed and started again.

find scenes -> check their outputs -> lock the out folder -> skip finished scenes -> process the rest one by
one -> ledger.

Reports beside the outputs decide which scenes are finished; the ledger is for people and may be lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from distributed import Client

from decr_scene.pipeline.batch.discovery import find_scenes
from decr_scene.pipeline.batch.earlier_outputs import (
    PreviousOutput,
    finished_output,
    may_replace,
    recipe_of,
    replacement_marked,
)
from decr_scene.pipeline.batch.ledger import (
    LEDGER,
    BatchReport,
    Ledger,
    SceneEntry,
    Status,
    check_ledger,
    locked,
)
from decr_scene.pipeline.batch.names import name_in
from decr_scene.pipeline.defaults import BLOCKSIZE, SCENES
from decr_scene.pipeline.engine.cluster import check_dashboard, check_workers, memory_bytes, one_cluster
from decr_scene.pipeline.errors import (
    ClusterError,
    ForkError,
    OptionError,
    OutputError,
    ResumeError,
    RunCancelledError,
    in_one_line,
)
from decr_scene.pipeline.files import check_no_input, make_folder
from decr_scene.pipeline.inputs.addresses import secrets_hidden, without_secrets
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.outputs.report import Report
from decr_scene.pipeline.planning.options import Choices, Options, as_text
from decr_scene.pipeline.run import process_scene
from decr_scene.pipeline.system.progress import CancelToken, Progress, Watch
from decr_scene.pipeline.writing.scratch import check_blocksize

_log = logging.getLogger(__name__)


def process_directory(
    src_dir: str | Path,
    dst_dir: str | Path,
    options: Options | None = None,
    *,
    pattern: str = SCENES,
    recursive: bool = False,
    folders: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    client: Client | None = None,
    memory_limit: int | str | None = None,
    dashboard: bool = False,
    overwrite: bool = False,
    compress: str = "auto",
    blocksize: int = BLOCKSIZE,
    quicklook: bool = False,
    stac: bool = False,
    polygons: None = None,
    resume: bool = True,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    **named: Unpack[Choices],
) -> BatchReport:
    """Remove the clouds of all scenes of a folder, into a folder of the same tree, and keep a ledger there.

    A scene that fails stops no other. A finished scene is skipped: its output is whole, and the report beside
    it has the same input, model and parameters. An output that is out of date is made again, and so is one
    with a file missing that its report lists; another ``compress``, ``blocksize``, ``quicklook``, ``stac``,
    ``batch_size`` or ``device`` does not make it out of date.

    Args:
        src_dir: The folder; links that leave it are not followed, hidden files are left out. Or a text file
            with a name a line, paths or addresses as `process_scene` takes them, or one address: each becomes
            the output of its last part. What is fetched from the web counts as unchanged.
        dst_dir: Folder of outputs, reports and the ledger; made if it is missing.
        options: All options as one value; ``None``: the defaults. A ``restorer`` counts as the same if its
            ``repr`` is, and never if that has its address in memory.
        pattern: Names of the scenes, comma-separated; upper and lower case are the same.
        recursive: Enter the folders in the folder.
        folders: Take each folder in the folder for a scene, such as a vendor's product, as `process_scene`
            does, and no file; ``pattern``, if it is given, is of their names then.
        workers: As `process_scene`.
        scheduler: As `process_scene`.
        client: As `process_scene`.
        memory_limit: As `process_scene`.
        dashboard: As `process_scene`; of each scene anew.
        overwrite: Replace outputs that are not this program's, or come from another input.
        compress: As `process_scene`.
        blocksize: As `process_scene`.
        quicklook: As `process_scene`.
        stac: As `process_scene`.
        polygons: Refused: it names one file.
        resume: As `process_scene`.
        progress: Follows the folder, and each scene as `process_scene` does.
        cancel: As `process_scene`.
        **named: Fields of `Options` by name, which take precedence.

    Returns:
        The content of the ledger.

    Raises:
        OptionError: A wrong option; ``polygons``, which names one file; two scenes of one output; outputs
            among the inputs; nothing to do.
        LockedError: Another batch writes to the same folder.
        RunCancelledError: It was cancelled; the scene under way can be continued.
        ClusterError: No cluster, before any scene was done.
        OutputError: The folder cannot be made or written to.
        Exception: What a method of ``progress`` raises: it ends the batch, and the ledger is kept.
    """
    as_text("src_dir", src_dir)
    as_text("dst_dir", dst_dir)
    dst = Path(os.path.abspath(dst_dir))
    chosen = Options.given(options, named, process_directory.__kwdefaults__)
    documents = {"quicklook": quicklook, "stac": stac}
    if polygons is not None:
        raise OptionError("polygons names one file, got it for a folder of scenes: process them one by one")
    check_workers(workers, cluster_at := one_cluster(scheduler, client), chosen.device)
    memory_bytes(memory_limit, cluster_at)
    check_dashboard(dashboard, cluster_at)
    check_blocksize(blocksize)
    recipe = recipe_of(chosen, elsewhere=(scheduler, client) != (None, None))
    told = None if progress is None else _Told(progress)
    process = partial(
        process_scene,
        options=chosen,
        workers=workers,
        scheduler=scheduler,
        client=client,
        memory_limit=memory_limit,
        dashboard=dashboard,
        compress=compress,
        blocksize=blocksize,
        quicklook=quicklook,
        stac=stac,
        progress=told,
        cancel=cancel,
    )
    with secrets_hidden():
        entries = find_scenes(src_dir, dst, pattern, recursive, folders)
    watch = Watch(progress, cancel)
    files = [name for name in (chosen.mask, *chosen.other_dates, chosen.aoi, chosen.model) if name]
    check_no_input([dst / LEDGER], [("a file", str(name).partition("|")[0]) for name in files])
    check_ledger(dst / LEDGER, overwrite)
    _make_out(dst)
    with locked(dst), Ledger(dst / LEDGER, entries) as ledger:
        for number, entry in ledger.pending():
            watch.check()
            if recipe is None:
                break
            if (done := finished_output(entry.input, Path(entry.output), recipe)) is not None:
                warnings = (*done.warnings, *_left_out(entry, done, documents))
                ledger.entries[number] = replace(entry, status="skipped", warnings=warnings)
        ledger.save()
        for number, entry in ledger.pending():
            name = without_secrets(name_in(entry.input, src_dir))
            watch.scenes(len(entries) - len(ledger.pending()), len(entries), name)
            fatal = () if ledger.report().having("done") else (ClusterError,)
            ledger.entries[number] = _attempt(entry, overwrite, resume, process, fatal, told)
            with suppress(OutputError):  # a full disk may have room again for the next scene
                ledger.save()
        watch.scenes(len(entries), len(entries))
    return ledger.report()


class _Told(Progress):
    """Pass on to the caller's progress, and note the exception that it raises: it is no scene's fault."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.raised: Exception | None = None

    def scenes(self, done: int, total: int, name: str) -> None:
        """Tell it the progress of the folder."""
        self._tell(self._progress.scenes, done, total, name)

    def stage(self, text: str) -> None:
        """Tell it a stage that begins."""
        self._tell(self._progress.stage, text)

    def tiles(self, done: int, total: int) -> None:
        """Tell it the number of restored tiles."""
        self._tell(self._progress.tiles, done, total)

    def _tell(self, method: Callable[..., None], *values: Any) -> None:
        try:
            method(*values)
        except Exception as error:
            self.raised = error
            raise


def _make_out(dst: Path) -> None:
    """Make the folder of the outputs.

    Raises:
        OutputError: It cannot be made, as where a link leads nowhere.
    """
    for place in (dst, *dst.parents):
        if os.path.islink(place) and not os.path.lexists(target := os.path.realpath(place)):
            raise OutputError(
                f"{place} is a link to {target}, where nothing is, expected a folder: make one there, or "
                "choose another --out folder"
            )
    make_folder(dst)


def _left_out(entry: SceneEntry, done: PreviousOutput, documents: dict[str, bool]) -> list[str]:
    """Tell of documents that are asked for and that a finished output does not have."""
    paths = SideFiles.all_of(Path(entry.output)).paths
    lacking = [f"--{role}" for role, asked in documents.items() if asked and not done.has(paths[role])]
    if not lacking:
        return []
    return [
        f"{entry.output} was finished without {' and '.join(lacking)}, and is left as it is: remove it, and "
        "the same call makes it again"
    ]


def _attempt(
    entry: SceneEntry,
    overwrite: bool,
    resume: bool,
    process: Callable[..., Report],
    fatal: tuple[type[Exception], ...],
    told: _Told | None,
) -> SceneEntry:
    """Process a scene and return its entry.

    Errors that are ``fatal`` to all scenes are raised, and so are those of the caller's own progress.
    """
    began, name = time.perf_counter(), without_secrets(entry.input)
    warnings: tuple[str, ...] = ()
    try:
        with secrets_hidden():
            report = _process(entry.input, Path(entry.output), overwrite, resume, process)
        error, warnings = "; ".join(report.faults) or None, tuple(report.warnings)
    except (RunCancelledError, ForkError):
        raise
    except fatal:
        raise
    except Exception as problem:
        if told is not None and told.raised is not None:
            raise told.raised from None
        _log.debug("%s failed", name, exc_info=True)
        error = without_secrets(in_one_line(problem))
    seconds = round(time.perf_counter() - began, 3)
    _log.info("%s: %s", name, f"failed: {error}" if error else "done")
    status: Status = "failed" if error else "done"
    return replace(entry, status=status, seconds=seconds, error=error, warnings=warnings)


def _process(src: str, dst: Path, overwrite: bool, resume: bool, process: Callable[..., Report]) -> Report:
    make_folder(dst.parent)
    replacing = overwrite or may_replace(src, dst)
    with replacement_marked(dst):
        try:
            return process(src, dst, overwrite=replacing, resume=resume)
        except ResumeError:  # an interrupted run with other options: its windows are out of date
            return process(src, dst, overwrite=replacing, resume=False)
