"""Whole scenes in, whole scenes out: rasters, tiles, blending, and the command line."""

from typing import TYPE_CHECKING

from decr_scene.models.lazily import exporter

if TYPE_CHECKING:
    from decr_scene.pipeline.batch import process_directory
    from decr_scene.pipeline.lazy import restore
    from decr_scene.pipeline.run import process_scene
    from decr_scene.pipeline.scene import open_scene

__all__ = ["open_scene", "process_directory", "process_scene", "restore"]

__getattr__ = exporter(
    __name__,
    {"process_scene": "run", "process_directory": "batch", "restore": "lazy", "open_scene": "scene"},
)
