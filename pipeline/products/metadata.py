"""Read a product's acquisition time, bands and calibration from its XML and file names.

No specification of the XML was at hand, so it is searched by names that such files are known to use, whatever
the case, prefix or depth:

* the moment of acquisition: ``CenterTime``, ``SceneCenterTime``, ``ImagingTime``, ``AcquisitionTime``,
  ``AcquireTime``, ``SceneTime``, ``StartTime``, ``ReceiveTime``, ``acquisitionDateTime`` (Planet),
  ``PRODUCT_START_TIME`` (Sentinel-2), in this order; or a day and a time of it in UTC, ``DATE_ACQUIRED`` and
  ``SCENE_CENTER_TIME`` (Landsat), ``IMAGING_DATE`` and ``IMAGING_TIME`` (DIMAP);
* the bands in their order: ``Bands``, ``BandNames``, ``BandsID``, ``BandID``, as words (blue, green, red,
  nir), or as numbers: of four, 1 to 4 are blue, green, red and nir, as on Jilin-1 cameras;
* ``Gain`` and ``Bias`` (also ``AbsCalibGain``, ``Offset``): they stand in the report and are never applied.

A moment without time zone is UTC or Beijing time, whichever agrees with the name of a Jilin-1 file, whose
time is Beijing's, or else whichever is by day where the scene lies; if neither decides, it stands in the
report without a zone. Without XML the moment is that of the name.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from decr_scene.pipeline.errors import PairError
from decr_scene.pipeline.inputs.bands import ROLES, name_bands
from decr_scene.pipeline.inputs.text import xml_root
from decr_scene.pipeline.products.daylight import (
    BEIJING,
    longitude_in_name,
    longitude_of_raster,
    utc_by_daylight,
)
from decr_scene.pipeline.products.document import document_root
from decr_scene.pipeline.products.layouts import listed
from decr_scene.pipeline.products.product import IN_NAME, Product, find_product
from decr_scene.pipeline.raster.scene import RasterioScene

_TIME_ELEMENTS = (
    *("centertime", "scenecentertime", "imagingtime", "acquisitiontime", "acquiretime", "scenetime"),
    *("starttime", "receivetime", "acquisitiondatetime", "productstarttime"),
)
_YEARS = range(1960, 2200)
"""Years of images from orbit: a time of any other year is a placeholder."""

_DAYS_AND_TIMES = (("dateacquired", "scenecentertime"), ("imagingdate", "imagingtime"))
_IN_UTC = (re.compile(r"^(\d{8}_\d{6})_\w+_3[AB]_", re.ASCII), re.compile(r"^T\d\d[A-Z]{3}_(\d{8}T\d{6})_B"))
"""Names of Planet and of Sentinel-2, which have the time in UTC."""

_BAND_ELEMENTS = ("bands", "bandnames", "bandsid", "bandid")
_GAINS = {"gain": "gain", "abscalibgain": "gain", "bias": "bias", "offset": "bias"}
_FORMATS = (
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%d_%H%M%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y/%m/%d %H:%M:%S",
    "%Y %m %d %H:%M:%S",
)


def acquisition_time(path: str | Path, name: str = "") -> datetime | None:
    """Return the acquisition time in UTC, from the XML beside it or from its name, or ``None``.

    Args:
        path: A raster or the folder of a product.
        name: As `facts_of`.
    """
    try:
        product = find_product(path)
    except PairError:
        return None
    moment = _acquisition_moment(product, name)
    return moment if moment is not None and moment.tzinfo is not None else None


def _acquisition_moment(product: Product, name: str = "") -> datetime | None:
    """Return the acquisition time, in UTC, or without a zone where that is unknown; as `facts_of` is told."""
    in_name = _time_in_name(name or product.scene.name)
    values = {} if product.metadata is None else _elements(product.metadata)
    for day, time in _DAYS_AND_TIMES:
        for text in map("T".join, zip(values.get(day, ()), values.get(time, ()), strict=False)):
            if (moment := _parse_moment(text)) is not None:
                return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    for element in _TIME_ELEMENTS:
        for text in values.get(element, ()):
            if (moment := _parse_moment(text)) is not None:
                return _in_utc(moment, in_name, product, values, name)
    return in_name if in_name is None or in_name.tzinfo else _in_utc(in_name, None, product, values, name)


def facts_of(product: Product, src: Path, name: str = "") -> dict[str, Any]:
    """Return the report's entries on a product: plain values.

    Args:
        product: The product.
        src: What it was found by.
        name: That its raster has where it comes from, if this is a copy of another name.
    """
    facts: dict[str, Any] = {}
    if src.is_dir():
        facts["folder"] = str(src)
    when = _acquisition_moment(product, name)
    if when is not None:
        facts["acquired" if when.tzinfo else "acquired, zone unknown"] = when.isoformat()
    if product.stack:
        facts["bands"] = {role: str(path) for role, path in product.stack}
    if product.metadata is not None:
        facts["metadata"] = str(product.metadata)
        values = _elements(product.metadata)
        for name, fact in _GAINS.items():
            numbers = [number for text in values.get(name, ()) for number in _numbers(text)]
            if numbers and fact not in facts:
                facts[fact] = numbers
    return facts


def metadata_warnings(product: Product) -> tuple[str, ...]:
    """Return a warning where there are metadata that cannot be read or assigned."""
    if product.metadata is not None:
        try:
            if document_root(product.metadata) is None:
                xml_root(product.metadata.read_bytes())  # once more, for the reason
        except (OSError, ET.ParseError) as error:
            problem = f"{product.metadata} is beside the scene, but cannot be read as XML ({error})"
            return (f"{problem}: nothing that it says of bands, time or gain is known; get it again",)
        return ()
    candidates = sorted(product.scene.parent.glob("*_meta.xml"))
    if IN_NAME.match(product.scene.name) and len(candidates) > 1:
        problem = f"{listed(candidates)} beside the scene may tell of it"
        return (f"{problem}, none has its name: none is read; rename the right one",)
    return ()


def bands_of(product: Product) -> str | None:
    """Return the bands by the metadata, as ``--bands`` takes them.

    ``None``: the raster names them itself, or the metadata does not.
    """
    if product.metadata is None or product.stack or not product.scene.is_file():
        return None
    scene = RasterioScene.open(product.scene)
    if any(role in scene.bands for role in ROLES):
        return None
    values = _elements(product.metadata)
    for name in _BAND_ELEMENTS:
        words = [word for text in values.get(name, ()) for word in re.split(r"[\s,;|]+", text) if word]
        names = _band_names(words, scene.count)
        if names is not None:
            return ",".join(names)
    return None


def _band_names(words: list[str], count: int) -> tuple[str, ...] | None:
    if len(words) != count:
        return None
    names = name_bands(words)
    if sum(name in ROLES for name in names) >= min(3, count):
        return names
    numbers = [re.sub(r"^(band|ms|b)?0*", "", word.lower()) for word in words]
    if sorted(numbers) == ["1", "2", "3", "4"]:
        return tuple(ROLES[int(number) - 1] for number in numbers)
    return None


def _elements(metadata: Path) -> dict[str, list[str]]:
    """Return texts of all elements by name, without prefix, in lower case, none if the file is no XML."""
    root = document_root(metadata)
    texts: dict[str, list[str]] = {}
    for element in () if root is None else root.iter():
        text = (element.text or "").strip()
        if text and isinstance(element.tag, str):
            texts.setdefault(element.tag.rpartition("}")[2].lower().replace("_", ""), []).append(text)
    return texts


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in re.split(r"[\s,;|]+", text) if word]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _parse_moment(text: str) -> datetime | None:
    text = text.strip()
    moment = None
    with suppress(ValueError):
        moment = datetime.fromisoformat(text) if len(text) > 10 else None
    for form in _FORMATS:
        if moment is None and len(text) > 10:
            with suppress(ValueError):
                moment = datetime.strptime(text, form)
    return moment if moment is not None and moment.year in _YEARS else None


def _in_utc(
    moment: datetime, in_name: datetime | None, product: Product, values: dict[str, list[str]], name: str
) -> datetime:
    """Convert a moment to UTC, or return it as it is where its zone is unknown."""
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    candidates = [moment.replace(tzinfo=zone).astimezone(UTC) for zone in (BEIJING, UTC)]
    if in_name is not None and in_name.tzinfo is not None:
        near = [each for each in candidates if abs(each - in_name) < timedelta(hours=1)]
        if near:
            return near[0]
    return utc_by_daylight(moment, _longitude(product, values, name)) or moment


def _longitude(product: Product, values: dict[str, list[str]], name: str) -> float | None:
    """Return the longitude, degrees east: by its raster, its name, or the corners in its XML."""
    longitude = longitude_of_raster(product.scene)
    longitude = longitude_in_name(name or product.scene.name) if longitude is None else longitude
    if longitude is not None:
        return longitude
    texts = [text for name, listed in values.items() if name.endswith("longitude") for text in listed]
    numbers = [number for text in texts for number in _numbers(text) if abs(number) <= 180]
    return sum(numbers) / len(numbers) if numbers else None


def _time_in_name(name: str) -> datetime | None:
    """Parse the time in a file's name: Jilin-1's is Beijing time, that of similar names has no zone."""
    for pattern in _IN_UTC:
        if match := pattern.match(name):
            moment = _parse_moment(match[1])
            return None if moment is None else moment.replace(tzinfo=UTC)
    match = IN_NAME.match(name)
    moment = _parse_moment(match[1]) if match else None
    if moment is None or not name.upper().startswith("JL1"):
        return moment
    return moment.replace(tzinfo=BEIJING).astimezone(UTC)
