"""Whole scenes in, whole scenes out: rasters, tiles, blending, and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decr_scene.pipeline.lazy import restore
    from decr_scene.pipeline.run import process_scene
    from decr_scene.pipeline.scene import open_scene

__all__ = ["open_scene", "process_scene", "restore"]

_HOMES = {"process_scene": "run", "restore": "lazy", "open_scene": "scene"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``decr-scene --help`` does not wait for GDAL, Dask and torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
