"""`process_scene`: the recipe of a whole scene, top to bottom.

open -> bands, scaling, tiles -> cloud detector -> Dask: first guess, sampling, blending -> blocks in order ->
COGs -> checks -> what else lies beside the output -> report.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from distributed import Client

from decr_scene.pipeline.engine.cluster import RestorerPlugin, at_every_worker, check_workers, connect
from decr_scene.pipeline.engine.flow import Flow
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.files import check_name, check_target, detection_path, journal_path, write_whole
from decr_scene.pipeline.look.detection import detection_kept
from decr_scene.pipeline.outputs.metadata_checks import verify_roundtrip
from decr_scene.pipeline.outputs.names import Beside
from decr_scene.pipeline.outputs.pixel_checks import verify_pixels
from decr_scene.pipeline.outputs.quicklook import write_quicklook
from decr_scene.pipeline.outputs.report import Report, parameters_of, scaling_of
from decr_scene.pipeline.outputs.style import write_styles
from decr_scene.pipeline.products.delivery import Delivery, delivered
from decr_scene.pipeline.raster.scene import RasterioScene, fingerprint
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.restoration import provenance
from decr_scene.pipeline.restoration.gating import detect_clouds
from decr_scene.pipeline.restoration.options import Options
from decr_scene.pipeline.restoration.plan import ScenePlan, plan_scene
from decr_scene.pipeline.restoration.restorers import (
    Restorer,
    RestorerSpec,
    describe,
    forget_plugin,
    register_plugin,
)
from decr_scene.pipeline.writing.writer import Companion, SceneWriter, WritersTogether

Progress = Callable[[int, int], None]
"""Told after every batch: tiles done, tiles in all. One that is `Staged` is told of what follows, too."""


@runtime_checkable
class Staged(Protocol):
    """A progress that wants to know what begins when all tiles are done."""

    def stage(self, text: str) -> None:
        """``writing clean.tif``, ``checking``."""


def process_scene(
    src: str | Path,
    dst: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    compress: str = "auto",
    blocksize: int = 512,
    quicklook: bool = False,
    stac: bool = False,
    polygons: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Remove the clouds of a scene and write it as a cloud-optimised GeoTIFF, with a report beside it.

    Args:
        src: Any raster that GDAL reads, or the folder of a product as its vendor delivers it.
        dst: The output, ``.tif``; its report is the same name with ``.json``, and its provenance, styles and
            whatever else is asked for lie beside it.
        workers: Model workers on this machine; more than one run as processes of their own.
        scheduler: Address of a running Dask cluster to use instead.
        overwrite: Replace an output that exists.
        compress: Compression of the output; ``auto``: the input's, where it is lossless.
        blocksize: Side of the output's blocks, px.
        quicklook: Write a picture before/after beside the output, ``.png``.
        stac: Write a STAC Item beside the output, ``.stac.json``.
        polygons: Write the footprint and the restored areas to this file, ``.gpkg`` or ``.geojson``.
        resume: Go on where an interrupted run of the same call stopped; else begin anew.
        progress: Told how many tiles are done, and, if `Staged`, what follows.
        **options: Fields of `Options`: model, restorer, steps, seed, ...

    Returns:
        The report.

    Raises:
        DecrSceneError: Whatever is wrong with input, options or output; nothing is left behind.
    """
    src, dst = Path(src), Path(dst)
    began = time.perf_counter()
    chosen = Options(**options)
    check_workers(workers, scheduler)
    check_name(dst)
    if blocksize < 16 or blocksize % 16:
        raise OptionError(f"blocksize must be a multiple of 16 px, got {blocksize}")
    wanted = None if polygons is None else Path(polygons)
    beside = Beside(dst, chosen.samples > 1, stac, quicklook, wanted)
    clouds = detection_path(dst)
    with (
        delivered(src, dst, chosen.pan, chosen.bands) as given,
        RasterioScene.open(given.path, given.bands) as scene,
        detection_kept(clouds, journal_path(dst)),
    ):
        src, used = given.path, replace(chosen, bands=given.bands)
        check_target(src, dst, overwrite)
        going_on = resume and journal_path(dst).exists()
        beside.check(src, overwrite, going_on)
        _check_wishes(scene, stac, wanted)
        planned = plan_scene(scene, used).warning(*given.warnings)
        planning = time.perf_counter() - began
        guard = run_guard(scene, planned, compress, blocksize)
        main = SceneWriter(scene, dst, compress, blocksize, overwrite, guard=guard, resume=resume)
        options_beside = (blocksize, overwrite or going_on, guard, resume)
        tell = _stage_of(progress)
        together = [main, *_companions(scene, beside, *options_beside)]
        with WritersTogether(together, making=lambda path: tell(f"writing {path.name}")) as writers:
            kept = len(writers.finished)
            planned = detect_clouds(planned, scene, used, clouds, again=kept > 0)
            detecting = time.perf_counter() - began - planning
            done = _stream(planned, used, src, writers, blocksize, workers, scheduler, progress)
        streaming = time.perf_counter() - began - planning - detecting
        tell("checking")
        checks, verification = verify_pixels(scene, dst, beside.paths["provenance"], planned.plan)
        _write_beside(scene, planned, beside, given)
        checking = time.perf_counter() - began - planning - detecting - streaming
        report = Report(
            program={"name": "decr-scene", "version": version("decr-scene")},
            input=fingerprint(given.origin),
            product=given.facts,
            output={"path": str(dst), "bytes": dst.stat().st_size},
            beside={role: str(path) for role, path in beside.paths.items()},
            model={**describe(planned.plan.spec), "sha256": planned.model_sha256},
            parameters=parameters_of(chosen),
            scaling=scaling_of(planned),
            tiles={"total": len(planned.plan.grid), "restored": done, "windows_resumed": kept},
            seconds={
                "planning": round(planning, 3),
                "detecting": round(detecting, 3),
                "processing": round(streaming, 3),
                "checking": round(checking, 3),
            },
            checks=verify_roundtrip(str(src), str(dst)) | checks,
            verification=verification,
            warnings=list(planned.warnings),
            clouds=None if planned.coverage is None else vars(planned.coverage),
        )
    with write_whole(beside.paths["report"]) as partial:
        partial.write_text(report.to_json())
    return report


