"""Where a result is valid and where it was restored, as polygons that a GIS can select, count and sum up.

Traced from the finished provenance: in full for a scene of up to `SIDE` px, from its overviews for a larger
one. GeoPackage in the scene's own CRS, through pyogrio; GeoJSON, which has only one CRS, in EPSG:4326.
"""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from decr_scene.pipeline.errors import OptionError, SceneError
from decr_scene.pipeline.files import write_whole
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.vectors import write_geopackage
from decr_scene.pipeline.restoration.provenance import BLENDED, GENERATED, NODATA

SIDE = 4096
"""Greatest side of the raster that is traced, px."""

LEAST = 16
"""Restored areas of fewer pixels of that raster are left out."""

WGS84 = CRS.from_epsg(4326)
SUFFIXES = (".gpkg", ".geojson")
SEGMENTS = 16
"""Into how many pieces, at least, the longer side of a footprint is cut before its CRS changes."""

STRAIGHT = 1e-6
"""Degrees, 0.1 m, that an edge may be off after that, so that straight ones stay single."""


@dataclass(frozen=True)
class Area:
    """A polygon and what is known of it.

    Args:
        geometry: In the CRS of the scene.
        kind: ``valid`` or ``restored``.
        area: In m²; ``None`` where the CRS is not a projected one.
        share: Of the valid pixels of the scene.
        generated: Share of its own pixels that are the model's alone; ``None`` for a footprint.
    """

    geometry: BaseGeometry
    kind: str
    area: float | None
    share: float
    generated: float | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """As they stand in a file."""
        return {
            "class": self.kind,
            "area_m2": self.area,
            "share": round(self.share, 6),
            "generated": self.generated,
        }


def check_polygons(scene: RasterioScene, path: Path) -> None:
    """Refuse before any work is done.

    Raises:
        OptionError: Neither a ``.gpkg`` nor a ``.geojson``; or pyogrio is missing for the former.
        SceneError: The scene is not georeferenced by CRS and transform.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"polygons must be written to {' or '.join(SUFFIXES)}, got {path.name}")
    if path.suffix.lower() == ".gpkg" and importlib.util.find_spec("pyogrio") is None:
        raise OptionError(
            "GeoPackages are written by pyogrio, which is not installed: pip install 'decr-scene[vector]', "
            "or write a .geojson"
        )
    if scene.crs is None:
        raise SceneError(
            f"{scene.path} has no CRS and transform, polygons need them: georeference it (gdalwarp), or "
            "leave out --polygons"
        )


def write_polygons(provenance: Path, path: Path) -> None:
    """Trace a provenance and write the layers ``footprint`` and ``restored``.

    Args:
        provenance: The finished raster of classes.
        path: ``.gpkg`` or ``.geojson``; replaced if it exists.
    """
    valid, restored, crs = trace(provenance)
    layers = [("footprint", valid), ("restored", restored)]
    with write_whole(path) as partial:
        if path.suffix.lower() == ".gpkg":
            rows = [(layer, [(area.geometry, area.attributes) for area in areas]) for layer, areas in layers]
            write_geopackage(partial, rows, crs)
        else:
            partial.write_text(_geojson(layers, crs))


def trace(provenance: Path) -> tuple[list[Area], list[Area], CRS]:
    """Polygons of a provenance.

    Returns:
        The footprint of what is valid, one area or none; the restored areas; the CRS of both.
    """
    classes, transform, crs = read_classes(provenance, SIDE)
    many = max(1, int((classes != NODATA).sum()))
    unit = _square_metres(crs)
    outline = footprint(classes, transform)
    size = None if unit is None else round(many * _pixel_area(transform) * unit, 3)
    valid = [] if outline is None else [Area(outline, "valid", size, 1.0)]
    return valid, _restored(classes, transform, unit, many), crs


def read_classes(provenance: Path, side: int) -> tuple[NDArray[np.uint8], Affine, CRS | None]:
    """Classes of no more than ``side`` px a side, with where their pixels lie."""
    with rasterio.open(provenance) as dataset:
        factor = max(1, -(-max(dataset.shape) // side))
        height, width = (-(-extent // factor) for extent in dataset.shape)
        classes = dataset.read(1, out_shape=(height, width))
        scale = Affine.scale(dataset.width / width, dataset.height / height)
        return classes, dataset.transform @ scale, dataset.crs


def footprint(classes: NDArray[np.uint8], transform: Affine) -> BaseGeometry | None:
    """Outline of what is valid, simplified by a pixel; ``None``: nothing is."""
    valid = (classes != NODATA).astype(np.uint8)
    if not valid.any():
        return None
    parts = [shape(found) for found, _ in shapes(valid, mask=valid == 1, transform=transform)]
    whole = unary_union(parts)
    simple = whole.simplify(_pixel(transform))
    return simple if simple.is_valid and not simple.is_empty else whole


def to_wgs84(geometry: BaseGeometry, crs: CRS) -> BaseGeometry:
    """In EPSG:4326, longitude first; long edges are bent on the way."""
    longest = max(geometry.bounds[2] - geometry.bounds[0], geometry.bounds[3] - geometry.bounds[1])
    fine = geometry.segmentize(longest / SEGMENTS) if longest and crs != WGS84 else geometry
    bent = shape(transform_geom(crs, WGS84, mapping(fine), precision=8))
    plain = bent.simplify(STRAIGHT)
    return plain if plain.is_valid and not plain.is_empty else bent


def _restored(classes: NDArray[np.uint8], transform: Affine, unit: float | None, valid: int) -> list[Area]:
    """Connected restored areas, in the order of their first pixels."""
    from scipy.ndimage import label

    labels, _ = label(classes >= BLENDED)
    labels = labels.astype(np.int32)
    pixels = np.bincount(labels.ravel())
    generated = np.bincount(labels.ravel(), weights=(classes == GENERATED).ravel())
    enough = pixels >= LEAST
    enough[0] = False
    areas = []
    for found, number in shapes(labels, mask=enough[labels], transform=transform):
        outline, n = shape(found).simplify(_pixel(transform)), int(number)
        areas.append(
            Area(
                _polygon(outline, found),
                "restored",
                None if unit is None else round(pixels[n] * _pixel_area(transform) * unit, 3),
                pixels[n] / valid,
                round(generated[n] / pixels[n], 4),
            )
        )
    return areas


def _polygon(simple: BaseGeometry, found: Any) -> BaseGeometry:
    return simple if simple.is_valid and not simple.is_empty else shape(found)


def _pixel(transform: Affine) -> float:
    """Side of a pixel in units of the CRS."""
    return math.sqrt(_pixel_area(transform))


def _pixel_area(transform: Affine) -> float:
    return abs(float(transform.determinant))


def _square_metres(crs: CRS | None) -> float | None:
    """Square metres to a square unit of a projected CRS."""
    if crs is None or not crs.is_projected:
        return None
    return float(crs.linear_units_factor[1]) ** 2


def _geojson(layers: list[tuple[str, list[Area]]], crs: CRS) -> str:
    features = [
        {
            "type": "Feature",
            "properties": {"layer": layer, **area.attributes},
            "geometry": mapping(to_wgs84(area.geometry, crs)),
        }
        for layer, areas in layers
        for area in areas
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"
