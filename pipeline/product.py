"""A product as its vendor delivers it: a folder, or a raster with its metadata beside it.

Jilin-1 products are folders such as ``JL1KF01C_PMSL3_20250112084005_200339713_101_0039_001_L1`` that hold
``…_MSS.tif`` and ``…_PAN.tif``, for each a ``…_meta.xml`` and a ``…_rpc.txt``, and previews. GDAL reads the
RPCs; this module finds the rasters and reads what the XML says. No specification of the XML was at hand, so
it is searched by names that such files are known to use, whatever the case, prefix or depth:

* the moment of acquisition: ``CenterTime``, ``SceneCenterTime``, ``ImagingTime``, ``AcquisitionTime``,
  ``AcquireTime``, ``SceneTime``, ``StartTime``, ``ReceiveTime``, in this order;
* the bands in their order: ``Bands``, ``BandNames``, ``BandsID``, ``BandID``, as words (blue, green, red,
  nir), or as numbers: of four, 1 to 4 are blue, green, red and nir, as on Jilin-1 cameras;
* ``Gain`` and ``Bias`` (also ``AbsCalibGain``, ``Offset``): told in the report, never applied to the pixels.

A moment without time zone is Beijing time if that agrees with the file's name, whose time is Beijing's, else
UTC. Without XML the moment is that of the name. Nothing of this is needed: a folder with one raster will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError

from decr_scene.pipeline.bands import ROLES, name_bands
from decr_scene.pipeline.errors import PairError
from decr_scene.pipeline.pansharpen import vrt_path, write_pansharpened
from decr_scene.pipeline.scene import RasterioScene, fingerprint
from decr_scene.pipeline.target import check_target
from decr_scene.pipeline.writer import journal_path

BEIJING = timezone(timedelta(hours=8))

_TIMES = (
    *("centertime", "scenecentertime", "imagingtime", "acquisitiontime", "acquiretime", "scenetime"),
    *("starttime", "receivetime"),
)
_BANDS = ("bands", "bandnames", "bandsid", "bandid")
_GAINS = {"gain": "gain", "abscalibgain": "gain", "bias": "bias", "offset": "bias"}
_LAYOUTS = ("%Y%m%d%H%M%S", "%Y%m%dT%H%M%S", "%Y-%m-%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S", "%Y %m %d %H:%M:%S")
_IN_NAME = re.compile(r"^JL1[A-Z0-9]*_[^_]+_(\d{14})_", re.IGNORECASE)
_NO_SCENES = re.compile(r"(cloud|mask|thumb|browse|preview)", re.IGNORECASE)
_KINDS = (("mss", "MSS"), ("mss", "MUX"), ("pan", "PAN"), ("psh", "PSH"))


@dataclass(frozen=True)
class Product:
    """The files of a product.

    Args:
        scene: The raster to process: multispectral, or sharpened already.
        pan: Its panchromatic companion, if there is one.
        metadata: The XML that goes with ``scene``, if there is one.
    """

    scene: Path
    pan: Path | None = None
    metadata: Path | None = None


@dataclass(frozen=True)
class Delivery:
    """What is read in place of what the user named.

    Args:
        path: The raster to open.
        origin: The file that the pixels are from, the multispectral one of a pair.
        bands: What its bands are, where the user or the metadata says it.
        facts: For the report: plain values.
    """

    path: Path
    origin: Path
    bands: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def delivered(
    src: str | Path, out: str | Path, pan: str | None = None, bands: str | None = None
) -> Iterator[Delivery]:
    """Find what there is to read: a raster as it is, the one of a folder, or a pair, sharpened on the fly.

    Args:
        src: A raster, or the folder of a product.
        out: The output; the description of a sharpened pair lies hidden beside it until it is done, or for as
            long as the run can be continued.
        pan: The panchromatic raster; ``none``: not even the one in the folder.
        bands: As ``--bands``; it overrules the metadata.

    Raises:
        PairError: The folder has no raster or several, or the pair does not go together.
        OutputError: The output cannot be written there.
    """
    product = find_product(src)
    sharp = None if pan == "none" else Path(pan) if pan is not None else product.pan
    bands = bands or _bands_of(product)
    facts = _facts(product, Path(src))
    if sharp is None:
        yield Delivery(product.scene, product.scene, bands, facts)
        return
    out = Path(out)
    for source in (product.scene, sharp):
        check_target(source, out, overwrite=True)
    vrt = vrt_path(out)
    try:
        when = acquisition_time(product.scene)
        weights = write_pansharpened(product.scene, sharp, vrt, bands, when)
        facts |= {"pan": fingerprint(sharp), "weights of the bands in pan": list(weights)}
        yield Delivery(vrt, product.scene, bands, facts)
    finally:
        if not journal_path(out).exists():
            vrt.unlink(missing_ok=True)


def find_product(path: str | Path) -> Product:
    """Find the rasters and the metadata of a product.

    Args:
        path: Its folder; or a raster, which is then the scene whatever lies beside it.

    Raises:
        PairError: The folder has no raster, or several of one kind.
    """
    path = Path(path)
    if not path.is_dir():
        return Product(path, None, _metadata_of(path))
    found = _rasters(path)
    if not any(found.values()):
        raise PairError(f"{path} has no .tif: expected the folder of one product, or name the raster itself")
    for kind in ("mss", "psh"):
        if found[kind]:
            scene = _only(path, found[kind])
            pan = _only(path, found["pan"]) if found["pan"] and kind == "mss" else None
            return Product(scene, pan, _metadata_of(scene))
    raise PairError(f"{path} has only a panchromatic raster ({found['pan'][0].name}): its MSS is missing")


def acquisition_time(path: str | Path) -> datetime | None:
    """When a product was taken, in UTC, from the XML beside it or from its name; ``None``: nothing says it.

    Args:
        path: A raster or the folder of a product.
    """
    try:
        product = find_product(path)
    except PairError:
        return None
    named = _time_in_name(product.scene.name)
    if product.metadata is not None:
        values = _elements(product.metadata)
        for name in _TIMES:
            for text in values.get(name, ()):
                moment = _moment(text)
                if moment is not None:
                    return _in_utc(moment, named)
    return named


# -- files ---------------------------------------------------------------------------------------------------


def _rasters(folder: Path) -> dict[str, list[Path]]:
    """The GeoTIFFs in a folder, or else in the folders in it, by kind."""
    found: dict[str, list[Path]] = {kind: [] for kind, _ in _KINDS}
    for pattern in ("*", "*/*"):
        for file in sorted(folder.glob(pattern)):
            if file.suffix.lower() in (".tif", ".tiff") and not file.name.startswith("."):
                kind = _kind(file)
                if kind is not None:
                    found[kind].append(file)
        if any(found.values()):
            break
    return found


def _kind(file: Path) -> str | None:
    """By its name; by its bands where the name does not say."""
    words = re.split(r"[^A-Z0-9]+", file.stem.upper())
    if _NO_SCENES.search(file.stem):
        return None
    for kind, word in _KINDS:
        if word in words:
            return kind
    try:
        with rasterio.open(file) as dataset:
            return "pan" if dataset.count == 1 else "mss"
    except RasterioError:
        return "mss"  # opening it will say what is wrong with it


def _only(folder: Path, files: list[Path]) -> Path:
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise PairError(
            f"{folder} has {len(files)} rasters that may be the scene ({names}): name one of them"
        )
    return files[0]


def _metadata_of(raster: Path) -> Path | None:
    """``x_meta.xml`` or ``x.xml`` for ``x.tif``; else the only ``…_meta.xml`` in its folder."""
    for name in (f"{raster.stem}_meta.xml", f"{raster.stem}.xml"):
        if raster.with_name(name).is_file():
            return raster.with_name(name)
    found = sorted(raster.parent.glob("*_meta.xml")) if _IN_NAME.match(raster.name) else []
    return found[0] if len(found) == 1 else None


# -- metadata ------------------------------------------------------------------------------------------------


def _facts(product: Product, src: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if src.is_dir():
        facts["folder"] = str(src)
    when = acquisition_time(product.scene)
    if when is not None:
        facts["acquired"] = when.isoformat()
    if product.metadata is not None:
        facts["metadata"] = str(product.metadata)
        values = _elements(product.metadata)
        for name, fact in _GAINS.items():
            numbers = [number for text in values.get(name, ()) for number in _numbers(text)]
            if numbers and fact not in facts:
                facts[fact] = numbers
    return facts


def _bands_of(product: Product) -> str | None:
    """The bands that the metadata tells, as ``--bands``; ``None`` where the raster says it or nobody does."""
    if product.metadata is None or not product.scene.is_file():
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
        root = ET.parse(metadata).getroot()
    except (OSError, ET.ParseError, ValueError, LookupError):
        return {}
    found: dict[str, list[str]] = {}
    for element in root.iter():
        text = (element.text or "").strip()
        if text and isinstance(element.tag, str):
            found.setdefault(element.tag.rpartition("}")[2].lower().replace("_", ""), []).append(text)
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in re.split(r"[\s,;|]+", text) if word]
    except ValueError:
        return []


def _moment(text: str) -> datetime | None:
    text = text.strip()
    try:
        return datetime.fromisoformat(text) if len(text) > 10 else None
    except ValueError:
        pass
    for layout in _LAYOUTS:
        try:
            return datetime.strptime(text, layout)
        except ValueError:
            continue
    return None


def _in_utc(moment: datetime, named: datetime | None) -> datetime:
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    beijing = moment.replace(tzinfo=BEIJING).astimezone(UTC)
    if named is not None and abs(beijing - named) < timedelta(hours=1):
        return beijing
    return moment.replace(tzinfo=UTC)


def _time_in_name(name: str) -> datetime | None:
    found = _IN_NAME.match(name)
    moment = _moment(found.group(1)) if found else None
    return moment.replace(tzinfo=BEIJING).astimezone(UTC) if moment is not None else None
