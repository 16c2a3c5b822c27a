"""The area of interest: polygons of the user's inside which alone anything may change.

They are read from any vector file, converted to pixels of the scene once, and kept in the plan: no task
opens the file again. GeoJSON needs no further library; other formats are read by pyogrio, in a process of its
own, because it brings a GDAL of its own and two in one process break each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import Georeferencing, full_turn, georeferencing_of
from decr_scene.pipeline.regions.vectors import polygons_of, read_polygons
from decr_scene.pipeline.tiling.grid import Span, TileGrid

FALLOFF = 16
"""Pixels inside the border over which the restoration rises from nothing to all."""

_MARGIN = 64
"""Polygons are cut off this far outside the scene, px, before they are converted to its pixels."""

_TINY = 1e-3
"""Area below which an intersection is rounding, square px."""

_SEGMENTS = 200
"""Segments of a scene's longer side: a straight line in one CRS is curved in another, so lines are split."""


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
        """Read the polygons of a file, in pixels of a scene.

        Scenes that have only GCPs or RPCs are related as GDAL does it, the latter at their mean height: on
        hilly ground the area is then off by as much as the scene itself.

        Args:
            path: Any vector file; a layer among several is named as in QGIS, ``areas.gpkg|layername=fields``.
            scene: The scene.

        Raises:
            MaskError: It cannot be read, has no polygons, no CRS or an invalid polygon, or lies outside the
                scene; or the scene is not georeferenced.
        """
        georeferencing = georeferencing_of(scene)
        if georeferencing is None:
            lacks = "georeferencing" if scene.transform.is_identity else "CRS"
            raise MaskError(
                f"scene {scene.path} has no {lacks}, so no area of interest can be placed on it: "
                "georeference it, or give a mask of its size as --mask"
            )
        geometries, crs = read_polygons(path)
        outline = _outline(scene, georeferencing, crs)
        if crs.is_geographic and georeferencing.crs.is_geographic:
            geometries = list(_with_turns(geometries, crs))
        clipped = shapely.union_all([geometry.intersection(outline) for geometry in geometries])
        left, bottom, right, top = outline.bounds
        height, width = scene.shape
        own = _outline(scene, georeferencing, georeferencing.crs)
        on_scene = _to_scene_pixels(
            clipped, crs, georeferencing, max(right - left, top - bottom), own
        ).intersection(_with_margin(scene.shape))
        if on_scene.intersection(shapely.box(0, 0, width, height)).area < _TINY:
            raise MaskError(
                f"the area of interest {path} does not touch the scene {scene.path}: "
                "compare where both lie, or choose another"
            )
        return Aoi(path, shapely.to_wkb(shapely.normalize(on_scene)))

    @property
    def digest(self) -> str:
        """Compute the SHA-256 of the polygons on the scene."""
        return hashlib.sha256(self.wkb).hexdigest()

    def soft(self, span: Span) -> Float:
        """Return weights of the restoration: 0 outside, 1 from `FALLOFF` px inside, ``(height, width)``."""
        area, box = _geometry(self.wkb), _box(span)
        if area.contains(_box(span, FALLOFF + 1)):
            return np.ones((span.height, span.width), np.float32)
        if not area.intersects(box):
            return np.zeros((span.height, span.width), np.float32)
        wide = Span(
            span.row - FALLOFF, span.col - FALLOFF, span.height + 2 * FALLOFF, span.width + 2 * FALLOFF
        )
        return _faded(_rasterized(area, wide))[span.inside(wide)]

    def holds(self, rows: Double, cols: Double) -> Bool:
        """Return which points of a lattice, px from the scene's corner, lie inside, ``(rows, cols)``."""
        inside: Bool = shapely.contains_xy(_geometry(self.wkb), *np.meshgrid(cols, rows))
        return inside

    def touched_cells(self, grid: TileGrid) -> NDArray[np.bool_]:
        """Mark the cells of a grid with a pixel that may change, of the shape of `TileGrid.cells`."""
        area, (rows, cols) = _geometry(self.wkb), grid.cells
        touched = np.zeros((len(rows), len(cols)), bool)
        for row_index, (top, bottom) in enumerate(rows):
            if not area.intersects(_box(Span(top, 0, bottom - top, grid.shape[1]))):
                continue
            for col_index, (left, right) in enumerate(cols):
                cell = Span(top, left, bottom - top, right - left)
                touched[row_index, col_index] = area.intersects(_box(cell)) and self.soft(cell).any()
        return touched


# -- on the pixels of the scene ----------------------------------------------------------------------------


def _with_margin(shape: tuple[int, int]) -> BaseGeometry:
    """Return a box of the scene with `_MARGIN` px around it, in pixels."""
    return shapely.box(-_MARGIN, -_MARGIN, shape[1] + _MARGIN, shape[0] + _MARGIN)


