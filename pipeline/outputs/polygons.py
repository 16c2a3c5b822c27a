"""Where a result is valid and where it was restored, as polygons that a GIS can select, count and sum up.

Traced from the finished provenance: in full for a scene of up to `SIDE` px, from its overviews for a larger
one. GeoPackage in the scene's own CRS, through pyogrio; GeoJSON, which has only one CRS, in EPSG:4326.
"""

from __future__ import annotations

import importlib.util
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL's own errors are, under no public name
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from shapely.affinity import translate
from shapely.geometry import Polygon, box, mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from decr_scene.pipeline.errors import OptionError, SceneError
from decr_scene.pipeline.outputs.side_file import FinishedRun, SideDocument
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.vectors import write_geopackage
from decr_scene.pipeline.restoration.provenance import BLENDED, GENERATED, NODATA
from decr_scene.pipeline.tiling.grid import reduced_shape

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
    """A polygon with its attributes.

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
        """Return the attributes as a file has them."""
        return {
            "class": self.kind,
            "area_m2": self.area,
            "share": round(self.share, 6),
            "generated": self.generated,
        }


class Polygons(SideDocument):
    """The layers ``footprint`` and ``restored``, traced from the provenance.

    Args:
        file: ``.gpkg`` or ``.geojson``, anywhere.
    """

    role = "polygons"
    option = "polygons"

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def requested(cls, options: Mapping[str, Any]) -> Self | None:
        """Make one if a file is named."""
        return None if options["polygons"] is None else cls(Path(options["polygons"]))

    def path(self, output: Path) -> Path:
        """Return the requested file."""
        return self.file

    def check(self, scene: RasterioScene) -> None:
        """Refuse a file or a scene for which it cannot be done, by writing the outline of the scene.

        Raises:
            OptionError: Neither a ``.gpkg`` nor a ``.geojson``; or pyogrio is missing for the former.
            SceneError: The scene is not georeferenced by CRS and transform, or the file cannot hold its CRS.
        """
        suffix = self.file.suffix.lower()
        if suffix not in SUFFIXES:
            raise OptionError(f"polygons must be written to {' or '.join(SUFFIXES)}, got {self.file.name}")
        if suffix == ".gpkg" and importlib.util.find_spec("pyogrio") is None:
            raise OptionError(
                "GeoPackages are written by pyogrio, which is not installed: "
                "pip install pyogrio, or write a .geojson"
            )
        if not scene.is_placed:
            raise SceneError(
                f"{scene.path} has no CRS and transform, polygons need them: georeference it (gdalwarp), or "
                "leave out --polygons"
            )
        if suffix == ".geojson":
            check_wgs84(scene, "a .geojson of --polygons")
            return
        with tempfile.TemporaryDirectory() as folder:
            whole = Area(_whole(scene), "valid", None, 1.0)
            _write(Path(folder, "trial.gpkg"), [("footprint", [whole]), ("restored", [])], scene.crs)

    def write(self, run: FinishedRun, path: Path) -> None:
        """Trace the finished provenance."""
        valid, restored, crs = trace(run.paths["provenance"])
        _write(path, [("footprint", valid), ("restored", restored)], crs)


def check_wgs84(scene: RasterioScene, purpose: str) -> None:
    """Refuse a scene whose CRS has no relation to longitudes and latitudes, such as that of a site.

    Args:
        scene: The scene; one without a CRS passes.
        purpose: What needs them.

    Raises:
        SceneError: Its CRS has none.
    """
    cause: Exception | None = None
    try:
        outline = corners(scene)
        if outline is None or all(map(math.isfinite, outline.bounds)):
            return
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        cause = error
    raise SceneError(
        f"the CRS of {scene.path} cannot be related to longitudes and latitudes, which {purpose} needs: "
        "leave that out, or georeference the scene (gdalwarp)"
    ) from cause


def corners(scene: RasterioScene) -> BaseGeometry | None:
    """Draw the outline of the whole raster in EPSG:4326, or ``None`` without CRS and transform."""
    return to_wgs84(_whole(scene), scene.crs) if scene.is_placed else None


def _whole(scene: RasterioScene) -> Polygon:
    """Draw the outline of a raster in its CRS.

    Raises:
        SceneError: Its transform has NaN or infinity.
    """
    if not all(map(math.isfinite, scene.transform)):
        raise SceneError(
            f"the transform of {scene.path} has a number that is none, so that it lies nowhere: georeference "
            "it (gdal_edit.py -a_ullr)"
        )
    height, width = scene.shape
    return Polygon(scene.transform * corner for corner in ((0, 0), (width, 0), (width, height), (0, height)))


def _write(path: Path, layers: list[tuple[str, list[Area]]], crs: CRS) -> None:
    """Write layers to a ``.gpkg`` or ``.geojson`` that is not there yet."""
    if path.suffix.lower() == ".gpkg":
        rows = [(layer, [(area.geometry, area.attributes) for area in areas]) for layer, areas in layers]
        write_geopackage(path, rows, crs)
    else:
        path.write_text(_geojson(layers, crs), encoding="utf-8")


def trace(provenance: Path) -> tuple[list[Area], list[Area], CRS]:
    """Trace the polygons of a provenance.

    Returns:
        The footprint of the valid pixels, one area or none; the restored areas; the CRS of both.
    """
    classes, transform, crs = read_classes(provenance, SIDE)
    valid_count = max(1, int((classes != NODATA).sum()))
    unit = _square_metres(crs)
    outline = footprint(classes, transform)
    size = None if unit is None else round(valid_count * _pixel_area(transform) * unit, 3)
    valid = [] if outline is None else [Area(outline, "valid", size, 1.0)]
    return valid, _restored(classes, transform, unit, valid_count), crs


def read_classes(provenance: Path, side: int) -> tuple[NDArray[np.uint8], Affine, CRS | None]:
    """Read classes ``(h, w)`` of no more than ``side`` px a side, with their transform."""
    with rasterio.open(provenance) as dataset:
        height, width = reduced_shape(dataset.shape, side)
        classes = dataset.read(1, out_shape=(height, width))
        scale = Affine.scale(dataset.width / width, dataset.height / height)
        return classes, dataset.transform @ scale, dataset.crs


def footprint(classes: NDArray[np.uint8], transform: Affine) -> BaseGeometry | None:
    """Trace the outline of the valid pixels of classes ``(h, w)``, or ``None`` if none is.

    It is simplified by a pixel.
    """
    valid = (classes != NODATA).astype(np.uint8)
    if not valid.any():
        return None
    parts = [shape(outline) for outline, _ in shapes(valid, mask=valid == 1, transform=transform)]
    whole = unary_union(parts)
    simple = whole.simplify(_pixel(transform))
    return simple if simple.is_valid and not simple.is_empty else whole


FARTHEST = 720.0
"""Longitude beyond which coordinates are no degrees, whatever their CRS says."""


def to_wgs84(geometry: BaseGeometry, crs: CRS) -> BaseGeometry:
    """Reproject to EPSG:4326, longitude first, from -180 to 180 degrees.

    Long edges are bent on the way; what crosses 180 degrees is cut there.
    """
    longest = max(geometry.bounds[2] - geometry.bounds[0], geometry.bounds[3] - geometry.bounds[1])
    fine = geometry.segmentize(longest / SEGMENTS) if longest and crs != WGS84 else geometry
    bent = _within_a_turn(shape(transform_geom(crs, WGS84, mapping(fine), precision=8)))
    plain = bent.simplify(STRAIGHT)
    return plain if plain.is_valid and not plain.is_empty else bent


def _within_a_turn(geometry: BaseGeometry) -> BaseGeometry:
    """Move what lies beyond 180 degrees of longitude, as a raster in degrees may, by a turn."""
    west, south, east, north = geometry.bounds
    if (west >= -180 and east <= 180) or not (west >= -FARTHEST and east <= FARTHEST):
        return geometry
    turns = range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1)
    parts = []
    for n in turns:
        cut = geometry.intersection(box(360 * n - 180, south, 360 * n + 180, north))
        areas = [part for part in getattr(cut, "geoms", [cut]) if part.area]
        parts += [translate(part, -360 * n) for part in areas]
    return unary_union(parts)


def _restored(classes: NDArray[np.uint8], transform: Affine, unit: float | None, valid: int) -> list[Area]:
    """Trace the connected restored areas, in the order of their first pixels."""
    from scipy.ndimage import label

    labels, _ = label(classes >= BLENDED)
    labels = labels.astype(np.int32)
    pixels = np.bincount(labels.ravel())
    generated = np.bincount(labels.ravel(), weights=(classes == GENERATED).ravel())
    enough = pixels >= LEAST
    enough[0] = False
    areas = []
    for geometry, number in shapes(labels, mask=enough[labels], transform=transform):
        outline, n = shape(geometry).simplify(_pixel(transform)), int(number)
        areas.append(
            Area(
                _polygon(outline, geometry),
                "restored",
                None if unit is None else round(pixels[n] * _pixel_area(transform) * unit, 3),
                pixels[n] / valid,
                round(generated[n] / pixels[n], 4),
            )
        )
    return areas


def _polygon(simple: BaseGeometry, traced: Any) -> BaseGeometry:
    return simple if simple.is_valid and not simple.is_empty else shape(traced)


def _pixel(transform: Affine) -> float:
    """Compute the side of a pixel, in units of the CRS."""
    return math.sqrt(_pixel_area(transform))


def _pixel_area(transform: Affine) -> float:
    return abs(float(transform.determinant))


def _square_metres(crs: CRS | None) -> float | None:
    """Compute the square metres of a square unit of a projected CRS."""
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
