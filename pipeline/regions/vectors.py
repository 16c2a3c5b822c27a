"""Read polygons of vector files, and write GeoPackages.

GeoJSON needs no further library; other formats go through pyogrio, in a process of its own, because it brings
a GDAL of its own and two in one process break each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from decr_scene.pipeline.files import free_disk
from decr_scene.pipeline.inputs.names import full_name, is_gdal_name, refuse_pipe
from decr_scene.pipeline.inputs.text import json_text, xml_in_utf8

Layer = tuple[str, Sequence[tuple[BaseGeometry, dict[str, Any]]]]
"""Name of a layer; geometry and attributes of each of its polygons."""

_SEPARATORS = " \t\r\n\x1e"
"""Characters before a JSON document, and between those of a sequence."""

_HEAD = 1024
"""Bytes of a file in which the declaration of XML is, if it has one."""

_READER = "decr_scene.pipeline.regions.vector_reader"
_WRITER = "decr_scene.pipeline.regions.vector_writer"


def read_polygons(path: str) -> tuple[list[BaseGeometry], CRS]:
    """Read all polygons of a vector file.

    Args:
        path: A file, with ``|layername=…`` where it has several layers.

    Returns:
        The polygons, and the CRS of their coordinates.

    Raises:
        MaskError: It cannot be read, has no polygons, no CRS or an invalid one.
        SceneReadError: It is a pipe or a device.
    """
    name, _, layer = path.partition("|layername=")
    refuse_pipe(name)
    if not Path(name).exists() and not is_gdal_name(name):
        raise MaskError(f"area of interest {name}: no such file, expected a vector file: check the path")
    document = _geojson_document(Path(name)) if not layer else None
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


def _geojson_document(path: Path) -> dict[str, Any] | None:
    """Return the GeoJSON document of a file, or ``None`` for any other format."""
    if path.is_dir() or not path.exists():
        return None
    try:
        with path.open("rb") as file:
            if not json_text(file.read(64)).lstrip(_SEPARATORS).startswith("{"):
                return None
        text = json_text(path.read_bytes()).strip(_SEPARATORS)
        document = _parse_documents(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MaskError(f"area of interest {path} cannot be read ({error}): is it whole?") from error
    return document if document.get("type") != "Topology" else None


def _parse_documents(text: str) -> dict[str, Any]:
    """Return the document of a text, or one collection of all, such as of a feature a line."""
    decoder, position, documents = json.JSONDecoder(), 0, []
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        documents.append(document)
        while position < len(text) and text[position] in _SEPARATORS:
            position += 1
    if len(documents) == 1:
        return dict(documents[0])
    features = [part for each in documents for part in (each.get("features") or [each])]
    return {"type": "FeatureCollection", "features": features}


def _from_json(document: dict[str, Any], path: str) -> tuple[list[BaseGeometry], CRS]:
    """Return the geometries of a GeoJSON document, in degrees unless it has the older ``crs`` member."""
    try:
        features = document.get("features", [document])
        members = [f.get("geometry") if f.get("type") == "Feature" else f for f in features]
        with np.errstate(invalid="ignore"):  # invalid coordinates are refused when it is validated
            geometries = [geometry_of(geometry) for geometry in members if geometry]
        crs_member = document.get("crs", {"properties": {"name": "EPSG:4326"}})
        name = crs_member["properties"]["name"] if crs_member else None
    except (LookupError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise MaskError(
            f"area of interest {path} is no GeoJSON ({type(error).__name__}: {error}): check it with ogrinfo"
        ) from error
    return [g for g in geometries if not g.is_empty], _crs_of(name, path)


def _from_vector(path: str, layer: str) -> tuple[list[BaseGeometry], CRS]:
    """Read geometries and CRS with pyogrio, in another process."""
    with _as_gdal_reads(path) as name:
        command = [sys.executable, "-m", _READER, name, layer]
        process = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    if "No module named 'pyogrio'" in process.stderr:
        raise MaskError(
            f"area of interest {path}: formats other than GeoJSON are read by pyogrio, which is missing or "
            "broken here: pip install pyogrio, or convert with ogr2ogr -f GeoJSON"
        )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["pyogrio crashed"])[-1].partition(": ")[2]
        raise MaskError(f"area of interest {path} cannot be read ({reason}): check it with ogrinfo")
    answer = json.loads(process.stdout)
    if "wkb" not in answer:
        layers = ", ".join(answer["layers"]) or "none"
        raise MaskError(
            f"area of interest {path} has the layers {layers}, expected one: name it with "
            f"{Path(path).name}|layername=NAME"
        )
    geometries = [shapely.force_2d(shapely.from_wkb(bytes.fromhex(text))) for text in answer["wkb"]]
    return [g for g in geometries if not g.is_empty], _crs_of(answer["crs"], path)


@contextmanager
def _as_gdal_reads(path: str) -> Iterator[str]:
    """Give the full name of a vector file, or of a copy in UTF-8.

    XML (KML, GML, GPX) may be in encodings that GDAL's parser does not know.
    """
    name = full_name(path)
    document = None
    if Path(name).is_file():
        with Path(name).open("rb") as file:
            head = file.read(_HEAD)
        if xml_in_utf8(head) is not None:
            document = xml_in_utf8(Path(name).read_bytes())
    if document is None:
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(name).name)
        copy.write_bytes(document)
        yield str(copy)


def _crs_of(text: str | None, path: str) -> CRS:
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
    """Yield all polygons in a geometry, however nested, in two dimensions."""
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
    process = subprocess.run(
        command,
        input=json.dumps(content),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["pyogrio crashed"])[-1]
        raise OutputError(
            f"polygons cannot be written to {path.absolute().parent} ({reason}; "
            f"{free_disk(path.absolute().parent)} free): check the disk, or write a .geojson instead"
        )


def _multi(geometry: BaseGeometry) -> MultiPolygon:
    parts = [geometry] if isinstance(geometry, Polygon) else list(getattr(geometry, "geoms", []))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon)])
