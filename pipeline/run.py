"""`process_scene`: the recipe of a whole scene, top to bottom.

open -> bands, scaling, tiles -> Dask: first guess, sampling, blending -> blocks in order -> COG -> report.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from decr_scene.pipeline.cluster import connect
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.flow import Batches, Flow
from decr_scene.pipeline.planning import Options, ScenePlan, plan_scene
from decr_scene.pipeline.quicklook import write_quicklook
from decr_scene.pipeline.restorers import Restorer, RestorerSpec, describe, forget_plugin, register_plugin
from decr_scene.pipeline.scene import RasterioScene, fingerprint
from decr_scene.pipeline.source import FileSource
from decr_scene.pipeline.writer import SceneWriter, check_target, verify_roundtrip

Progress = Callable[[int, int], None]
"""Told after every batch: tiles done, tiles in all."""


@dataclass(frozen=True)
class Report:
    """What was done, as it stands in the JSON file beside the output."""

    program: dict[str, str]
    input: dict[str, Any]
    output: dict[str, Any]
    model: dict[str, Any]
    parameters: dict[str, Any]
    scaling: dict[str, list[float]]
    tiles: dict[str, int]
    seconds: dict[str, float]
    checks: dict[str, bool]
    warnings: list[str]

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


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
    resume: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Remove the clouds of a scene and write it as a cloud-optimised GeoTIFF, with a report beside it.

    Args:
        src: Any raster that GDAL reads.
        dst: The output, ``.tif``; its report is the same name with ``.json``.
        workers: Model workers on this machine; more than one run as processes of their own.
        scheduler: Address of a running Dask cluster to use instead.
        overwrite: Replace an output that exists.
        compress: Compression of the output; ``auto``: the input's, where it is lossless.
        blocksize: Side of the output's blocks, px.
        quicklook: Write a picture before/after beside the output, ``.png``.
        resume: Go on where an interrupted run of the same call stopped; else begin anew.
        progress: Told how many tiles are done.
        **options: Fields of `Options`: model, restorer, steps, seed, ...

    Returns:
        The report.

    Raises:
        DecrSceneError: Whatever is wrong with input, options or output; nothing is left behind.
    """
    src, dst = Path(src), Path(dst)
    began = time.perf_counter()
    chosen = Options(**options)
    if blocksize < 16 or blocksize % 16:
        raise OptionError(f"blocksize must be a multiple of 16 px, got {blocksize}")
    report_path = dst.with_suffix(".json")
    with RasterioScene.open(src, chosen.bands) as scene:
        check_target(src, dst, overwrite)
        check_target(src, report_path, overwrite)
        planned = plan_scene(scene, chosen)
        planning = time.perf_counter() - began
        guard = run_guard(src, planned, compress, blocksize)
        with SceneWriter(scene, dst, compress, blocksize, overwrite, guard=guard, resume=resume) as writer:
            kept = len(writer.finished)
            done = _stream(planned, chosen, src, writer, blocksize, workers, scheduler, progress)
        streaming = time.perf_counter() - began - planning
        report = Report(
            program={"name": "decr-scene", "version": version("decr-scene")},
            input=fingerprint(src),
            output={"path": str(dst), "bytes": dst.stat().st_size},
            model={**describe(planned.plan.spec), "sha256": planned.model_sha256},
            parameters=parameters_of(chosen),
            scaling=_scaling(planned, scene.count),
            tiles={"total": len(planned.plan.grid), "restored": done, "windows_resumed": kept},
            seconds={"planning": round(planning, 3), "processing": round(streaming, 3)},
            checks=verify_roundtrip(str(src), str(dst)),
            warnings=list(planned.warnings),
        )
    _write_whole(report_path, report.to_json())
    if quicklook:
        write_quicklook(src, dst, dst.with_suffix(".png"))
    return report


def _stream(
    planned: ScenePlan,
    options: Options,
    src: Path,
    writer: SceneWriter,
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
        _with_plugin(planned.plan.spec, options.restorer, local) as spec,
        connect(scheduler, workers) as client,
    ):
        plan = replace(planned.plan, spec=spec)
        flow = Flow(
            client,
            plan,
            FileSource(str(src.resolve()), options.bands),
            Batches(plan.grid, options.batch_size, planned.chosen),
            needs_field=spec.bands is not None,
            on_batch=count,
        )
        for span, pixels in flow.blocks(blocksize, frozenset(writer.finished)):
            writer.write(span.window, pixels)
    return done


def run_guard(src: Path, planned: ScenePlan, compress: str, blocksize: int) -> dict[str, Any]:
    """What makes two runs the same run: everything that the pixels depend on, and nothing else."""
    plan, spec = planned.plan, planned.plan.spec
    mask = None if plan.mask is None else fingerprint(plan.mask.path)
    return {
        "program": version("decr-scene"),
        "input": fingerprint(src),
        "model": [spec.name, planned.model_sha256, spec.steps, spec.start, spec.weight_floor],
        "precision": spec.precision,
        "seed": plan.seed,
        "tiles": [plan.grid.size, plan.grid.overlap],
        "bands": list(plan.indexes),
        "scaling": [plan.radiometry.low, plan.radiometry.high],
        "mask": [mask, plan.keeps_clear_ground],
        "compress": compress,
        "blocksize": blocksize,
    }


@contextmanager
def _with_plugin(spec: RestorerSpec, restorer: Restorer | None, local: bool) -> Iterator[RestorerSpec]:
    """Send a callable along with the plan; in this very process hold it instead, so it is no copy."""
    if restorer is None:
        yield spec
    elif not local:
        yield replace(spec, plugin=restorer)
    else:
        key = uuid.uuid4().hex
        register_plugin(key, restorer)
        try:
            yield replace(spec, plugin_key=key)
        finally:
            forget_plugin(key)


def parameters_of(options: Options) -> dict[str, Any]:
    """What the report says was chosen: plain values, but for the model, which has a place of its own."""
    chosen = {name: value for name, value in vars(options).items() if name not in ("restorer", "model")}
    if options.restorer is not None:
        chosen["restorer"] = repr(options.restorer)
    return chosen


def _scaling(planned: ScenePlan, count: int) -> dict[str, list[float]]:
    radiometry = planned.plan.radiometry
    names = [planned.bands[i] or f"band {i + 1}" for i in planned.plan.indexes]
    return {name: [low, high] for name, low, high in zip(names, radiometry.low, radiometry.high, strict=True)}


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)
