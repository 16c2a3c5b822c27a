"""Copy everything of a raster but its pixels from one file to another, through a VRT.

GDAL describes the source as a VRT; details that it rounds or leaves out (GCPs, tags of other domains, tags of
bands) are added from the source, stale ones (statistics, structure) removed, and the pixels are pointed to
our scratch file. The COG driver then copies this VRT, and nothing has to be set on the finished
file, whose layout would break. Masks stay where they are, in the source, until then.

Texts need not be UTF-8, and their encoding is unknown: they are `carried` here, and `released` where the VRT
is written, so that each keeps its bytes.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import rasterio
import rasterio.shutil
from rasterio.enums import MaskFlags
from rasterio.io import MemoryFile

from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.files import write_whole
from decr_scene.pipeline.inputs.text import carried, decoded, readable, released

Tags = dict[str, str]

_STRUCTURE = {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "TIFF", "xml:VRT"}
"""Domains that describe the storage of the old file."""

_RESAMPLING = {"OVR_RESAMPLING_ALG", "OVERVIEW_RESAMPLING"}
BAND_PARTS = {
    *("Description", "UnitType", "Offset", "Scale", "NoDataValue", "ColorInterp", "ColorTable"),
    *("CategoryNames", "GDALRasterAttributeTable"),
}
_GDAL_NAMES = {
    **{"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"},
    **{"float32": "Float32", "float64": "Float64"},
}
_DOCUMENTS = ("xml:", "json:")
MARK = "decr-scene:default"
"""Domain that carries the bands' tags of the default domain; see `pipeline.writing.cog`."""


@dataclass(frozen=True)
class NewBands:
    """Bands that the source does not have.

    Args:
        descriptions: One a band; ``''`` for none.
        dtype: Of all, as numpy calls it.
        nodata: Of all.
        colors: Colour table of all, ``(red, green, blue, alpha)`` of 0, 1, ...; empty for none.
    """

    descriptions: tuple[str, ...]
    dtype: str
    nodata: float | None = None
    colors: tuple[tuple[int, int, int, int], ...] = ()


def copy_vrt(
    dataset: Any, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
) -> tuple[str, int]:
    """Describe a raster whose pixels are in one file and everything else in another.

    Args:
        dataset: Open dataset with everything else.
        pixels: Path of the file with the pixels, of the same shape and bands.
        blocksize: Side of its blocks, px.
        statistics: ``STATISTICS_…`` tags of each band.
        resampling: Of the overviews, for tags about it.

    Returns:
        The text of a VRT, to be `released`, and the number of tags under `MARK`.
    """
    tags = scene_tags(dataset, resampling)  # first: a GeoPackage loses them once it is described
    root = located_vrt(dataset, {"VRTRasterBand"})
    add_tags(root, {domain: items for domain, items in tags.items() if not domain.startswith(_DOCUMENTS)})
    for number, band in enumerate(root.findall("VRTRasterBand"), start=1):
        keep_only(band, BAND_PARTS)
        band.attrib = {"dataType": band.attrib["dataType"]}
        default = {"": band_tags(dataset, number).get("", {}) | statistics[number - 1]}
        _fill_band(band, number, pixels, blocksize, band_tags(dataset, number) | default)
    if has_mask(dataset):
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        _add_source(mask, dataset.name, "mask,1")
    return _text(root, tags)


def new_vrt(
    dataset: Any, bands: NewBands, tags: Tags, pixels: str, blocksize: int, statistics: Sequence[Tags]
) -> tuple[str, int]:
    """Describe new bands on the grid of a raster.

    Args:
        dataset: Open dataset with size, CRS, transform, GCPs, RPCs.
        bands: The bands.
        tags: For the default domain.
        pixels: As `copy_vrt`.
        blocksize: As `copy_vrt`.
        statistics: As `copy_vrt`.

    Returns:
        As `copy_vrt`.
    """
    root = located_vrt(dataset, set())
    place = scene_tags(dataset)
    point = {key: value for key, value in place.get("", {}).items() if key == "AREA_OR_POINT"}
    add_tags(root, {"": point | tags, "RPC": place.get("RPC", {})})
    for number, description in enumerate(bands.descriptions, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType=_GDAL_NAMES[bands.dtype])
        if description:
            ET.SubElement(band, "Description").text = description
        if bands.nodata is not None:
            ET.SubElement(band, "NoDataValue").text = repr(float(bands.nodata))
        plain = "Gray" if number == 1 else "Undefined"
        ET.SubElement(band, "ColorInterp").text = "Palette" if bands.colors else plain
        if bands.colors:
            table = ET.SubElement(band, "ColorTable")
            for color in bands.colors:
                values = zip(("c1", "c2", "c3", "c4"), map(str, color), strict=True)
                ET.SubElement(table, "Entry", dict(values))
        _fill_band(band, number, pixels, blocksize, {"": statistics[number - 1]})
    return _text(root, {})


