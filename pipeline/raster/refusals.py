"""Refuse what is no scene, or none that can be read, in words: what is wrong, and what to do."""

from __future__ import annotations

import os
from typing import Any

from rasterio.enums import MaskFlags

from decr_scene.pipeline.errors import SceneError, SceneNotFoundError, SceneReadError
from decr_scene.pipeline.inputs.names import is_gdal_name
from decr_scene.pipeline.inputs.text import decoded

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Dtypes that a scene may have."""

_COEFFICIENTS = 20
"""Of each of the four polynomials of RPCs."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")


def advice(path: str) -> str:
    """Say what to do about a raster that cannot be read."""
    if "/vsicurl/" in path or "://" in path:
        return "the server failed or its file is damaged, try again, or fetch the file and process that"
    if path.lower().endswith(".vrt"):
        return "a raster that it is made of is damaged or incomplete, or missing: see gdalinfo -checksum"
    return "the file is damaged or incomplete, get it again, or check it with gdalinfo -checksum"


def check_supported(path: str, dataset: Any) -> None:
    """Refuse a raster without bands, of several rasters, or of pixels that are no scene's.

    Raises:
        SceneError: It is one.
    """
    if not dataset.count:
        inside = ", ".join(dataset.subdatasets[:4])
        raise SceneError(
            f"{path}: no bands{f', but the rasters {inside}: name one of them' if inside else ''}"
        )
    if len(dataset.subdatasets) > 1:
        raise SceneError(
            f"{path} has {len(dataset.subdatasets)} rasters ({', '.join(dataset.subdatasets[:4])}), and "
            "nothing says which is the scene: name one of them"
        )
    dtypes = sorted(set(dataset.dtypes))
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        raise SceneError(
            f"{path}: pixels are {', '.join(dtypes)}, expected one of {', '.join(DTYPES)} in all bands: "
            "convert with gdal_translate -ot"
        )


def check_georeferencing(path: str, dataset: Any) -> None:
    """Refuse ground control points and RPCs that cannot be read, which GDAL keeps as text.

    Raises:
        SceneReadError: They cannot.
    """
    try:
        _, rpcs = dataset.gcps, dataset.rpcs
        for name, values in ({} if rpcs is None else rpcs.to_dict()).items():
            if name.endswith("_coeff") and len(values) != _COEFFICIENTS:
                raise ValueError(f"{len(values)} numbers for {name.upper()}, expected {_COEFFICIENTS}")
    except (ValueError, TypeError, LookupError) as error:
        beside = [os.path.basename(name) for name in dataset.files if os.path.abspath(name) != path]
        place = f"; beside it are {', '.join(beside)}" if beside else ""
        raise SceneReadError(
            f"{path}: its RPCs or ground control points cannot be read ({one_line(error)}{place}): "
            "get them again, or take them away"
        ) from error


def check_mask_file(path: str, dataset: Any) -> None:
    """Refuse a file of its mask that GDAL passes over as damaged: what it marks would count as valid.

    Raises:
        SceneReadError: It is there, and GDAL has no mask.
    """
    if not os.path.isfile(path) or any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums):
        return
    raise SceneReadError(
        f"{path} is there and has no mask that GDAL reads, though its name says it is that of the scene: "
        "get it again, or take it away"
    )


def cannot_open(path: str, error: Exception) -> SceneReadError:
    """Make the error of what GDAL cannot open: a folder, an archive, a missing or a damaged file."""
    if os.path.isdir(path):
        return SceneReadError(f"{path} is a directory, expected a raster: name the file inside, or use batch")
    if not os.path.exists(path) and not is_gdal_name(path):
        return SceneNotFoundError(no_file(path))
    if path.lower().endswith(_ARCHIVES):
        return SceneReadError(
            f"{path} is an archive, expected a raster: unpack it, then name the raster or the folder in it"
        )
    if isinstance(error, UnicodeDecodeError):
        return SceneReadError(
            f"{path} has a CRS whose name is no UTF-8 ({decoded(bytes(error.object))[:60]}): "
            "give it its CRS anew, such as with gdal_edit.py -a_srs EPSG:32650"
        )
    return SceneReadError(
        f"{path} is not a raster that GDAL reads ({one_line(error)}): check it with gdalinfo"
    )


def no_file(path: str) -> str:
    """Return the message for a missing file."""
    return f"{path}: no such file, expected a raster: check the path"


def one_line(error: BaseException) -> str:
    """Return GDAL's own message, which rasterio keeps as the cause."""
    return " ".join(str(error.__cause__ or error).split())
