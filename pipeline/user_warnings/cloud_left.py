"""Check whether a run did what it is for: how much of the cloud is left in its output, with a warning.

Where a detector looked at the scene, it looks at the output as well. Where none did, all there is to tell is
how many pixels changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from decr_scene.pipeline.errors import in_one_line
from decr_scene.pipeline.look.detection import Places, read_coverage
from decr_scene.pipeline.look.detectors import ScaledBands
from decr_scene.pipeline.look.remaining_cloud import Output, Remains, look_again
from decr_scene.pipeline.planning.detect_clouds import lookout_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.fields import FileField
from decr_scene.pipeline.restoration.plan import Planned
from decr_scene.pipeline.system.signals import was_interrupted

FEW = 0.05
"""Share of changed pixels below which a user is warned, where no detector looked."""

_log = logging.getLogger("decr_scene")


def clouds_left(
    planned: Planned,
    scene: RasterioScene,
    options: Options,
    places: Places,
    output: Path,
    classes: Mapping[str, float],
) -> tuple[dict[str, Any] | None, list[str]]:
    """Say how cloudy a scene was and its output is, and what of that a user should know.

    Args:
        planned: What was done.
        scene: The scene.
        options: Those that the plan was made of.
        places: What the look at the scene has left.
        output: The finished raster.
        classes: Share of each class of the provenance.

    Returns:
        As the report has it, with what is left under ``output``, ``None`` if that is unknown; and warnings.
    """
    coverage, valid = planned.coverage, 1 - classes["nodata"]
    clouds = None if coverage is None else {**vars(coverage), "output": None}
    if planned.plan.spec.name == "identity" or planned.tiles_to_restore == 0 or valid <= 0:
        return clouds, []
    changed = 1 - classes["original"] / valid
    if coverage is None or planned.look is None or planned.look.kind == "mask":
        warning = _change_warning(planned, changed)
        return clouds, [] if warning is None else [warning]
    try:
        remains = _look_at_output(planned, scene, options, places, output)
    except Exception as error:  # the output is finished, and its report must not be missing
        if was_interrupted():
            raise
        _log.debug("the output was not looked at", exc_info=True)
        return clouds, [f"whether cloud is left in the output is not known: {in_one_line(error)}"]
    if remains is None:
        return clouds, []
    warnings = [_cloud_warning(remains, changed)] if remains.is_much else []
    return {**vars(coverage), "output": vars(remains)}, warnings


def _look_at_output(
    planned: Planned, scene: RasterioScene, options: Options, places: Places, output: Path
) -> Remains | None:
    """Look at the output as the scene was looked at.

    ``None``: no cloud was there, or the look is gone.
    """
    look, plan = planned.look, planned.plan
    if look is None or read_coverage(places.cloud) is None:
        return None
    if plan.spec.device.startswith("cuda"):  # which may be a worker's
        planned = replace(planned, plan=replace(plan, spec=replace(plan.spec, device="cpu")))
    lookout = lookout_of(look, planned, scene, FileSource(scene.path, options.bands))
    sight = lookout.sight or ScaledBands(plan.indexes, plan.radiometry)
    height, width = (-(-side // look.factor) for side in scene.shape)
    before = FileField(str(places.cloud.resolve()), (height, width))
    with RasterioScene.open(output) as finished:
        seen = Output(finished, look.factor, sight)
        return look_again(lookout, before, seen, None if plan.aoi is None else plan.aoi.holds)


def _cloud_warning(remains: Remains, changed: float) -> str:
    return (
        f"cloud is likely left: {_percent(remains.cloud_before)} of what was looked at again was cloud and "
        f"{_percent(remains.cloud)} is now, {_percent(remains.left)} of that cloud is still seen, and "
        f"{_percent(changed)} of the pixels changed: it may be bright ground (snow, sand, roofs), else try "
        "another model, or give a mask"
    )


def _change_warning(planned: Planned, changed: float) -> str | None:
    """Say that little changed where no detector looked.

    ``None``: enough did, or a mask says where it may.
    """
    plan = planned.plan
    if plan.spec.bands is None or plan.regions or changed >= FEW:
        return None
    return (
        f"{_percent(changed)} of the pixels changed, and no detector looked: if the scene is not clear, its "
        "cloud is still there: give a mask, or take another model"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