def check_representable(dataset: Any) -> None:
    """Refuse a raster that a GeoTIFF cannot represent.

    Raises:
        SceneError: The bands have different nodata values, or masks of their own.
    """
    if len({repr(value) for value in dataset.nodatavals}) > 1:
        raise SceneError(
            f"{dataset.name}: the bands have different nodata values {dataset.nodatavals}, "
            "a GeoTIFF holds one: set one with gdal_translate -a_nodata"
        )
    if any(not flags for flags in dataset.mask_flag_enums):
        raise SceneError(
            f"{dataset.name}: each band has a mask of its own, a GeoTIFF holds one for all: "
            "make one with gdal_translate -mask"
        )


def has_mask(dataset: Any) -> bool:
    """Return whether there is a mask: internal, or in a ``.msk`` file.

    Alpha is none.
    """
    flags = set(dataset.mask_flag_enums[0])
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def scene_tags(dataset: Any, resampling: str | None = None) -> dict[str, Tags]:
    """Read tags of a dataset by domain (the default one is ``''``), without those on the old file.

    Args:
        dataset: Open dataset.
        resampling: New value of tags about overviews; ``None``: they are left out.
    """
    tags = {ns: _tags(dataset, 0, ns) for ns in ["", *_domains(dataset)]}
    for key in _RESAMPLING & set(tags[""]):
        if resampling is None:
            del tags[""][key]
        else:
            tags[""][key] = resampling
    return {ns: items for ns, items in tags.items() if items}


def band_tags(dataset: Any, number: int) -> dict[str, Tags]:
    """Read tags of a band (1-based) by domain, without statistics and those on the old file."""
    domains = ["", *_domains(dataset, number)]
    tags = {ns: _tags(dataset, number, ns) for ns in domains}
    tags[""] = {key: value for key, value in tags[""].items() if not key.startswith("STATISTICS_")}
    return {ns: items for ns, items in tags.items() if items}


def descriptions(dataset: Any) -> tuple[str | None, ...]:
    """Read the descriptions of the bands, `carried`."""
    try:
        texts: tuple[str | None, ...] = tuple(dataset.descriptions)
    except UnicodeDecodeError:
        bands = located_vrt(dataset, {"VRTRasterBand"}).findall("VRTRasterBand")
        texts = tuple(band.findtext("Description") or None for band in bands)
    return texts


def band_names(dataset: Any) -> tuple[str | None, ...]:
    """Read the descriptions of the bands, as readable text."""
    return tuple(name and readable(name) for name in descriptions(dataset))


def units(dataset: Any) -> tuple[str, ...]:
    """Read the units of the bands, `carried`."""
    try:
        return tuple(unit or "" for unit in dataset.units)
    except UnicodeDecodeError:
        bands = located_vrt(dataset, {"VRTRasterBand"}).findall("VRTRasterBand")
        return tuple(band.findtext("UnitType") or "" for band in bands)


def _tags(dataset: Any, number: int, domain: str) -> Tags:
    """Read tags of a band, or with 0 of the dataset, `carried`."""
    with _undecoded_items() as items:
        try:
            tags: Tags = dict(dataset.tags(number, ns=domain or None))
        except UnicodeDecodeError as error:  # of a document
            return {domain: carried(bytes(error.object)).removeprefix(f"{domain}=")}
    for item in items:  # as GDAL cuts them
        key, value = re.split("[=:]", carried(item) + "=", maxsplit=1)
        tags[key] = value[:-1]
    return tags


@contextmanager
def _undecoded_items() -> Iterator[list[bytes]]:
    """Collect the tags that rasterio leaves out in this thread meanwhile: they are only in its log."""
    items: list[bytes] = []
    reader, log = threading.get_ident(), logging.getLogger("rasterio._base")

    def takes(record: logging.LogRecord) -> bool:
        item = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if record.thread != reader or not isinstance(item, bytes):
            return True
        items.append(item)
        return False

    with _log_lock:
        level, disabled = log.level, log.manager.disable
        log.addFilter(takes)
        log.setLevel(logging.WARNING)
        log.manager.disable = logging.NOTSET
        try:
            yield items
        finally:
            log.removeFilter(takes)
            log.setLevel(level)
            log.manager.disable = disabled


