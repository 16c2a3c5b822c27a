"""What a vendor's XML and file names say of a product: when it was taken, its bands, its calibration.

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
time is Beijing's, or else whichever is by day where the scene lies; if neither tells, it stands in the report
without a zone. Without XML the moment is that of the name.
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
from decr_scene.pipeline.inputs.text import xml_root
from decr_scene.pipeline.products.daylight import BEIJING, longitude_in_name, longitude_of_raster, zoned
from decr_scene.pipeline.products.product import IN_NAME, Product, find_product
from decr_scene.pipeline.raster.bands import ROLES, name_bands
from decr_scene.pipeline.raster.scene import RasterioScene

_TIMES = (
    *("centertime", "scenecentertime", "imagingtime", "acquisitiontime", "acquiretime", "scenetime"),
    *("starttime", "receivetime", "acquisitiondatetime", "productstarttime"),
)
_YEARS = range(1960, 2200)
"""Years of pictures from orbit: others are no times, but what fills a form."""

_DAYS_AND_TIMES = (("dateacquired", "scenecentertime"), ("imagingdate", "imagingtime"))
_IN_UTC = (re.compile(r"^(\d{8}_\d{6})_\w+_3[AB]_", re.ASCII), re.compile(r"^T\d\d[A-Z]{3}_(\d{8}T\d{6})_B"))
"""Names of Planet and of Sentinel-2, which tell the time in UTC."""

_BANDS = ("bands", "bandnames", "bandsid", "bandid")
_GAINS = {"gain": "gain", "abscalibgain": "gain", "bias": "bias", "offset": "bias"}
_LAYOUTS = (
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%d_%H%M%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y/%m/%d %H:%M:%S",
    "%Y %m %d %H:%M:%S",
)


def acquisition_time(path: str | Path) -> datetime | None:
    """When a product was taken, in UTC, from the XML beside it or from its name; ``None``: nothing says it.

    Args:
        path: A raster or the folder of a product.
    """
    try:
        product = find_product(path)
    except PairError:
        return None
    moment = _told_moment(product)
    return moment if moment is not None and moment.tzinfo is not None else None


def _told_moment(product: Product) -> datetime | None:
    """When it was taken, in UTC, or without a zone where nobody can tell it."""
    named = _time_in_name(product.scene.name)
    values = {} if product.metadata is None else _elements(product.metadata)
    for day, time in _DAYS_AND_TIMES:
        for text in map("T".join, zip(values.get(day, ()), values.get(time, ()), strict=False)):
            if (moment := _moment(text)) is not None:
                return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    for name in _TIMES:
        for text in values.get(name, ()):
            if (moment := _moment(text)) is not None:
                return _in_utc(moment, named, product, values)
    return named if named is None or named.tzinfo else _in_utc(named, None, product, values)


def facts_of(product: Product, src: Path) -> dict[str, Any]:
    """What the report says of a product: plain values."""
    facts: dict[str, Any] = {}
    if src.is_dir():
        facts["folder"] = str(src)
    when = _told_moment(product)
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


def trouble_of(product: Product) -> tuple[str, ...]:
    """What keeps the metadata that are there from being read, for a warning."""
    if product.metadata is not None:
        try:
            xml_root(product.metadata.read_bytes())
        except (OSError, ET.ParseError) as error:
            told = f"{product.metadata} is beside the scene, but cannot be read as XML ({error})"
            return (f"{told}: nothing that it says of bands, time or gain is known; get it again",)
        return ()
    beside = sorted(path.name for path in product.scene.parent.glob("*_meta.xml"))
    if IN_NAME.match(product.scene.name) and len(beside) > 1:
        told = f"{', '.join(beside[:4])} beside the scene may tell of it"
        return (f"{told}, none has its name: none is read; rename the right one",)
    return ()


def bands_of(product: Product) -> str | None:
    """The bands that the metadata tells, as ``--bands``; ``None`` where the raster says it or nobody does."""
    if product.metadata is None or product.stack or not product.scene.is_file():
        return None
    scene = RasterioScene.open(product.scene)
    if any(role in scene.bands for role in ROLES):
        return None
    values = _elements(product.metadata)
    for name in _BANDS:
        words = [word for text in values.get(name, ()) for word in re.split(r"[\s,;|]+", text) if word]
        names = _names(words, scene.count)
        if names is not None:
            return ",".join(names)
    return None


def _names(words: list[str], count: int) -> tuple[str, ...] | None:
    if len(words) != count:
        return None
    named = name_bands(words)
    if sum(name in ROLES for name in named) >= min(3, count):
        return named
    numbers = [re.sub(r"^(band|ms|b)?0*", "", word.lower()) for word in words]
    if sorted(numbers) == ["1", "2", "3", "4"]:
        return tuple(ROLES[int(number) - 1] for number in numbers)
    return None


def _elements(metadata: Path) -> dict[str, list[str]]:
    """Texts of all elements by name, without prefix, in lower case; nothing of a file that is no XML."""
    try:
        root = xml_root(metadata.read_bytes())
    except (OSError, ET.ParseError):
        return {}
    found: dict[str, list[str]] = {}
    for element in root.iter():
        text = (element.text or "").strip()
        if text and isinstance(element.tag, str):
            found.setdefault(element.tag.rpartition("}")[2].lower().replace("_", ""), []).append(text)
    return found


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in re.split(r"[\s,;|]+", text) if word]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _moment(text: str) -> datetime | None:
    text = text.strip()
    found = None
    with suppress(ValueError):
        found = datetime.fromisoformat(text) if len(text) > 10 else None
    for layout in _LAYOUTS:
        if found is None and len(text) > 10:
            with suppress(ValueError):
                found = datetime.strptime(text, layout)
    return found if found is not None and found.year in _YEARS else None


def _in_utc(
    moment: datetime, named: datetime | None, product: Product, values: dict[str, list[str]]
) -> datetime:
    """In UTC; as it is where its zone is unknown."""
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    read = [moment.replace(tzinfo=zone).astimezone(UTC) for zone in (BEIJING, UTC)]
    if named is not None and named.tzinfo is not None:
        near = [each for each in read if abs(each - named) < timedelta(hours=1)]
        if near:
            return near[0]
    return zoned(moment, _longitude(product, values)) or moment


def _longitude(product: Product, values: dict[str, list[str]]) -> float | None:
    """Where it lies, degrees east: by its raster, its name, or the corners in its XML."""
    told = longitude_of_raster(product.scene)
    told = longitude_in_name(product.scene.name) if told is None else told
    if told is not None:
        return told
    texts = [text for name, found in values.items() if name.endswith("longitude") for text in found]
    numbers = [number for text in texts for number in _numbers(text) if abs(number) <= 180]
    return sum(numbers) / len(numbers) if numbers else None


def _time_in_name(name: str) -> datetime | None:
    """As a file's name tells it: Jilin-1's is Beijing's, that of others of the kind has no zone."""
    for pattern in _IN_UTC:
        if found := pattern.match(name):
            moment = _moment(found[1])
            return None if moment is None else moment.replace(tzinfo=UTC)
    found = IN_NAME.match(name)
    moment = _moment(found[1]) if found else None
    if moment is None or not name.upper().startswith("JL1"):
        return moment
    return moment.replace(tzinfo=BEIJING).astimezone(UTC)
