"""Write the cloud mask of a scene alone, as a raster that a run takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np

from decr_scene.models.arrays import Pixels
from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.engine.under_way import block_rows
from decr_scene.pipeline.files import check_name, check_no_input, check_target
from decr_scene.pipeline.inputs.addresses import last_part
from decr_scene.pipeline.inputs.names import local_files
from decr_scene.pipeline.look.detection import Coverage, Places
from decr_scene.pipeline.planning.detect_clouds import clouds_of
from decr_scene.pipeline.planning.options import Choices, Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.products.delivery import delivered
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.masks import RIM_TAG, DetectedMask
from decr_scene.pipeline.system.progress import Progress, Watch
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.origin import Companion
from decr_scene.pipeline.writing.writer import SceneWriter

UNKNOWN = 255
"""Value of the mask where no band of the scene is valid."""


def write_cloud_mask(
    src: str | Path,
    dst: str | Path,
    options: Options | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **named: Unpack[Choices],
) -> Coverage:
    """Detect cloud in a scene and write the mask, a COG of one uint8 band that ``mask=`` takes.

    It is 1 for detected cloud or shadow, 0 elsewhere, and 255, its nodata, where no band of the scene is
    valid. The soft rim is not in it: a run adds that to every mask, as wide as a tag of this one says.

    Args:
        src: As `process_scene`.
        dst: The mask, ``.tif``.
        options: All options as one value, of which model, detector, device, bands, scale and pan matter.
        overwrite: Replace a file that exists.
        progress: Follows the stages.
        **named: Fields of `Options` by name, which take precedence.

    Raises:
        SceneError: There is no detector: neither a model's, nor ukis-csmask for want of a band.
        DecrSceneError: As `process_scene`.
    """
    chosen, dst = replace(Options.given(options, named), mask="auto", mask_values=None), Path(dst)
    watch = Watch(progress, name=last_part(src))
    check_name(dst)
    check_no_input([dst], [("the input itself", path) for path in local_files(src)])
    with (
        delivered(src, dst, chosen.pan, chosen.bands, chosen.asset) as delivery,
        RasterioScene.open(delivery.path, delivery.bands) as scene,
        TemporaryDirectory() as folder,
    ):
        check_no_input([dst], [("a file of the input", path) for path in (*delivery.files, *scene.files())])
        check_target(scene.path, dst, overwrite)
        chosen = replace(chosen, bands=delivery.bands)
        watch.stage("planning")
        planned = plan_scene(scene, chosen)
        watch.stage("looking for cloud")
        places = Places.inside(folder)
        coverage, mask = clouds_of(planned, scene, chosen, places)
        watch.stage(f"writing {dst.name}")
        companion = Companion(
            scene, ("cloud or shadow",), np.dtype(np.uint8), UNKNOWN, ((RIM_TAG, str(mask.rim)),)
        )
        with SceneWriter(companion, dst, "deflate", BLOCKSIZE, overwrite) as writer:
            for span in chain.from_iterable(block_rows(scene.shape, BLOCKSIZE)):
                writer.write(span, _mask_pixels(mask, scene, planned.plan.indexes, span)[None])
    return coverage


def _mask_pixels(mask: DetectedMask, scene: RasterioScene, indexes: Sequence[int], span: Span) -> Pixels:
    valid = scene.valid(span.window)[list(indexes)].any(axis=0)
    return np.where(valid, mask.cloud(span), UNKNOWN).astype(np.uint8)
