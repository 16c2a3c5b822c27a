"""The area of interest: polygons of the user's inside which alone anything may change.

They are read from any vector file, laid over the scene in pixels once, and travel with the plan: no task
opens the file again. GeoJSON needs no further library; other formats are read by pyogrio, in a process of its
own, because it brings a GDAL of its own and two in one process break each other.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform
from shapely.geometry import shape as geometry_of
from shapely.geometry.base import BaseGeometry

from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.grid import Span, TileGrid
from decr_scene.pipeline.scene import RasterioScene

Double = NDArray[np.float64]
Float = NDArray[np.float32]
Map = Callable[[Double], Double]

FALLOFF = 16
"""Pixels inside the border over which the restoration rises from nothing to all."""

_MARGIN = 64
"""What lies further outside the scene than this, px, is cut off before it is laid over it."""

_TINY = 1e-3
"""Square pixels that are no area but rounding."""

_SEGMENTS = 200
"""A straight line in one CRS is none in another: no piece of it is longer than the scene's side by this."""

_READER = """
import json, sys, pyogrio
path, layer = sys.argv[1], sys.argv[2] or None
layers = [[str(name), kind] for name, kind in pyogrio.list_layers(path)]
named = [name for name, kind in layers if kind is not None]
if layer is None and len(named) == 1:
    layer = named[0]
found = {"layers": named}
if layer is not None:
    meta, _, wkb, _ = pyogrio.raw.read(path, layer=layer, columns=[])
    found |= {"crs": meta["crs"], "wkb": [bytes(g).hex() for g in wkb if g is not None]}
json.dump(found, sys.stdout)
"""


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


def read_polygons(path: str) -> tuple[list[BaseGeometry], CRS]:
    """Read all polygons of a vector file.

    Args:
        path: A file, with ``|layername=…`` where it has several layers.

    Returns:
        The polygons, and what their coordinates mean.

    Raises:
        MaskError: It cannot be read, has no polygons, no CRS or an invalid one.
    """
    name, _, layer = path.partition("|layername=")
    if not Path(name).exists():
        raise MaskError(f"area of interest {name}: no such file, expected a vector file: check the path")
    document = _json_of(Path(name)) if not layer else None
    geometries, crs = _from_json(document, name) if document is not None else _from_vector(name, layer)
    polygons = [part for geometry in geometries for part in _polygons(geometry)]
    if not polygons:
        kinds = ", ".join(sorted({geometry.geom_type for geometry in geometries})) or "nothing"
        raise MaskError(f"area of interest {path} has {kinds}, expected polygons: draw the area as polygons")
    for number, polygon in enumerate(polygons, start=1):
        if not polygon.is_valid:
            raise MaskError(
                f"area of interest {path}: polygon {number} is invalid "
                f"({shapely.is_valid_reason(polygon)}): mend it, such as with Fix geometries in QGIS"
            )
    return polygons, crs


# -- reading -------------------------------------------------------------------------------------------------


def _json_of(path: Path) -> dict[str, Any] | None:
    """A GeoJSON document, or ``None`` for anything else."""
    if path.is_dir():
        return None
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return None
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise MaskError(f"area of interest {path} cannot be read ({error}): is it whole?") from error
    return document if document.get("type") != "Topology" else None


def _from_json(document: dict[str, Any], path: str) -> tuple[list[BaseGeometry], CRS]:
    """Geometries of a GeoJSON document, in degrees unless it has the ``crs`` of the older standard."""
    try:
        features = document.get("features", [document])
        found = [f.get("geometry") if f.get("type") == "Feature" else f for f in features]
        geometries = [geometry_of(geometry) for geometry in found if geometry]
        named = document.get("crs", {"properties": {"name": "EPSG:4326"}})
        name = named["properties"]["name"] if named else None
    except (LookupError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise MaskError(
            f"area of interest {path} is no GeoJSON ({type(error).__name__}: {error}): check it with ogrinfo"
        ) from error
    return [g for g in geometries if not g.is_empty], _known_crs(name, path)


def _from_vector(path: str, layer: str) -> tuple[list[BaseGeometry], CRS]:
    """What pyogrio reads, in another process."""
    command = [sys.executable, "-c", _READER, str(Path(path).absolute()), layer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named 'pyogrio'" in done.stderr:
        raise MaskError(
            f"area of interest {path}: formats other than GeoJSON need pyogrio: "
            "pip install 'decr-scene[vector]', or convert with ogr2ogr -f GeoJSON"
        )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["pyogrio crashed"])[-1].partition(": ")[2]
        raise MaskError(f"area of interest {path} cannot be read ({told}): check it with ogrinfo")
    found = json.loads(done.stdout)
    if "wkb" not in found:
        layers = ", ".join(found["layers"]) or "none"
        raise MaskError(
            f"area of interest {path} has the layers {layers}, expected one: name it with "
            f"{Path(path).name}|layername=NAME"
        )
    geometries = [shapely.force_2d(shapely.from_wkb(bytes.fromhex(text))) for text in found["wkb"]]
    return [g for g in geometries if not g.is_empty], _known_crs(found["crs"], path)


def _known_crs(text: str | None, path: str) -> CRS:
    try:
        crs = CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise MaskError(
            f"area of interest {path} has an unknown CRS ({text[:60] if text else text}): reproject it"
        ) from error
    if crs is None:
        raise MaskError(f"area of interest {path} has no CRS: give it one, such as with ogr2ogr -a_srs")
    return crs


def _polygons(geometry: BaseGeometry) -> Iterable[BaseGeometry]:
    parts = shapely.get_parts(geometry) if hasattr(geometry, "geoms") else [geometry]
    for part in parts:
        if hasattr(part, "geoms"):
            yield from _polygons(part)
        elif part.geom_type == "Polygon":
            yield shapely.force_2d(part)


# -- laying over the scene -----------------------------------------------------------------------------------


class _Place(NamedTuple):
    """How coordinates and pixels of a scene belong together; both maps take and give ``(n, 2)``."""

    crs: CRS
    to_pixels: Map
    to_coordinates: Map


def _place_of(scene: RasterioScene) -> _Place:
    with scene.dataset() as dataset:
        (points, points_crs), rational = dataset.gcps, dataset.rpcs
    if scene.crs is not None and not scene.transform.is_identity:
        forth, back = scene.transform, ~scene.transform
        return _Place(
            scene.crs,
            lambda xy: np.column_stack(back @ (xy[:, 0], xy[:, 1])),
            lambda pixels: np.column_stack(forth @ (pixels[:, 0], pixels[:, 1])),
        )
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
    return shapely.union_all(list(_polygons(laid if laid.is_valid else shapely.make_valid(laid))))


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
    parts = list(_polygons(here))
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
