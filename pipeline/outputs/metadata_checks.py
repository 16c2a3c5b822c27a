"""What came through: everything but the pixels of two rasters, compared."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.rpc import RPC
from rasterio.windows import Window

from decr_scene.pipeline.defaults import BLOCKSIZE
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.files import os_faults
from decr_scene.pipeline.raster.scene import RasterioScene, gdal_env
from decr_scene.pipeline.raster.vrt import (
    Tags,
    band_tags,
    copy_vrt,
    descriptions,
    document,
    has_mask,
    scene_tags,
    units,
)
from decr_scene.pipeline.writing.cog import lossless, write_cog
from decr_scene.pipeline.writing.scratch import as_geotiff

_STRIP = 1024
_TRIAL_SIDE = 16


def verify_roundtrip(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> dict[str, bool]:
    """Compare everything but the pixels of two rasters.

    Left out are statistics, tags that describe how a file is stored, and differences that a TIFF cannot keep:
    an empty tag from none, areas from no word about it, grey from an undefined colour, a colour table from a
    longer one.

    Returns:
        Whether they are equal, by property: shape, count, dtype, crs, transform, gcps, gcp_crs, rpcs, nodata,
        mask, color_interpretation, color_table, descriptions, units, scales, offsets, tags, band_tags.
    """
    with rasterio.open(source) as one, rasterio.open(output) as other:
        return _are_equal(_properties(one), _properties(other)) | {"mask": _same_masks(one, other)}


def check_copy(scene: RasterioScene) -> None:
    """Refuse a raster whose copy would lose something, by copying all but its pixels to a small one.

    Raises:
        SceneError: A property would be lost.
    """
    with tempfile.TemporaryDirectory() as folder, gdal_env(), rasterio.open(scene.path) as dataset:
        first = _properties(dataset)  # of a handle of its own, before GDAL has described it
        pixels, copy = Path(folder, "pixels.tif"), Path(folder, "copy.tif")
        shape = (scene.count, _TRIAL_SIDE, _TRIAL_SIDE)
        pixels.write_bytes(as_geotiff(np.zeros(shape, scene.dtype), {}))
        text, marked = copy_vrt(dataset, str(pixels), _TRIAL_SIDE, [{}] * scene.count, "AVERAGE")
        with os_faults(f"cannot copy what describes {scene.path}", Path(folder)):
            write_cog(
                _corner_vrt(text), marked, copy, lossless("none", "", indexed=False), BLOCKSIZE, "AVERAGE"
            )
        with rasterio.open(copy) as other:
            second = _properties(other)
    first["shape"] = second["shape"]
    if lost := [name for name, same in _are_equal(first, second).items() if not same]:
        named = [_with_domains(name, first[name], second[name]) for name in lost]
        raise SceneError(
            f"{scene.path}: a GeoTIFF would not keep its {', '.join(named)}: copy it with gdal_translate, "
            "look whether what is kept will do, and process the copy"
        )


def _with_domains(name: str, first: Any, second: Any) -> str:
    """Name a property in words, tags with the domains that differ."""
    words = name.replace("_", " ")
    if name != "tags":
        return words
    domains = sorted(domain for domain in {*first, *second} if first.get(domain) != second.get(domain))
    return f"{words} ({', '.join(domain or 'of no domain' for domain in domains)})"


def _corner_vrt(text: str) -> str:
    """Return the VRT of a corner, without a mask."""
    size = f'rasterXSize="{_TRIAL_SIDE}" rasterYSize="{_TRIAL_SIDE}"'
    text = re.sub(r'rasterXSize="\d+" rasterYSize="\d+"', size, text, count=1)
    return re.sub(r"<MaskBand>.*?</MaskBand>", "", text, flags=re.DOTALL)


def _are_equal(first: dict[str, Any], second: dict[str, Any]) -> dict[str, bool]:
    """Return whether properties are equal.

    A colour table may have grown.
    """
    same = {name: first[name] == second[name] for name in first}
    return same | {"color_table": first["color_table"].items() <= second["color_table"].items()}


def _properties(dataset: Any) -> dict[str, Any]:
    gcps, gcp_crs = dataset.gcps
    return {
        "shape": dataset.shape,
        "count": dataset.count,
        "dtype": dataset.dtypes,
        "crs": dataset.crs,
        "transform": tuple(dataset.transform),
        "gcps": [(gcp.row, gcp.col, gcp.x, gcp.y, gcp.z or 0.0) for gcp in gcps],
        "gcp_crs": gcp_crs if gcps else None,
        "rpcs": _rounded(dataset.rpcs),
        "nodata": repr(dataset.nodatavals),
        "color_interpretation": [colour.name.replace("undefined", "gray") for colour in dataset.colorinterp],
        "color_table": _color_table(dataset),
        "descriptions": descriptions(dataset),
        "units": units(dataset),
        "scales": dataset.scales,
        "offsets": dataset.offsets,
        "tags": _comparable(scene_tags(dataset)),
        "band_tags": [_comparable(band_tags(dataset, number)) for number in dataset.indexes],
    }


def _comparable(tags: dict[str, Tags]) -> dict[str, Tags]:
    """Return tags without RPCs, which are compared as numbers, and with XML in canonical form."""
    comparable = {domain: _normalised(domain, items) for domain, items in tags.items() if domain != "RPC"}
    return {domain: items for domain, items in comparable.items() if items}


def _normalised(domain: str, items: Tags) -> Tags:
    text = document(domain, items)
    if text is not None and domain.startswith("xml:"):
        return {domain: ET.canonicalize(text, strip_text=True)}
    return {key: value for key, value in items.items() if value and (key, value) != ("AREA_OR_POINT", "Area")}


def _rounded(rpcs: RPC | None) -> dict[str, list[str]] | None:
    """Round coefficients to 13 digits.

    GDAL reads 15 from a tag, and a text file may have any number.
    """
    if rpcs is None:
        return None
    unknown = {"err_bias": -1.0, "err_rand": -1.0}  # so GDAL writes them
    values = unknown | {name: value for name, value in rpcs.to_dict().items() if value is not None}
    return {name: [f"{v:.12e}" for v in np.atleast_1d(value)] for name, value in values.items()}


def _color_table(dataset: Any) -> dict[int, tuple[int, ...]]:
    try:
        table: dict[int, tuple[int, ...]] = dataset.colormap(1)
    except ValueError:
        return {}
    return table


def _same_masks(one: Any, other: Any) -> bool:
    if one.shape != other.shape or has_mask(one) != has_mask(other):
        return False
    if not has_mask(one):
        return True
    return all(np.array_equal(a, b) for a, b in zip(_mask_strips(one), _mask_strips(other), strict=True))


def _mask_strips(dataset: Any) -> Iterator[NDArray[np.bool_]]:
    for row in range(0, dataset.height, _STRIP):
        height = min(_STRIP, dataset.height - row)
        yield dataset.read_masks(1, window=Window(0, row, dataset.width, height)) != 0