_log_lock = threading.RLock()


def located_vrt(dataset: Any, more: set[str]) -> ET.Element:
    """Return GDAL's VRT of a dataset, with its georeferencing and the named elements alone."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        root = ET.fromstring(carried(memory.read()))
    root.attrib.pop("subClass", None)
    keep_only(root, {"SRS", "GeoTransform", "GCPList"} | more)
    _set_gcps(root, dataset)
    return root


def _text(root: ET.Element, tags: Mapping[str, Tags]) -> tuple[str, int]:
    """Return the VRT, with documents added as text: ElementTree would change their namespace prefixes."""
    under_mark = root.findall(f"VRTRasterBand/Metadata[@domain='{MARK}']/MDI")
    documents = {domain: document(domain, items) for domain, items in tags.items()}
    appended = "".join(
        f"<Metadata domain={quoteattr(domain)} format={quoteattr(domain.split(':')[0])}>{text}</Metadata>"
        for domain, text in documents.items()
        if text is not None
    )
    end = "</VRTDataset>"
    return ET.tostring(root, encoding="unicode").replace(end, appended + end), len(under_mark)


def _fill_band(band: ET.Element, number: int, pixels: str, blocksize: int, tags: Mapping[str, Tags]) -> None:
    """Add number, blocks, tags (those of the default domain marked) and source."""
    band.attrib |= {"band": str(number), "blockXSize": str(blocksize), "blockYSize": str(blocksize)}
    add_tags(band, {domain or MARK: items for domain, items in tags.items()})
    _add_source(band, pixels, str(number))


def keep_only(element: ET.Element, names: set[str]) -> None:
    """Remove the children of other names."""
    for child in [child for child in element if child.tag not in names]:
        element.remove(child)


def _set_gcps(root: ET.Element, dataset: Any) -> None:
    """Write the points in full.

    GDAL writes pixels with 4 and coordinates with 13 digits.
    """
    points = root.find("GCPList")
    if points is None:
        return
    keep_only(points, set())
    for gcp in dataset.gcps[0]:
        place = {"Pixel": gcp.col, "Line": gcp.row, "X": gcp.x, "Y": gcp.y, "Z": gcp.z or 0.0}
        numbers = {name: repr(float(value)) for name, value in place.items()}
        ET.SubElement(points, "GCP", {"Id": gcp.id or "", "Info": gcp.info or ""} | numbers)


def add_tags(element: ET.Element, tags: Mapping[str, Tags]) -> None:
    """Add tags by domain, as a VRT holds them."""
    for domain, items in tags.items():
        if not items:
            continue
        metadata = ET.SubElement(element, "Metadata", {"domain": domain} if domain else {})
        for key, value in items.items():
            ET.SubElement(metadata, "MDI", key=key).text = value


def document(domain: str, items: Tags) -> str | None:
    """Return the XML or JSON document of a domain such as ``xml:XMP``, or ``None`` if it holds none.

    rasterio takes documents for tags: XML as the domain's name and the text, JSON cut at its first colon.
    """
    try:
        if domain.startswith("xml:"):
            ET.fromstring(items[domain])
            return items[domain]
        if domain.startswith("json:"):
            text = ":".join(*items.items())
            json.loads(text)
            return escape(text)
    except (KeyError, TypeError, ValueError, ET.ParseError):
        return None
    return None


def _add_source(band: ET.Element, path: str, number: str) -> None:
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = path
    ET.SubElement(source, "SourceBand").text = number


def _domains(dataset: Any, number: int = 0) -> list[str]:
    """List the domains of tags of a band, or with 0 of the dataset, without those on how it is stored.

    Raises:
        SceneError: The name of one is no UTF-8, so that rasterio does not read it.
    """
    try:
        names = dataset.tag_namespaces(number)
    except UnicodeDecodeError as error:
        raise SceneError(
            f"{dataset.name} has a domain of tags whose name is no UTF-8 ({decoded(bytes(error.object))}): "
            "rename it, or take it away"
        ) from error
    return [name for name in names if name not in _STRUCTURE]


def write_vrt(text: str, path: Path) -> None:
    """Write the text of a VRT with the bytes that are `carried` in it, and leave an equal file as it is."""
    raw = released(text)
    if not path.exists() or path.read_bytes() != raw:
        with write_whole(path) as partial:
            partial.write_bytes(raw)
