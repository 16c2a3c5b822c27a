"""Vector files: polygons in, GeoPackages out.

GeoJSON needs no further library; other formats go through pyogrio, in a process of its own, because it brings
a GDAL of its own and two in one process break each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry import shape as geometry_of
from shapely.geometry.base import BaseGeometry

from decr_scene.pipeline.errors import MaskError, OutputError
from decr_scene.pipeline.inputs.names import full_name, is_known_to_gdal_alone
from decr_scene.pipeline.inputs.text import json_text

Layer = tuple[str, Sequence[tuple[BaseGeometry, dict[str, Any]]]]
"""Name of a layer; geometry and attributes of what is in it."""

_BEFORE = " \t\r\n\x1e"
"""What may stand before a JSON document, and between those of a sequence."""

_READER = "decr_scene.pipeline.regions.vector_reader"
_WRITER = "decr_scene.pipeline.regions.vector_writer"


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
    if not Path(name).exists() and not is_known_to_gdal_alone(name):
        raise MaskError(f"area of interest {name}: no such file, expected a vector file: check the path")
    document = _json_of(Path(name)) if not layer else None
    geometries, crs = _from_json(document, name) if document is not None else _from_vector(name, layer)
    polygons = [part for geometry in geometries for part in polygons_of(geometry)]
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


def _json_of(path: Path) -> dict[str, Any] | None:
    """A GeoJSON document, or ``None`` for anything else."""
    if path.is_dir() or not path.exists():
        return None
    try:
        with path.open("rb") as file:
            if not json_text(file.read(64)).lstrip(_BEFORE).startswith("{"):
                return None
        text = json_text(path.read_bytes()).strip(_BEFORE)
        document = _one_or_many(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MaskError(f"area of interest {path} cannot be read ({error}): is it whole?") from error
    return document if document.get("type") != "Topology" else None


def _one_or_many(text: str) -> dict[str, Any]:
    """A document, or all of a file that has one after the other, such as a feature a line."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        while at < len(text) and text[at] in _BEFORE:
            at += 1
    if len(found) == 1:
        return dict(found[0])
    features = [part for each in found for part in (each.get("features") or [each])]
    return {"type": "FeatureCollection", "features": features}


def _from_json(document: dict[str, Any], path: str) -> tuple[list[BaseGeometry], CRS]:
    """Geometries of a GeoJSON document, in degrees unless it has the ``crs`` of the older standard."""
    try:
        features = document.get("features", [document])
        found = [f.get("geometry") if f.get("type") == "Feature" else f for f in features]
        with np.errstate(invalid="ignore"):  # coordinates that are none are found when it is validated
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
    command = [sys.executable, "-m", _READER, full_name(path), layer]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
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
        crs = CRS.from_user_input(str(text)) if text else None
    except (CRSError, ValueError) as error:
        raise MaskError(
            f"area of interest {path} has an unknown CRS ({str(text)[:60]}): reproject it"
        ) from error
    if crs is None:
        raise MaskError(f"area of interest {path} has no CRS: give it one, such as with ogr2ogr -a_srs")
    return crs


def polygons_of(geometry: BaseGeometry) -> Iterable[BaseGeometry]:
    """All polygons in a geometry, however deep, in two dimensions."""
    parts = shapely.get_parts(geometry) if hasattr(geometry, "geoms") else [geometry]
    for part in parts:
        if hasattr(part, "geoms"):
            yield from polygons_of(part)
        elif part.geom_type == "Polygon":
            yield shapely.force_2d(part)


def write_geopackage(path: Path, layers: Sequence[Layer], crs: CRS) -> None:
    """Write polygons.

    Args:
        path: The file; it does not exist yet.
        layers: Their names, and the geometry and the attributes of each polygon.
        crs: Of all.

    Raises:
        OutputError: It cannot be written.
    """
    content = {
        "path": str(path.absolute()),
        "crs": crs.to_wkt(),
        "layers": [
            [
                layer,
                [shapely.to_wkb(_multi(geometry), hex=True) for geometry, _ in areas],
                [attributes for _, attributes in areas],
            ]
            for layer, areas in layers
        ],
    }
    command = [sys.executable, "-m", _WRITER]
    done = subprocess.run(
        command,
        input=json.dumps(content),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["pyogrio crashed"])[-1]
        raise OutputError(f"polygons cannot be written to {path.parent} ({told}): write a .geojson instead")


def _multi(geometry: BaseGeometry) -> MultiPolygon:
    parts = [geometry] if isinstance(geometry, Polygon) else list(getattr(geometry, "geoms", []))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon)])
