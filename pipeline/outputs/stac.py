"""Write a STAC Item for a result: place, acquisition time, processing and files."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import rasterio
from rasterio.transform import array_bounds
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.inputs.text import readable
from decr_scene.pipeline.outputs.polygons import check_wgs84, corners, footprint, read_classes, to_wgs84
from decr_scene.pipeline.outputs.side_file import FinishedRun, SideDocument
from decr_scene.pipeline.products.metadata import acquisition_time
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.vrt import scene_tags, units

SIDE = 1024
"""Greatest side of the raster that the footprint is traced from, px."""

PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"
TIME_SOURCE = "decr_scene:datetime_from"
"""Property with the tag that the time is from, or that there was none."""

BY_ITEM = "STAC Item"
"""What stands there where the time is that of the Item that was the input."""

_WHEN = re.compile(
    r"(acqui|imaging|sensing|scene_?cent|capture|exposure).*(date|time)|date_?(acqui|time)", re.I
)
_FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S", "%d/%m/%Y %H:%M:%S")
_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


class _Kind(NamedTuple):
    """What the asset of a file is: its title, media type and roles."""

    title: str
    media_type: str
    roles: list[str]


_KINDS = {
    "data": _Kind("Restored scene", _COG, ["data"]),
    "provenance": _Kind("Provenance: where each pixel is from", _COG, ["metadata", "data-mask"]),
    "uncertainty": _Kind("Uncertainty: standard deviation of each pixel, DN", _COG, ["metadata"]),
    "report": _Kind("Report of the run", "application/json", ["metadata"]),
    "style": _Kind("QGIS style of the scene", "application/xml", ["metadata"]),
    "provenance_style": _Kind("QGIS style of the provenance", "application/xml", ["metadata"]),
    "uncertainty_style": _Kind("QGIS style of the uncertainty", "application/xml", ["metadata"]),
    "quicklook": _Kind("Quicklook: before and after", "image/png", ["overview"]),
}


class StacItem(SideDocument):
    """The STAC Item of an output."""

    role = "stac"
    ending = ".stac.json"
    option = "stac"

    def check(self, scene: RasterioScene) -> None:
        """Refuse a scene of which no Item can be made, by making one of its corners.

        Raises:
            OptionError: pystac is missing.
            SceneError: The CRS cannot be related to longitudes and latitudes.
        """
        if importlib.util.find_spec("pystac") is None:
            raise OptionError(
                "STAC Items are written by pystac, which is not installed: pip install 'decr-scene[stac]', "
                "or leave out --stac"
            )
        check_wgs84(scene, "--stac")
        _text_of(_item(FinishedRun(scene, scene.bands, "", Path("x.tif"), {}, Path("x")), corners(scene)))

    def write(self, run: FinishedRun, path: Path) -> None:
        """Write the Item, with an asset for every file of the run that has a place in it."""
        item = _item(run, _outline(run.scene, run.paths["provenance"]))
        _add_assets(item, run)
        path.write_text(_text_of(item), encoding="utf-8")


def _item(run: FinishedRun, outline: BaseGeometry | None) -> Any:
    """Make the Item without its assets.

    Args:
        run: The run.
        outline: Of the valid pixels, in EPSG:4326; ``None``: the result is not georeferenced.
    """
    import pystac
    from pystac.extensions.projection import ProjectionExtension

    now = datetime.now(UTC).replace(microsecond=0)
    if run.acquired is None:
        when = acquired(run.scene, run.item_acquired)
    else:
        moment = datetime.fromisoformat(run.acquired)
        when = (moment, moment, "metadata of the product")
    item = pystac.Item(
        id=run.output.stem,
        geometry=None if outline is None else mapping(outline),
        bbox=None if outline is None else _bbox(outline),
        datetime=None,
        start_datetime=when[0] if when else now,
        end_datetime=when[1] if when else now,
        properties={
            "created": _text(now),
            TIME_SOURCE: when[2] if when else "time of processing: the scene does not say when it was taken",
            "processing:lineage": f"Clouds of {run.origin.name} removed with {Path(run.model).stem}",
            "processing:software": {"decr-scene": version("decr-scene")},
        },
        stac_extensions=[PROCESSING],
    )
    if when is None or when[0] == when[1]:
        item.datetime = when[0] if when else now
        item.properties = {
            k: v for k, v in item.properties.items() if k not in ("start_datetime", "end_datetime")
        }
    _describe_place(ProjectionExtension.ext(item, add_if_missing=True), run.scene)
    return item


def _bbox(outline: BaseGeometry) -> list[float]:
    """Return west, south, east, north of an outline; cut at 180 degrees, west is greater than east.

    As section 5.2 of RFC 7946 has it.
    """
    west, south, east, north = outline.bounds
    parts = [part.bounds for part in getattr(outline, "geoms", [outline])]
    if west > -180 or east < 180 or any(part[0] <= -180 and part[2] >= 180 for part in parts):
        return [west, south, east, north]
    eastern = [part[0] for part in parts if part[0] + part[2] > 0]
    western = [part[2] for part in parts if part[0] + part[2] <= 0]
    if min(eastern) <= max(western):
        return [west, south, east, north]
    return [min(eastern), south, max(western), north]


def _add_assets(item: Any, run: FinishedRun) -> None:
    """Add the output and the files beside it."""
    import pystac
    from pystac.extensions.raster import RasterExtension

    for role, path in {"data": run.output, **run.paths}.items():
        if role in _KINDS:
            item.add_asset(role, pystac.Asset(f"./{quote(path.name)}", **_KINDS[role]._asdict()))
    data = item.assets["data"]
    data.extra_fields["bands"] = [{"name": label(run.bands, i)} for i in range(len(run.bands))]
    RasterExtension.ext(data, add_if_missing=True).bands = _bands(run.output)


def _text_of(item: Any) -> str:
    """Convert to JSON.

    To pystac itself a file name is a URL, which it cuts at a # or ?.
    """
    return json.dumps(item.to_dict(include_self_link=False), indent=2) + "\n"


def acquired(scene: RasterioScene, by_item: str | None = None) -> tuple[datetime, datetime, str] | None:
    """Find the acquisition time by tags, or else by an Item: first and last moment (UTC), and the tag.

    A tag with a day alone gives that day; times without a zone are UTC. ``TIFFTAG_DATETIME``, when
    the file was made, counts where there is nothing better.

    Args:
        scene: The scene.
        by_item: As `FinishedRun` has it.
    """
    for name, text in _candidates(scene, by_item):
        first, slash, last = text.partition("/") if name == BY_ITEM else (text, "", "")
        moment, end = _parse(first), _parse(last)
        if moment is not None and (end is not None or not slash):
            day = bool(_DAY.fullmatch(text.strip()))
            return moment, end or (moment + timedelta(days=1, seconds=-1) if day else moment), name
    return None


def _candidates(scene: RasterioScene, by_item: str | None) -> Iterator[tuple[str, str]]:
    with scene.dataset() as dataset:
        by_domain = scene_tags(dataset)
    for domain, tags in by_domain.items():
        for key, text in tags.items():
            if key != "TIFFTAG_DATETIME" and _WHEN.search(key):
                yield f"{domain}:{key}" if domain else key, text
    if (moment := acquisition_time(scene.path)) is not None:
        yield "product", moment.isoformat()
    if by_item is not None:
        yield BY_ITEM, by_item
    if "TIFFTAG_DATETIME" in by_domain.get("", {}):
        yield "TIFFTAG_DATETIME", by_domain[""]["TIFFTAG_DATETIME"]


def _parse(text: str) -> datetime | None:
    moment = None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        for layout in _FORMATS:
            try:
                moment = datetime.strptime(text.strip(), layout)
            except ValueError:
                continue
            break
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _outline(scene: RasterioScene, provenance: Path) -> BaseGeometry | None:
    """Return the outline of the valid pixels in EPSG:4326, else of the raster; ``None``: it is not placed."""
    if not scene.is_placed:
        return None
    classes, transform, _ = read_classes(provenance, SIDE)
    outline = footprint(classes, transform)
    return corners(scene) if outline is None else to_wgs84(outline, scene.crs)


def _describe_place(projection: Any, scene: RasterioScene) -> None:
    code = None if scene.crs is None else scene.crs.to_authority()
    projection.apply(
        code=":".join(code) if code else None,
        wkt2=scene.crs.to_wkt(version="WKT2_2019") if scene.crs is not None and not code else None,
        shape=list(scene.shape),
        transform=list(scene.transform)[:6] if scene.is_placed else None,
        bbox=list(array_bounds(*scene.shape, scene.transform)) if scene.is_placed else None,
    )


def _bands(output: Path) -> list[Any]:
    from pystac.extensions.raster import RasterBand, Statistics

    bands = []
    with rasterio.open(output) as dataset:
        for number in dataset.indexes:
            band = RasterBand.create(
                data_type=dataset.dtypes[number - 1],
                nodata=_number(dataset.nodatavals[number - 1]),
                unit=readable(units(dataset)[number - 1]) or None,
                scale=_finite(dataset.scales[number - 1]),
                offset=_finite(dataset.offsets[number - 1]),
            )
            tags = dataset.tags(number)
            words = {"minimum": "MINIMUM", "maximum": "MAXIMUM", "mean": "MEAN", "stddev": "STDDEV"}
            words["valid_percent"] = "VALID_PERCENT"
            statistics = {
                k: float(tags[f"STATISTICS_{w}"]) for k, w in words.items() if f"STATISTICS_{w}" in tags
            }
            if statistics:
                band.statistics = Statistics.create(**statistics)
            bands.append(band)
    return bands


def _finite(value: float) -> float | None:
    """Leave out what is not finite, which JSON has no number for."""
    return value if math.isfinite(value) else None


def _number(nodata: float | None) -> Any:
    """Convert a nodata value for the raster extension: JSON has no NaN."""
    if nodata is None or math.isfinite(nodata):
        return nodata
    return "nan" if math.isnan(nodata) else "inf" if nodata > 0 else "-inf"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
