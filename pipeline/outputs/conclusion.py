"""Conclude a run: check its finished output, write the documents beside it, and make its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio

from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.inputs.identity import FileIdentity
from decr_scene.pipeline.look.detection import Places
from decr_scene.pipeline.outputs.metadata_checks import verify_roundtrip
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.outputs.pixel_checks import verify_pixels
from decr_scene.pipeline.outputs.report import Laps, Report, curve_of, fits_of, parameters_of, scaling_of
from decr_scene.pipeline.outputs.side_file import FinishedRun
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.products.delivery import Delivery
from decr_scene.pipeline.raster.scene import SMALL_CACHE, RasterioScene
from decr_scene.pipeline.restoration.plan import Planned
from decr_scene.pipeline.restoration.restorers import describe
from decr_scene.pipeline.user_warnings.cloud_left import clouds_left


@dataclass(frozen=True)
class OpenRun:
    """A run with its input open, for what is checked, written and reported at its end.

    Args:
        chosen: The options as the caller gave them.
        resolved: The same with the bands of the input.
        output: The output.
        side_files: Of the output.
        delivery: The raster that stands for the input.
        scene: That raster, open.
        files: All files that tasks open, as they were when the run began.
        fingerprint: Of the input.
        places: The rasters of the detector.
        named_files: As `state_of_named_files` has them.
        values: What says which values of the input are valid, and what they are; empty if a raster was made
            of the input.
        parts: As `Source.state` has it.
    """

    chosen: Options
    resolved: Options
    output: Path
    side_files: SideFiles
    delivery: Delivery
    scene: RasterioScene
    files: tuple[FileIdentity, ...]
    fingerprint: dict[str, Any]
    places: Places
    named_files: list[list[Any]]
    values: list[str]
    parts: list[list[Any]]


def conclude(run: OpenRun, planned: Planned, tiles: dict[str, int], laps: Laps) -> tuple[Report, bool]:
    """Check the finished output and write the documents beside it.

    Returns:
        The report; whether a document found no room on the disk, so that the same call is to make it.
    """
    scene, side_files, output = run.scene, run.side_files, run.output
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE):  # so that the peak of the run's memory is not here
        checks, verification = verify_pixels(scene, output, side_files.paths["provenance"], planned.plan)
        checks = verify_roundtrip(scene.path, str(output)) | checks
        checks |= {"input_unchanged": _unchanged(run.files)}
        failed, no_disk = side_files.write(_finished_run(run, planned))
    clouds, left = clouds_left(planned, scene, run.resolved, run.places, output, verification["classes"])
    laps.end("checking")
    address = {} if run.delivery.address is None else {"path": run.delivery.address}
    report = Report(
        program={"name": "decr-scene", "version": version("decr-scene")},
        input=run.fingerprint | address,
        product=run.delivery.facts,
        output={"path": str(output), "bytes": output.stat().st_size},
        beside={role: str(path) for role, path in side_files.paths.items() if role not in failed},
        model={**describe(planned.plan.spec), "sha256": planned.model_sha256},
        parameters=parameters_of(run.chosen),
        scaling=scaling_of(planned),
        tiles={"total": len(planned.plan.grid), **tiles},
        seconds=laps.seconds,
        checks=checks,
        verification=verification,
        warnings=[*planned.warnings, *left],
        clouds=clouds,
        detector=None if planned.look is None else planned.look.who,
        failed=failed,
        mask=planned.mask_meaning,
        other_date=fits_of(planned),
        curve=curve_of(planned),
        values=run.values,
        parts=run.parts,
        named_files=run.named_files,
    )
    return report, no_disk


def _unchanged(files: Sequence[FileIdentity]) -> bool:
    """Return whether all are as they were when the run began.

    Otherwise the checks have compared other files.
    """
    try:
        for file in files:
            file.check()
    except SceneReadError:
        return False
    return True


def _finished_run(run: OpenRun, planned: Planned) -> FinishedRun:
    """Gather the values for the documents beside the output."""
    return FinishedRun(
        run.scene,
        planned.bands,
        planned.plan.spec.name,
        run.output,
        run.side_files.paths,
        Path(last_part(run.delivery.address or run.delivery.origin)),
        run.delivery.facts.get("acquired"),
        run.delivery.facts.get("item acquired"),
    )
