"""`decr-scene inspect`: what would be done to a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decr_scene.pipeline.planning import Options, plan_scene
from decr_scene.pipeline.restorers import describe
from decr_scene.pipeline.scene import RasterioScene


def inspect_scene(src: str | Path, **options: Any) -> dict[str, Any]:
    """Plan a scene and describe the plan; nothing is written.

    Args:
        src: Any raster that GDAL reads.
        **options: Fields of `Options`.

    Returns:
        Plain values, ready for JSON.

    Raises:
        DecrSceneError: As `process_scene`.
    """
    chosen = Options(**options)
    with RasterioScene.open(src, chosen.bands) as scene:
        planned = plan_scene(scene, chosen)
        plan = planned.plan
        height, width = scene.shape
        raw = height * width * scene.count * scene.dtype.itemsize
        return {
            "scene": str(src),
            "size": {"height": height, "width": width},
            "bands": [name or f"band {i + 1}" for i, name in enumerate(planned.bands)],
            "dtype": str(scene.dtype),
            "nodata": scene.nodata,
            "crs": str(scene.crs) if scene.crs else None,
            "model": describe(plan.spec),
            "model bands": [planned.bands[i] or f"band {i + 1}" for i in plan.indexes],
            "scaling": {
                planned.bands[i] or f"band {i + 1}": [low, high]
                for i, low, high in zip(plan.indexes, plan.radiometry.low, plan.radiometry.high, strict=True)
            },
            "tiles": len(plan.grid),
            "tiles to restore": planned.tiles_to_restore,
            "scratch": f"at most {raw / 1e6:.1f} MB",
            "warnings": list(planned.warnings),
        }