def _stage_of(progress: object) -> Callable[[str], None]:
    return progress.stage if isinstance(progress, Staged) else lambda text: None


def _check_wishes(scene: RasterioScene, stac: bool, polygons: Path | None) -> None:
    """Refuse what cannot be written beside the output, before any work is done."""
    if stac:
        from decr_scene.pipeline.outputs.stac import check_stac

        check_stac()
    if polygons is not None:
        from decr_scene.pipeline.outputs.polygons import check_polygons

        check_polygons(scene, polygons)


def _companions(
    scene: RasterioScene, beside: Beside, blocksize: int, overwrite: bool, guard: dict[str, Any], resume: bool
) -> list[SceneWriter]:
    """Writers of the rasters beside the output, in the order of `Blended`."""
    classes = Companion(
        scene, ("provenance",), np.dtype(np.uint8), provenance.NODATA, provenance.TAGS, provenance.COLORS
    )
    deviation = Companion(
        scene, ("standard deviation",), np.dtype(np.float32), np.nan, (("UNITS", "DN of the scene"),)
    )
    rasters = {"provenance": classes, "uncertainty": deviation}
    return [
        SceneWriter(companion, beside.paths[role], "deflate", blocksize, overwrite, "average", guard, resume)
        for role, companion in rasters.items()
        if role in beside.paths
    ]


def _write_beside(scene: RasterioScene, planned: ScenePlan, beside: Beside, given: Delivery) -> None:
    """Everything beside the output but its rasters, which are there, and the report, which comes last."""
    paths = beside.paths
    write_styles(scene, planned.bands, paths["style"], paths["provenance_style"])
    if "stac" in paths:
        from decr_scene.pipeline.outputs.stac import write_item

        when = given.facts.get("acquired")
        write_item(scene, planned.bands, planned.plan.spec.name, beside, Path(given.origin), when)
    if "polygons" in paths:
        from decr_scene.pipeline.outputs.polygons import write_polygons

        write_polygons(paths["provenance"], paths["polygons"])
    if "quicklook" in paths:
        write_quicklook(scene.path, beside.output, paths["quicklook"], planned.bands)


def _stream(
    planned: ScenePlan,
    options: Options,
    src: Path,
    writers: WritersTogether,
    blocksize: int,
    workers: int,
    scheduler: str | None,
    progress: Progress | None,
) -> int:
    """Run the tasks and write their blocks; return the number of tiles done."""
    done = 0

    def count(tiles: int) -> None:
        nonlocal done
        done += tiles
        if progress is not None:
            progress(done, planned.tiles_to_restore)

    local = scheduler is None and workers == 1
    with (
        connect(scheduler, workers) as client,
        _with_plugin(client, planned.plan.spec, options.restorer, local) as spec,
    ):
        plan = replace(planned.plan, spec=spec)
        flow = Flow(
            client,
            plan,
            FileSource(str(src.resolve()), options.bands),
            planned.batches(options.batch_size),
            needs_field=spec.bands is not None,
            on_batch=count,
        )
        for span, blended in flow.blocks(blocksize, writers.finished):
            writers.write(span, *(part for part in blended if part is not None))
    return done


def run_guard(scene: RasterioScene, planned: ScenePlan, compress: str, blocksize: int) -> dict[str, Any]:
    """What makes two runs the same run: everything that the pixels depend on, and nothing else."""
    plan, spec = planned.plan, planned.plan.spec
    mask = None if plan.mask is None else fingerprint(plan.mask.path)
    return {
        "program": version("decr-scene"),
        "input": fingerprint(scene.path),
        "files of the input": [[name, *_state(name)] for name in scene.other_files()],
        "model": [spec.name, planned.model_sha256, spec.steps, spec.start, spec.weight_floor, spec.halo],
        "precision": spec.precision,
        "seed": plan.seed,
        "samples": plan.samples,
        "tiles": [plan.grid.size, plan.grid.overlap, plan.joint],
        "bands": [list(plan.indexes), list(planned.bands)],
        "scaling": [plan.radiometry.low, plan.radiometry.high],
        "mask": [mask, plan.keeps_clear_ground],
        "reference": None if plan.other is None else fingerprint(plan.other.path),
        "aoi": None if plan.aoi is None else plan.aoi.digest,
        "compress": compress,
        "blocksize": blocksize,
    }


def _state(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


@contextmanager
def _with_plugin(
    client: Client, spec: RestorerSpec, restorer: Restorer | None, local: bool
) -> Iterator[RestorerSpec]:
    """Give every worker the callable, once; in this very process it is called itself, and no copy."""
    if restorer is None:
        yield spec
        return
    key = uuid.uuid4().hex
    if local:
        register_plugin(key, restorer)
        try:
            yield replace(spec, plugin_key=key)
        finally:
            forget_plugin(key)
    else:
        with at_every_worker(client, RestorerPlugin(key, restorer)):
            yield replace(spec, plugin_key=key)
