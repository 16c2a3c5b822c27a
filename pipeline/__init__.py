"""Whole scenes in, whole scenes out: rasters, tiles, blending, and the command line."""

from typing import TYPE_CHECKING

from decr_scene.models.exports import exporter

if TYPE_CHECKING:
    from decr_scene.models.errors import DecrSceneError
    from decr_scene.pipeline.batch.directory import process_directory
    from decr_scene.pipeline.engine.graph import restore
    from decr_scene.pipeline.outputs.report import Report
    from decr_scene.pipeline.planning.options import Options
    from decr_scene.pipeline.raster.scene import open_scene
    from decr_scene.pipeline.run import process_scene
    from decr_scene.pipeline.system.progress import Progress

    __version__: str

__all__ = [
    "DecrSceneError",
    "Options",
    "Progress",
    "Report",
    "__version__",
    "open_scene",
    "process_directory",
    "process_scene",
    "restore",
]

__getattr__ = exporter(
    __name__,
    {
        "DecrSceneError": "errors",
        "Options": "planning.options",
        "Progress": "system.progress",
        "Report": "outputs.report",
        "__version__": "system.version",
        "open_scene": "raster.scene",
        "process_directory": "batch.directory",
        "process_scene": "run",
        "restore": "engine.graph",
    },
)
