"""Where a plan restores: the tiles over what a detector takes for cloud or shadow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.look.detection import Coverage, read_coverage, write_detection
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.masks import DetectedMask, Mask
from decr_scene.pipeline.restoration.options import Options
from decr_scene.pipeline.restoration.plan import ScenePlan, chosen_tiles


def gated(planned: ScenePlan, mask: Mask) -> ScenePlan:
    """The same plan, restoring only where a mask says."""
    plan = replace(planned.plan, mask=mask)
    return replace(planned, plan=plan, chosen=chosen_tiles(plan))


def detect_clouds(
    planned: ScenePlan, scene: RasterioScene, options: Options, raster: Path, again: bool = False
) -> ScenePlan:
    """Let the model's detector, if it has one and the mask is ``auto``, choose where a plan restores.

    Args:
        planned: The plan.
        scene: The scene.
        options: Those that the plan was made of.
        raster: Where the raster is written; workers read it there.
        again: Take the raster that an interrupted run of the same plan has left, if there is one.

    Raises:
        SceneReadError: The scene cannot be read somewhere.
        OutputError: The raster cannot be written.
    """
    config = planned.detector
    if config is None:
        return planned
    coverage = read_coverage(raster) if again else None
    if coverage is None:
        from decr_scene.models.model import load_detector

        detector = load_detector(planned.plan.spec.name, options.device)
        assert detector is not None, "the plan says that there is one"
        source = FileSource(scene.path, options.bands)
        coverage = write_detection(
            detector, scene, source, planned.plan.indexes, planned.plan.radiometry, raster
        )
    mask = DetectedMask(str(raster.resolve()), scene, config.factor, round(255 * config.threshold))
    return replace(gated(planned, mask), coverage=coverage)


def scene_coverage(planned: ScenePlan, scene: RasterioScene, options: Options, raster: Path) -> Coverage:
    """How cloudy a scene is; the raster is left where it was written.

    Raises:
        SceneError: The model has no detector.
    """
    coverage = detect_clouds(planned, scene, options, raster).coverage
    if coverage is None:
        raise SceneError(
            f"model {options.model} has no cloud detector to look at {scene.path} with: take one that has"
        )
    return coverage
