"""What came through: everything but the pixels of two rasters, compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.rpc import RPC
from rasterio.windows import Window

from decr_scene.pipeline.metadata import band_tags, has_mask, is_document, scene_tags

_STRIP = 1024


def verify_roundtrip(source: str, output: str) -> dict[str, bool]:
    """Compare everything but the pixels of two rasters.

    Left out: statistics, and tags that describe how a file is stored.

    Returns:
        Whether they are equal, by property: shape, count, dtype, crs, transform, gcps, gcp_crs, rpcs, nodata,
        mask, color_interpretation, color_table, descriptions, units, scales, offsets, tags, band_tags.
    """
    with rasterio.open(source) as one, rasterio.open(output) as other:
        first, second = _properties(one), _properties(other)
        return {name: first[name] == second[name] for name in first} | {"mask": _same_masks(one, other)}


def _properties(dataset: Any) -> dict[str, Any]:
    gcps, gcp_crs = dataset.gcps
    tags = scene_tags(dataset)
    tags.pop("RPC", None)  # compared as numbers
    for domain in [domain for domain in tags if is_document(tags[domain], domain)]:
        tags[domain] = {domain: ET.canonicalize(tags[domain][domain], strip_text=True)}
    return {
        "shape": dataset.shape,
        "count": dataset.count,
        "dtype": dataset.dtypes,
        "crs": dataset.crs,
        "transform": tuple(dataset.transform),
        "gcps": [(gcp.row, gcp.col, gcp.x, gcp.y, gcp.z or 0.0) for gcp in gcps],
        "gcp_crs": gcp_crs,
        "rpcs": _rounded(dataset.rpcs),
        "nodata": repr(dataset.nodatavals),
        "color_interpretation": dataset.colorinterp,
        "color_table": _color_table(dataset),
        "descriptions": dataset.descriptions,
        "units": [unit or "" for unit in dataset.units],
        "scales": dataset.scales,
        "offsets": dataset.offsets,
        "tags": tags,
        "band_tags": [band_tags(dataset, number) for number in dataset.indexes],
    }


def _rounded(rpcs: RPC | None) -> dict[str, list[str]] | None:
    """Coefficients to 13 digits; GDAL reads 15 from a tag, and a text beside a raster may have any number."""
    if rpcs is None:
        return None
    unknown = {"err_bias": -1.0, "err_rand": -1.0}  # so GDAL writes them
    values = unknown | {name: value for name, value in rpcs.to_dict().items() if value is not None}
    return {name: [f"{v:.12e}" for v in np.atleast_1d(value)] for name, value in values.items()}


def _color_table(dataset: Any) -> dict[int, tuple[int, ...]] | None:
    try:
        table: dict[int, tuple[int, ...]] = dataset.colormap(1)
    except ValueError:
        return None
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
