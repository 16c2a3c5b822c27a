"""Tell whether a raster that has coordinates lies apart from a scene that GCPs or RPCs place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform as to_crs

from decr_scene.models.arrays import Double
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import full_turn, georeferencing_of

ELSEWHERE = (
    "lies elsewhere than the scene, by its coordinates and the scene's GCPs or RPCs: choose another, or take "
    "its coordinates away, so that it is laid on pixel by pixel"
)
"""What is said of a raster that `lies_elsewhere`."""

EDGE = 9
"""Points along each side of a raster by which it is told where it lies on a scene."""


def lies_elsewhere(source: Any, scene: RasterioScene) -> bool:
    """Return whether an open raster that has coordinates lies apart from a scene that has GCPs or RPCs alone.

    Such a raster is laid on the scene pixel on pixel, which its coordinates may belie.
    """
    if scene.crs is not None or source.crs is None or source.transform.is_identity:
        return False
    place = georeferencing_of(scene)
    if place is None:
        return False
    steps = np.linspace(0, 1, EDGE)
    rows, cols = np.meshgrid(steps * source.height, steps * source.width)
    x, y = source.transform @ (cols.ravel(), rows.ravel())
    with suppress(RasterioError, CPLE_BaseError, ValueError, ArithmeticError):
        there = np.column_stack(to_crs(source.crs, place.crs, x, y)[:2])
        turn = full_turn(place.crs) if place.crs.is_geographic else 0
        turned = [there + np.array([shift, 0.0]) for shift in ((0, -turn, turn) if turn else (0,))]
        return not any(_touches(place.to_pixels(xy), scene.shape) for xy in turned)
    return False


def _touches(pixels: Double, shape: tuple[int, int]) -> bool:
    """Return whether a box around points ``(n, 2)``, x before y, meets a scene."""
    known = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(known):
        return False
    (left, top), (right, bottom) = known.min(axis=0), known.max(axis=0)
    return bool(right > 0 and bottom > 0 and left < shape[1] and top < shape[0])
