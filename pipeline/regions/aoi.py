"""The area of interest: polygons of the user's inside which alone anything may change.

They are read from any vector file, laid over the scene in pixels once, and travel with the plan: no task
opens the file again. GeoJSON needs no further library; other formats are read by pyogrio, in a process of its
own, because it brings a GDAL of its own and two in one process break each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.vectors import polygons_of, read_polygons
from decr_scene.pipeline.tiling.grid import Span, TileGrid

Map = Callable[[Double], Double]

FALLOFF = 16
"""Pixels inside the border over which the restoration rises from nothing to all."""

_MARGIN = 64
"""What lies further outside the scene than this, px, is cut off before it is laid over it."""

_TINY = 1e-3
"""Square pixels that are no area but rounding."""

_SEGMENTS = 200
"""A straight line in one CRS is none in another: no piece of it is longer than the scene's side by this."""


@dataclass(frozen=True)
class Aoi:
    """Polygons on the pixels of a scene: x is the column, y the row, both from its outer corner.

    Args:
        path: The file that they are from.
        wkb: The polygons as one geometry, as WKB: equal bytes are equal areas.
    """

    path: str
    wkb: bytes

    @staticmethod
    def read(path: str, scene: RasterioScene) -> Aoi:
        """Lay the polygons of a file over a scene.

        Scenes that have only GCPs or RPCs are related as GDAL does it, the latter at their mean height: on
        hilly ground the area is then off by as much as the scene itself.

        Args:
            path: Any vector file; a layer among several is named as in QGIS, ``areas.gpkg|layername=fields``.
            scene: The scene.

        Raises:
            MaskError: It cannot be read, has no polygons, no CRS or an invalid polygon, or lies outside the
                scene; or the scene is not georeferenced.
        """
        place = _place_of(scene)
        geometries, own = read_polygons(path)
        outline = _outline(scene, place, own)
        near = shapely.union_all([geometry.intersection(outline) for geometry in geometries])
        left, bottom, right, top = outline.bounds
        laid = _laid(near, own, place, max(right - left, top - bottom)).intersection(_around(scene.shape))
        height, width = scene.shape
        if laid.intersection(shapely.box(0, 0, width, height)).area < _TINY:
            raise MaskError(
                f"the area of interest {path} does not touch the scene {scene.path}: "
                "compare their places, or choose another"
            )
        return Aoi(path, shapely.to_wkb(shapely.normalize(laid)))

    @property
    def digest(self) -> str:
        """SHA-256 of the polygons on the scene."""
        return hashlib.sha256(self.wkb).hexdigest()

    def soft(self, span: Span) -> Float:
        """Weight of the restoration: 0 outside, 1 from `FALLOFF` px inside, ``(height, width)``."""
        area, box = _geometry(self.wkb), _box(span)
        if area.contains(_box(span, FALLOFF + 1)):
            return np.ones((span.height, span.width), np.float32)
        if not area.intersects(box):
            return np.zeros((span.height, span.width), np.float32)
        wide = Span(
            span.row - FALLOFF, span.col - FALLOFF, span.height + 2 * FALLOFF, span.width + 2 * FALLOFF
        )
        return _softened(_drawn(area, wide))[span.inside(wide)]

    def touched_cells(self, grid: TileGrid) -> NDArray[np.bool_]:
        """Which cells of a grid have a pixel that may change, of the shape of `TileGrid.cells`."""
        area, (rows, cols) = _geometry(self.wkb), grid.cells
        touched = np.zeros((len(rows), len(cols)), bool)
        for number, (top, bottom) in enumerate(rows):
            if not area.intersects(_box(Span(top, 0, bottom - top, grid.shape[1]))):
                continue
            for place, (left, right) in enumerate(cols):
                cell = Span(top, left, bottom - top, right - left)
                touched[number, place] = area.intersects(_box(cell)) and self.soft(cell).any()
        return touched


# -- laying over the scene -----------------------------------------------------------------------------------


class _Place(NamedTuple):
    """How coordinates and pixels of a scene belong together; both maps take and give ``(n, 2)``."""

    crs: CRS
    to_pixels: Map
    to_coordinates: Map


