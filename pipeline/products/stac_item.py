"""Choose the asset of a STAC Item that is the scene, and read its bands."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from decr_scene.pipeline.errors import PairError, SceneReadError
from decr_scene.pipeline.inputs.names import local_path, on_disk
from decr_scene.pipeline.inputs.remote import path_of_address, read_address
from decr_scene.pipeline.inputs.text import json_text

LARGEST = 16 << 20
"""Greatest size of an Item, bytes."""

_RASTERS = ("image/tiff", "image/jp2", "image/png", "application/x-geotiff")
_NO_SCENES = frozenset(
    {"overview", "thumbnail", "metadata", "cloud", "cloud-shadow", "snow-ice", "water-mask"}
)
_IN_ADDRESSES = "%:/?#[]@!$&'()*+,;=~"
_NAMES = {"nir08": "nir", "nir": "nir", "red": "red", "green": "green", "blue": "blue"}


@dataclass(frozen=True)
class Asset:
    """The raster of an Item.

    Args:
        href: Its path or address.
        bands: Its bands as ``--bands``, if the Item names all of them.
        facts: For the report; ``item acquired`` is the Item's time, or a first and a last one.
    """

    href: str
    bands: str | None
    facts: dict[str, Any]


def find_asset(src: str | os.PathLike[str], name: str | None) -> Asset | None:
    """Find the raster of an Item, or ``None`` if it is no Item.

    Args:
        src: A path or a web address that ends in ``.json`` or ``.geojson``.
        name: Of the asset; ``None``: the one of role ``data``, or the only raster.

    Raises:
        PairError: There is no such asset, or several may be the scene.
        SceneReadError: The Item cannot be read.
    """
    text = os.fspath(src)
    if not path_of_address(text).lower().endswith((".json", ".geojson")):
        return None
    item = _read(text)
    if item is None:
        return None
    assets = {
        key: asset for key, asset in item["assets"].items() if isinstance(asset, dict) and "href" in asset
    }
    key = _choose_asset(text, assets, name)
    href = str(assets[key]["href"])
    if "://" not in href and not os.path.isabs(href) and not href.startswith("/vsi"):
        try:
            href = urljoin(text, href) if "://" in text else str(Path(text).absolute().parent / href)
        except ValueError as error:
            raise PairError(
                f"{text} has its asset {key} at {href}, which is no address ({error}): get the raster by "
                "other means"
            ) from error
    facts = {"item": item.get("id"), "asset": key}
    if times := _acquired(item.get("properties")):
        facts["item acquired"] = "/".join(times)
    return Asset(_encoded(on_disk(local_path(href))), _bands(assets[key]), facts)


def _acquired(properties: Any) -> list[str]:
    """Return the time of an Item, or its first and its last one, as they stand there."""
    if not isinstance(properties, dict):
        return []
    if isinstance(moment := properties.get("datetime"), str):
        return [moment]
    times = [properties.get(name) for name in ("start_datetime", "end_datetime")]
    return [time for time in times if isinstance(time, str)] if all(times) else []


def _encoded(href: str) -> str:
    """Encode what no address has, such as a blank, behind its host; what is encoded stays as it is."""
    if not href.lower().startswith(("http://", "https://")):
        return href
    place = re.split("[/?#]", href.partition("://")[2])[0]
    before, place, after = href.partition(f"://{place}")
    return before + place + quote(after, safe=_IN_ADDRESSES)


def _read(text: str) -> dict[str, Any] | None:
    if text.lower().startswith(("http://", "https://")):
        raw = read_address(text)
    else:
        path = Path(text)
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise SceneReadError(f"{text} cannot be read ({error.strerror})") from error
    try:
        item = json.loads(json_text(raw))
    except ValueError:
        return None
    is_item = isinstance(item, dict) and "stac_version" in item and isinstance(item.get("assets"), dict)
    return item if is_item else None


def _choose_asset(text: str, assets: dict[str, Any], name: str | None) -> str:
    listed = ", ".join(sorted(assets)) or "none"
    if name is not None:
        if name not in assets:
            raise PairError(f"{text} has no asset {name}, it has {listed}: name one with --asset")
        return name
    rasters = [key for key, asset in assets.items() if _is_raster(asset)]
    data = [key for key in rasters if "data" in (assets[key].get("roles") or ())]
    for keys in (data, rasters):
        if len(keys) == 1:
            return keys[0]
    several = ", ".join(sorted(data or rasters))
    problem = (
        f"has several assets that may be the scene ({several})" if several else f"has no raster ({listed})"
    )
    raise PairError(f"{text} {problem}: name one with --asset")


def _is_raster(asset: dict[str, Any]) -> bool:
    roles = asset.get("roles") or []
    kind = str(asset.get("type", "")).split(";")[0].strip().lower()
    ends = path_of_address(str(asset["href"])).lower().endswith((".tif", ".tiff", ".jp2"))
    return (kind in _RASTERS or ends) and not _NO_SCENES.intersection(roles)


def _bands(asset: dict[str, Any]) -> str | None:
    """Name all bands by their common names (STAC 1.0 and 1.1), or ``None`` if some have none."""
    listed = asset.get("eo:bands") or asset.get("bands") or []
    names = [_name(band) for band in listed if isinstance(band, dict)]
    return ",".join(name for name in names if name) if names and all(names) else None


def _name(band: dict[str, Any]) -> str | None:
    text = band.get("common_name") or band.get("eo:common_name") or band.get("name", "")
    return _NAMES.get(str(text).lower())
