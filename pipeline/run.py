"""`process_scene`: the recipe of a whole scene, top to bottom.

open -> bands, scaling, tiles -> look at the whole -> Dask: first guess, sampling, blending -> blocks in order
-> COGs -> checks -> documents beside the output -> report.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from distributed import Client

from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.engine.cluster import (
    check_dashboard,
    check_workers,
    connect,
    dashboard_at,
    memory_bytes,
    one_cluster,
)
from decr_scene.pipeline.engine.flow import Flow, looking
from decr_scene.pipeline.engine.needs import check_memory
from decr_scene.pipeline.engine.under_way import room_for_tiles
from decr_scene.pipeline.engine.workers import check_code, settled, with_plugin
from decr_scene.pipeline.files import (
    check_name,
    check_no_input,
    check_target,
    detection_path,
    ground_path,
    journal_path,
    os_faults,
    tiles_path,
    write_whole,
)
from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.inputs.identity import FileIdentity, identities
from decr_scene.pipeline.inputs.names import local_files
from decr_scene.pipeline.inputs.remote import is_fetched
from decr_scene.pipeline.look.detection import Places, look_files
from decr_scene.pipeline.outputs.conclusion import OpenRun, conclude
from decr_scene.pipeline.outputs.metadata_checks import check_copy
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.outputs.report import Laps, Report
from decr_scene.pipeline.planning.detect_clouds import detect_clouds
from decr_scene.pipeline.planning.fit_dates import fit_other_dates
from decr_scene.pipeline.planning.options import (
    Choices,
    Options,
    as_text,
    named_inputs,
    other_rasters,
    state_of_named_files,
)
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.products.delivery import Delivery, delivered
from decr_scene.pipeline.products.source import Source
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.restoration.plan import Planned
from decr_scene.pipeline.system.forks import refuse_after_fork
from decr_scene.pipeline.system.progress import CancelToken, Progress, Watch
from decr_scene.pipeline.system.version import code_here
from decr_scene.pipeline.user_warnings.fitness import misfits
from decr_scene.pipeline.user_warnings.sidecars import damaged_sidecars
from decr_scene.pipeline.writing.journal import FinishedRasters, read_finished_rasters
from decr_scene.pipeline.writing.origin import CopyOf
from decr_scene.pipeline.writing.scratch import check_blocksize
from decr_scene.pipeline.writing.tile_store import TileStore
from decr_scene.pipeline.writing.together import WritersTogether
from decr_scene.pipeline.writing.writer import SceneWriter

_log = logging.getLogger("decr_scene")


def process_scene(
    src: str | Path,
    dst: str | Path,
    options: Options | None = None,
    *,
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
    polygons: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    **named: Unpack[Choices],
) -> Report:
    """Remove the clouds of a scene and write it as a cloud-optimised GeoTIFF, with a report beside it.

    Args:
        src: Any raster that GDAL reads, or the folder of a product as its vendor delivers it.
        dst: The output, ``.tif``; its report is the same name with ``.json``, and its provenance, styles and
            whatever else is asked for lie beside it.
        options: All options as one value; ``None``: the defaults.
        workers: Model workers on this machine; more than one run as processes of their own.
        scheduler: Address of a running Dask cluster to use instead.
        client: A client of one, with its own TLS, memory limits and dashboard, which stays open.
        memory_limit: Bytes, or a size such as ``4GB``: a scene that needs more besides the model is refused
            before any tile is restored, and of several workers here one that takes more is begun anew.
        dashboard: Serve Dask's dashboard on this machine during the run; its address is in the log.
        overwrite: Replace an output that exists.
        compress: Compression of the output; ``auto``: the input's, where it is lossless.
        blocksize: Side of the output's blocks, px.
        quicklook: Write a picture before/after beside the output, ``.png``.
        stac: Write a STAC Item beside the output, ``.stac.json``.
        polygons: Write the footprint and the restored areas to this file, ``.gpkg`` or ``.geojson``.
        resume: Go on where an interrupted run of the same call stopped; else begin anew.
        progress: Follows the run: its stages and the number of tiles that are restored.
        cancel: Ends the run when it is set; what is finished is kept for the same call, as after a kill.
        **named: Fields of `Options` by name (model, restorer, steps, seed, ...), which take precedence.

    Returns:
        The report; its ``faults`` say what went wrong though the output is there.

    Raises:
        RunCancelledError: It was cancelled.
        DecrSceneError: Whatever is wrong with input, options or output; nothing is left behind.
    """
    laps = Laps()
    chosen = Options.given(options, named, process_scene.__kwdefaults__)
    as_text("src", src)
    as_text("dst", dst)
    as_text("polygons", polygons)
    refuse_after_fork()
    watch = Watch(progress, cancel, last_part(src))
    watch.check()
    cluster_at = one_cluster(scheduler, client)
    check_workers(workers, cluster_at, chosen.device)
    limit = memory_bytes(memory_limit, cluster_at)
    check_dashboard(dashboard, cluster_at)
    requested = {**vars(chosen), "uncertainty": chosen.uncertainty_of}
    requested |= {"quicklook": quicklook, "stac": stac, "polygons": polygons}
    writing = _Writing(Path(dst), compress, blocksize, overwrite, resume)
    side_files = SideFiles.requested(writing.path, requested)
    places = Places(detection_path(writing.path), ground_path(writing.path))
    targets = side_files.targets()
    check_no_input(targets, named_inputs(src, chosen))
    if is_fetched(src):
        check_target(None, dst, writing.replaces)
        watch.stage("fetching")
    with (
        delivered(src, dst, chosen.pan, chosen.bands, chosen.asset) as delivery,
        RasterioScene.open(delivery.path, delivery.bands) as scene,
        look_files(places, journal_path(writing.path)),
        ExitStack() as cluster,
    ):
        resolved = replace(chosen, bands=delivery.bands)
        files = _files_of(delivery, scene, chosen, targets, cluster_at)
        input_state = fingerprint(delivery.origin)
        run = OpenRun(
            *(chosen, resolved, writing.path, side_files, delivery, scene, files, input_state, places),
            state_of_named_files(chosen.mask, chosen.other_date, chosen.aoi),
            scene.meaning_of_values if str(delivery.path) == str(delivery.origin) else [],
            [] if is_fetched(src) else Source.of(src, chosen.asset).state,
        )
        check_target(scene.path, dst, writing.replaces)
        side_files.check(
            scene, overwrite, writing.resumes, () if writing.earlier is None else writing.earlier.side_files
        )
        check_copy(scene)
        watch.stage("planning")
        elsewhere = cluster_at is not None or workers > 1
        planned = plan_scene(scene, resolved, elsewhere=cluster_at is not None)
        planned = planned.warning(*delivery.warnings, *damaged_sidecars(scene), *misfits(planned, scene))
        client = cluster.enter_context(connect(cluster_at, workers, planned.plan.spec, limit, dashboard))
        if dashboard:
            watch.stage(f"dashboard at {dashboard_at(client)}")
        if elsewhere:
            check_code(client)
            spec = settled(client, planned.plan.spec)
            planned = replace(planned, plan=replace(planned.plan, spec=spec, code=code_here()))
        laps.end("planning")
        guard = run_guard(scene, planned, compress, blocksize)
        all_writers = _writers(scene, side_files, writing, guard)
        tiles = _tile_store(writing, planned, resolved, guard, workers)
        with WritersTogether(all_writers, lambda path: watch.stage(f"writing {path.name}"), tiles) as writers:
            windows_resumed = len(writers.finished)
            watch.stage("looking for cloud")
            ask = looking(client, planned.plan, watch.check) if elsewhere else None
            planned = detect_clouds(planned, scene, resolved, places, writers.goes_on, ask)
            planned = fit_other_dates(planned, scene, resolved, places, writers.goes_on, ask)
            if cluster_at is None:
                check_memory(scene, planned, resolved.batch_size, blocksize, limit)
            laps.end("detecting")
            looks = [str(path.resolve()) for path in places.existing]
            look_rasters = identities(looks, cluster_at is not None)
            planned = replace(planned, plan=replace(planned.plan, files=(*files, *look_rasters)))
            watch.stage("restoring")
            local = 0 if cluster_at is not None else workers
            tiles_done = _stream(client, planned, resolved, scene.path, writers, blocksize, local, watch)
            cluster.close()
            planned.plan.check_files()
            writers.finish(list(side_files.paths.values()))
            read = [path for _, path in named_inputs(src, chosen) if path is not None]
            side_files.remove_earlier([*read, *(file.path for file in files)])
            laps.end("processing")
            watch.stage("checking")
            counts = {**tiles_done, "windows_resumed": windows_resumed}
            report, writers.keeps_journal = conclude(run, planned, counts, laps)
            with (
                os_faults(f"cannot write {side_files.report}", side_files.report.absolute().parent),
                write_whole(side_files.report) as partial,
            ):
                partial.write_text(report.to_json(), encoding="utf-8")
    return report


@dataclass(frozen=True)
class _Writing:
    """Options of writing of `process_scene`, checked."""

    path: Path
    compress: str
    blocksize: int
    overwrite: bool
    resume: bool

    def __post_init__(self) -> None:
        check_name(self.path)
        check_blocksize(self.blocksize)

    @cached_property
    def earlier(self) -> FinishedRasters | None:
        """Return the rasters that an interrupted run has finished, if it finished all."""
        return read_finished_rasters(self.path) if self.resume else None

    @property
    def replaces(self) -> bool:
        """Return whether the output may be there already."""
        return self.overwrite or (self.earlier is not None and self.earlier.is_in_place(self.path))

    @property
    def resumes(self) -> bool:
        """Return whether an interrupted run is continued."""
        return self.resume and journal_path(self.path).exists()


def _files_of(
    delivery: Delivery,
    scene: RasterioScene,
    chosen: Options,
    targets: Sequence[Path],
    scheduler: str | Client | None,
) -> tuple[FileIdentity, ...]:
    """Note all files that a run opens, in their present state.

    Raises:
        OutputError: One of them is also one that it writes.
    """
    fetched = () if delivery.address is None else local_files(delivery.origin)  # the run's own copy
    read = [path for path in (*delivery.files, *scene.files()) if os.path.abspath(path) not in fetched]
    check_no_input(targets, [("a file of the input", path) for path in read])
    others = other_rasters(chosen.mask, chosen.other_date)
    check_no_input(targets, [("a file of its mask or of the other date", path) for path in others])
    opened = [*local_files(scene.path), *scene.other_files(), *others]
    return identities(opened, scheduler is not None)


def _writers(
    scene: RasterioScene, side_files: SideFiles, writing: _Writing, guard: dict[str, Any]
) -> list[SceneWriter]:
    """Make the writers of the output and of the rasters beside it, in the order of `Blended`."""
    path, compress, blocksize, resume = writing.path, writing.compress, writing.blocksize, writing.resume
    origin, overwrite = CopyOf(scene), writing.overwrite or writing.resumes
    main = SceneWriter(origin, path, compress, blocksize, writing.replaces, guard=guard, resume=resume)
    return [
        main,
        *(
            SceneWriter(
                *(raster.companion(scene), raster.path(path), "deflate", blocksize, overwrite),
                *("average", guard, resume),
            )
            for raster in side_files.rasters
        ),
    ]


def _tile_store(
    writing: _Writing, planned: Planned, options: Options, guard: dict[str, Any], workers: int
) -> TileStore | None:
    """Open the store of finished tiles, or return ``None`` if keeping them saves nothing."""
    plan = planned.plan
    if plan.spec.name == "identity":
        return None
    batches = planned.batches(options.batch_size, workers)
    tile, most = room_for_tiles(plan, batches, writing.blocksize, workers)
    return TileStore(tiles_path(writing.path), guard, tile, most, writing.resume)


def _stream(
    client: Client,
    planned: Planned,
    options: Options,
    src: str,
    writers: WritersTogether,
    blocksize: int,
    local: int,
    watch: Watch,
) -> dict[str, int]:
    """Run the tasks, write their blocks and count the tiles restored, and those kept from before.

    ``local`` is the number of model workers on this machine, 0 if the cluster is not ours.
    """
    if writers.published:
        return {"restored": 0, "kept": planned.tiles_to_restore, "tiles_resumed": 0}
    done = 0

    def count(tiles: int) -> None:
        nonlocal done
        before, total = done + flow.kept, max(1, planned.tiles_to_restore)
        done += tiles
        if 10 * (done + flow.kept) // total > 10 * before // total:
            _log.info("%d of %d tiles", done + flow.kept, total)
        watch.tiles(done + flow.kept, planned.tiles_to_restore)

    with with_plugin(client, planned.plan.spec, options.restorer, local == 1) as spec:
        plan = replace(planned.plan, spec=spec)
        flow = Flow(
            client,
            plan,
            FileSource(src, options.bands),
            planned.batches(options.batch_size, max(1, local)),
            needs_field=spec.bands is not None,
            on_batch=count,
            check=watch.check,
            saved=writers.tiles,
            far=local == 0,
        )
        for span, blended in flow.blocks(blocksize, writers.finished):
            writers.write(span, *(part for part in blended if part is not None))
    return {"restored": done, "kept": flow.kept, "tiles_resumed": flow.resumed}