def _place_of(scene: RasterioScene) -> _Place:
    if scene.crs is not None and not scene.transform.is_identity:
        forth, back = scene.transform, ~scene.transform
        return _Place(
            scene.crs,
            lambda xy: np.column_stack(back @ (xy[:, 0], xy[:, 1])),
            lambda pixels: np.column_stack(forth @ (pixels[:, 0], pixels[:, 1])),
        )
    with scene.dataset() as dataset:
        (points, points_crs), rational = dataset.gcps, dataset.rpcs
    if points and points_crs is not None:
        return _through(GCPTransformer(points), points_crs)
    if rational is not None:
        return _through(RPCTransformer(rational, RPC_HEIGHT=rational.height_off), CRS.from_epsg(4326))
    lacks = "georeferencing" if scene.transform.is_identity else "CRS"
    raise MaskError(
        f"scene {scene.path} has no {lacks}, so no area of interest can be laid over it: "
        "georeference it, or use a --mask of its size"
    )


def _through(transformer: GCPTransformer | RPCTransformer, crs: CRS) -> _Place:
    def to_pixels(xy: Double) -> Double:
        rows, cols = transformer.rowcol(xy[:, 0], xy[:, 1], op=np.asarray)
        return np.column_stack([cols, rows]).astype(np.float64)

    def to_coordinates(pixels: Double) -> Double:
        return np.column_stack(transformer.xy(pixels[:, 1], pixels[:, 0], offset="ul"))

    return _Place(crs, to_pixels, to_coordinates)


def _around(shape: tuple[int, int]) -> BaseGeometry:
    """The scene and `_MARGIN` px about it, in pixels."""
    return shapely.box(-_MARGIN, -_MARGIN, shape[1] + _MARGIN, shape[0] + _MARGIN)


def _outline(scene: RasterioScene, place: _Place, own: CRS) -> BaseGeometry:
    """A box around the scene in the polygons' CRS; what lies far beyond could not even be reprojected."""
    ring = _around(scene.shape).segmentize(max(scene.shape) / 16)
    xy = _reprojected(place.to_coordinates(shapely.get_coordinates(ring)), place.crs, own)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        raise MaskError(
            f"scene {scene.path} does not fit the CRS of the area of interest: reproject the area"
        )
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    spare = 0.05 * max(right - left, top - bottom)
    return shapely.box(left - spare, bottom - spare, right + spare, top + spare)


def _laid(area: BaseGeometry, own: CRS, place: _Place, side: float) -> BaseGeometry:
    """Polygons in pixels of the scene."""
    pieces = shapely.segmentize(area, side / _SEGMENTS)
    laid = shapely.transform(pieces, lambda xy: place.to_pixels(_reprojected(xy, own, place.crs)))
    if not np.isfinite(shapely.get_coordinates(laid)).all():
        raise MaskError("the area of interest reaches where the scene's CRS ends: draw it smaller")
    return shapely.union_all(list(polygons_of(laid if laid.is_valid else shapely.make_valid(laid))))


def _reprojected(xy: Double, source: CRS, target: CRS) -> Double:
    return xy if source == target else np.column_stack(transform(source, target, xy[:, 0], xy[:, 1]))


# -- drawing -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _geometry(wkb: bytes) -> BaseGeometry:
    geometry = shapely.from_wkb(wkb)
    shapely.prepare(geometry)
    return geometry


def _box(span: Span, more: int = 0) -> BaseGeometry:
    return shapely.box(span.col - more, span.row - more, span.right + more, span.bottom + more)


def _drawn(area: BaseGeometry, span: Span) -> NDArray[np.bool_]:
    """Which pixels of a window have their centre inside."""
    here = shapely.affinity.translate(area.intersection(_box(span, 2)), -span.col, -span.row)
    parts = list(polygons_of(here))
    if not parts:
        return np.zeros((span.height, span.width), bool)
    return rasterize(parts, (span.height, span.width), dtype=np.uint8).astype(bool)


def _softened(inside: NDArray[np.bool_]) -> Float:
    """A raised cosine from the border inwards; what lies beyond the window does not count as outside."""
    from scipy.ndimage import distance_transform_edt

    if inside.all():
        return np.ones(inside.shape, np.float32)
    depth = np.clip(distance_transform_edt(inside) / FALLOFF, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * depth)).astype(np.float32)