def _outline(scene: RasterioScene, georeferencing: Georeferencing, crs: CRS) -> BaseGeometry:
    """Return a box around the scene in the CRS of the polygons.

    Polygons are clipped to it first: places far away may have no coordinates in the scene's CRS.
    """
    ring = _with_margin(scene.shape).segmentize(max(scene.shape) / 16)
    xy = _reprojected(georeferencing.to_coordinates(shapely.get_coordinates(ring)), georeferencing.crs, crs)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        raise MaskError(
            f"scene {scene.path} does not fit the CRS of the area of interest: reproject the area"
        )
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    spare = 0.05 * max(right - left, top - bottom)
    return shapely.box(left - spare, bottom - spare, right + spare, top + spare)


def _with_turns(geometries: Iterable[BaseGeometry], crs: CRS) -> Iterator[BaseGeometry]:
    """Yield polygons of longitudes, and the same a turn to the west and to the east."""
    turn = full_turn(crs)
    for geometry in geometries:
        for shift in (0, -turn, turn):
            yield shapely.affinity.translate(geometry, shift)


def _to_scene_pixels(
    area: BaseGeometry, crs: CRS, georeferencing: Georeferencing, side: float, own: BaseGeometry
) -> BaseGeometry:
    """Convert polygons from their CRS to pixels of the scene.

    Args:
        area: The polygons.
        crs: Their CRS.
        georeferencing: The scene's.
        side: Longer side of the scene, in units of ``crs``.
        own: A box around the scene in its own CRS: a turn away GCPs and RPCs may give any pixel.

    Raises:
        MaskError: Some coordinates have none in the scene's CRS.
    """
    target = georeferencing.crs
    pieces = polygons_of(shapely.segmentize(area, side / _SEGMENTS))
    moved = [shapely.transform(piece, lambda xy: _reprojected(xy, crs, target)) for piece in pieces]
    if not all(np.isfinite(shapely.get_coordinates(piece)).all() for piece in moved):
        raise MaskError("the area of interest reaches where the scene's CRS ends: draw it smaller")
    if target.is_geographic and crs != target:
        moved = [copy for piece in moved for copy in _on_all_turns(piece, full_turn(target))]
        moved = [part for copy in moved for part in polygons_of(shapely.make_valid(copy).intersection(own))]
    on_scene = [shapely.transform(piece, georeferencing.to_pixels) for piece in moved]
    if not all(np.isfinite(shapely.get_coordinates(piece)).all() for piece in on_scene):
        raise MaskError("the area of interest reaches where the scene's CRS ends: draw it smaller")
    whole = [piece if piece.is_valid else shapely.make_valid(piece) for piece in on_scene]
    return shapely.union_all([part for piece in whole for part in polygons_of(piece)])


def _reprojected(xy: Double, source: CRS, target: CRS) -> Double:
    return xy if source == target else np.column_stack(transform(source, target, xy[:, 0], xy[:, 1]))


def _on_all_turns(polygon: BaseGeometry, turn: float) -> Iterator[BaseGeometry]:
    """Make a polygon whole whose longitudes PROJ gave within one turn, and yield it on three of them."""
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    for ring in rings:
        ring[:, 0] = np.unwrap(ring[:, 0], period=turn)
        ring[:, 0] += turn * np.rint((rings[0][:, 0].mean() - ring[:, 0].mean()) / turn)
    whole = shapely.Polygon(rings[0], rings[1:])
    for shift in (0, -turn, turn):
        yield shapely.affinity.translate(whole, shift)


# -- drawing -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _geometry(wkb: bytes) -> BaseGeometry:
    geometry = shapely.from_wkb(wkb)
    shapely.prepare(geometry)
    return geometry


def _box(span: Span, margin: int = 0) -> BaseGeometry:
    return shapely.box(span.col - margin, span.row - margin, span.right + margin, span.bottom + margin)


def _rasterized(area: BaseGeometry, span: Span) -> NDArray[np.bool_]:
    """Mark the pixels of a window whose centre is inside, ``(height, width)``."""
    in_window = shapely.affinity.translate(area.intersection(_box(span, 2)), -span.col, -span.row)
    parts = list(polygons_of(in_window))
    if not parts:
        return np.zeros((span.height, span.width), bool)
    return rasterize(parts, (span.height, span.width), dtype=np.uint8).astype(bool)


def _faded(inside: NDArray[np.bool_]) -> Float:
    """Rise from 0 to 1 over `FALLOFF` px from the border inwards, a raised cosine, ``(h, w)`` of ``inside``.

    The border of the window itself is none.
    """
    from scipy.ndimage import distance_transform_edt

    if inside.all():
        return np.ones(inside.shape, np.float32)
    depth = np.clip(distance_transform_edt(inside) / FALLOFF, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * depth)).astype(np.float32)
