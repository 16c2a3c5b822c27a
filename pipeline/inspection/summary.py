"""Plan a scene without restoring it, for `decr-scene inspect`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.engine.needs import check_memory
from decr_scene.pipeline.errors import MemorySpaceError
from decr_scene.pipeline.inputs.addresses import plain_values_without_secrets
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.inspection.estimate import Estimate, estimate
from decr_scene.pipeline.look.detection import Places
from decr_scene.pipeline.outputs.report import curve_of, fits_of, scaling_of
from decr_scene.pipeline.planning.detect_clouds import detect_clouds
from decr_scene.pipeline.planning.fit_dates import fit_other_dates
from decr_scene.pipeline.planning.options import Choices, Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.products.delivery import delivered
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.plan import Planned, chosen_tiles
from decr_scene.pipeline.restoration.restorers import describe
from decr_scene.pipeline.user_warnings.fitness import misfits
from decr_scene.pipeline.user_warnings.sidecars import damaged_sidecars


def inspect_scene(
    src: str | Path, options: Options | None = None, **named: Unpack[Choices]
) -> dict[str, Any]:
    """Plan a scene, with cloud detection if there is a detector.

    No file is left on disk.

    Args:
        src: Any raster that GDAL reads, or the folder of a product.
        options: All options as one value; ``None``: the defaults.
        **named: Fields of `Options` by name, which take precedence.

    Returns:
        Plain values, ready for JSON.

    Raises:
        DecrSceneError: As `process_scene`.
    """
    chosen = Options.given(options, named)
    with (
        TemporaryDirectory() as folder,
        delivered(
            src, Path(folder) / "out.tif", chosen.pan, chosen.bands, chosen.asset, fetch=False
        ) as delivery,
        RasterioScene.open(delivery.path, delivery.bands) as scene,
    ):
        chosen = replace(chosen, bands=delivery.bands)
        began = time.perf_counter()
        places = Places.inside(folder)
        planned = plan_scene(scene, chosen)
        planned = planned.warning(*delivery.warnings, *damaged_sidecars(scene), *misfits(planned, scene))
        planned = fit_other_dates(detect_clouds(planned, scene, chosen, places), scene, chosen, places)
        needs = estimate(scene, planned, chosen, time.perf_counter() - began)
        try:
            check_memory(scene, planned, chosen.batch_size, BLOCKSIZE)
        except MemorySpaceError as error:
            planned = planned.warning(str(error))
        plan = planned.plan
        height, width = scene.shape
        summary = {
            "scene": str(src),
            "size": {"height": height, "width": width},
            "bands": [label(planned.bands, i) for i in range(len(planned.bands))],
            "dtype": str(scene.dtype),
            "nodata": scene.nodata,
            "crs": str(scene.crs) if scene.crs else None,
            "model": describe(plan.spec),
            "model bands": [label(planned.bands, i) for i in plan.indexes],
            "scaling": scaling_of(planned),
            "curve": curve_of(planned),
            "tiles": len(plan.grid),
            "tiles to restore": planned.tiles_to_restore,
            "detector": None if planned.look is None else planned.look.who,
            "mask": planned.mask_meaning,
            "cloudy tiles": _cloudy_tiles(planned),
            "clouds": _coverage(planned),
            "other dates": fits_of(planned),
            "estimate": _estimate_values(needs),
            "warnings": list(planned.warnings),
        }
        hidden: dict[str, Any] = plain_values_without_secrets(summary)
        return hidden


def _cloudy_tiles(planned: Planned) -> int | None:
    """Count the tiles that the mask touches, or return ``None`` without a mask."""
    plan = replace(planned.plan, veils=False)
    if plan.mask is None:
        return None
    chosen = chosen_tiles(plan)
    return None if chosen is None else len(chosen)


def _estimate_values(needs: Estimate) -> dict[str, float]:
    """Return the estimate in seconds and MB."""
    megabytes = {"memory": needs.memory, "scratch": needs.scratch, "output": needs.output}
    return {
        "seconds": round(needs.seconds, 1),
        **{f"{name}_mb": round(size / 1e6, 1) for name, size in megabytes.items()},
    }


def _coverage(planned: Planned) -> dict[str, float] | None:
    """Return shares of the valid pixels, or ``None`` if no detector was run."""
    coverage = planned.coverage
    if coverage is None:
        return None
    return {"coverage probability": round(coverage.cloud, 4), "cloud or shadow": round(coverage.restore, 4)}
