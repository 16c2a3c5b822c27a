"""Take the fingerprint of a file, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from decr_scene.pipeline.errors import SceneNotFoundError
from decr_scene.pipeline.inputs.addresses import without_secrets
from decr_scene.pipeline.inputs.names import full_name, is_gdal_name, local_files
from decr_scene.pipeline.raster.refusals import no_file
from decr_scene.pipeline.raster.scene import RasterioScene

_EDGE = 1 << 20
"""Bytes read at either end."""


def fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what distinguishes one state of a file from another, without reading all of it.

    Returns:
        ``path``, in which secrets of an address are hidden, ``bytes``, ``modified`` (ns) and ``sha256_ends``,
        of the first and the last 1 MiB; of a store that is a folder, such as Zarr's, of the sizes and times
        of all files in it.

    Raises:
        SceneNotFoundError: There is no such file.
    """
    if is_gdal_name(path):
        return _fingerprint_of_name(full_name(path))
    absolute = Path(path).absolute()
    if absolute.is_dir():
        return _fingerprint_of_folder(absolute)
    try:
        size = absolute.stat().st_size
        with absolute.open("rb") as file:
            ends = hashlib.sha256(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            ends.update(file.read(_EDGE))
    except FileNotFoundError as error:
        raise SceneNotFoundError(no_file(str(path))) from error
    return {
        "path": str(absolute),
        "bytes": size,
        "modified": absolute.stat().st_mtime_ns,
        "sha256_ends": ends.hexdigest(),
    }


def _fingerprint_of_folder(folder: Path) -> dict[str, Any]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    states = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return {
        "path": str(folder),
        "bytes": sum(size for _, size, _ in states),
        "modified": max((when for _, _, when in states), default=0),
        "sha256_ends": hashlib.sha256(repr(states).encode()).hexdigest(),
    }


def _fingerprint_of_name(name: str) -> dict[str, Any]:
    """Fingerprint the file of a GDAL name, or where it is not local, its description and corners."""
    if files := local_files(name):
        return fingerprint(files[0]) | {"path": without_secrets(name)}
    scene = RasterioScene.open(name)
    height, width = (min(256, side) for side in scene.shape)
    digest = hashlib.sha256(
        repr((scene.shape, scene.dtype, scene.bands, scene.transform, scene.crs)).encode()
    )
    for row, col in ((0, 0), (scene.shape[0] - height, scene.shape[1] - width)):
        digest.update(scene.read(Window(row_off=row, col_off=col, height=height, width=width)).tobytes())
    return {"path": without_secrets(name), "bytes": None, "modified": None, "sha256_ends": digest.hexdigest()}
