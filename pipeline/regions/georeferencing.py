"""Relate the pixels of a scene to coordinates: by its transform, its GCPs or its RPCs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform as to_crs

from decr_scene.models.arrays import Double
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import full_turn, side_on_ground

Map = Callable[[Double], Double]

BASE = 64
"""Pixels, at most, over which the size of one is measured, in the middle of the scene."""


ELSEWHERE = (
    "lies elsewhere than the scene, by its coordinates and the scene's GCPs or RPCs: choose another, or take "
    "its coordinates away, so that it is laid on pixel by pixel"
)
"""What is said of a raster that `lies_elsewhere`."""

EDGE = 9
"""Points along each side of a raster by which it is told where it lies on a scene."""


class Georeferencing(NamedTuple):
    """Convert between coordinates and pixels of a scene.

    Both maps take and return ``(n, 2)``, x before y. Of pixels x is the column and y the row, from the outer
    corner of the scene.
    """

    crs: CRS
    to_pixels: Map
    to_coordinates: Map


def georeferencing_of(scene: RasterioScene) -> Georeferencing | None:
    """Return the georeferencing of a scene, or ``None`` if it has none.

    RPCs are taken at their mean height.
    """
    if scene.crs is not None and not scene.transform.is_identity and not scene.transform.is_degenerate:
        to_crs, to_grid = scene.transform, ~scene.transform
        return Georeferencing(
            scene.crs,
            lambda xy: np.column_stack(to_grid @ (xy[:, 0], xy[:, 1])),
            lambda pixels: np.column_stack(to_crs @ (pixels[:, 0], pixels[:, 1])),
        )
    with scene.dataset() as dataset:
        (points, points_crs), rpcs = dataset.gcps, dataset.rpcs
    if points and points_crs is not None:
        return _by(GCPTransformer(points), points_crs)
    if rpcs is not None:
        return _by(RPCTransformer(rpcs, RPC_HEIGHT=rpcs.height_off), CRS.from_epsg(4326))
    return None


def ground_size(scene: RasterioScene) -> float | None:
    """Measure the side of a pixel on the ground, in the middle of a scene.

    Any unit and projection, GCPs and RPCs; the stretch of a Mercator map is taken out.

    Returns:
        Square root of its area, m; ``None``: the scene does not say where it is.
    """
    height, width = scene.shape
    base = max(1, min(BASE, height - 1, width - 1))
    row, col = (height - base) / 2, (width - base) / 2
    corners = np.array([(col, row), (col + base, row), (col, row + base)])
    with suppress(RasterioError, CPLE_BaseError, ValueError, ArithmeticError):
        georeferencing = georeferencing_of(scene)
        if georeferencing is None:
            return None
        x, y = georeferencing.to_coordinates(corners).T
        side = side_on_ground(georeferencing.crs, x, y)
        return None if side is None else side / base
    return None


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


def _by(transformer: GCPTransformer | RPCTransformer, crs: CRS) -> Georeferencing:
    def to_pixels(xy: Double) -> Double:
        rows, cols = transformer.rowcol(xy[:, 0], xy[:, 1], op=np.asarray)
        return np.column_stack([cols, rows]).astype(np.float64)

    def to_coordinates(pixels: Double) -> Double:
        return np.column_stack(transformer.xy(pixels[:, 1], pixels[:, 0], offset="ul"))

    return Georeferencing(crs, to_pixels, to_coordinates)
