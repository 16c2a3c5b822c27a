"""Describe bands in files of their own as one raster: a VRT, computed when it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from rasterio.windows import Window

from decr_scene.pipeline.errors import PairError, SceneReadError
from decr_scene.pipeline.products.layouts import Stack
from decr_scene.pipeline.products.reflectance import Unit
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.vrt import (
    BAND_PARTS,
    add_tags,
    band_tags,
    keep_only,
    located_vrt,
    scene_tags,
    write_vrt,
)

NODATA = 0.0
"""Fill value of Landsat and Sentinel-2; not all of their files name it."""

_WINDOW = re.compile(r"cannot read rows (\d+) to (\d+), cols (\d+) to (\d+)")


def write_stack(stack: Stack, vrt: Path, units: Mapping[str, Unit] | None = None) -> Mapping[str, Unit]:
    """Write the VRT of a stack of bands.

    Args:
        stack: Names of the bands, and files of one band each.
        vrt: The file to write; an equal one is left as it is.
        units: Scale and offset of all bands, unless a file has its own.

    Returns:
        Scale and offset that it gives to bands whose files have none.

    Raises:
        PairError: They are not of one grid and type.
        SceneReadError: One of them cannot be read.
    """
    scenes = [RasterioScene.open(path) for _, path in stack]
    first = scenes[0]
    for scene in scenes:
        kind = (scene.count, scene.shape, scene.dtype, scene.crs, scene.transform)
        if kind != (1, first.shape, first.dtype, first.crs, first.transform):
            raise PairError(
                f"{scene.path} is {scene.count} x {scene.shape} px of {scene.dtype}, expected one band on "
                f"the grid of {first.path}, {first.shape} px of {first.dtype}: are these bands of one scene?"
            )
    fills = {NODATA if scene.nodata is None else scene.nodata for scene in scenes}
    if len({repr(fill) for fill in fills}) > 1:
        told = ", ".join(f"{Path(scene.path).name}: {scene.nodata}" for scene in scenes)
        raise PairError(
            f"the bands of {Path(first.path).parent} have different nodata values ({told}), a stack holds "
            "one: set one with gdal_edit -a_nodata"
        )
    units = {} if any(_has_unit(scene) for scene in scenes) else units or {}
    with first.dataset() as dataset:
        root = located_vrt(dataset, set())
        root.attrib |= {"rasterXSize": str(dataset.width), "rasterYSize": str(dataset.height)}
        add_tags(root, {ns: tags for ns, tags in scene_tags(dataset).items() if ":" not in ns})
    for number, ((role, _), scene) in enumerate(zip(stack, scenes, strict=True), start=1):
        root.append(_band(number, role, scene, units.get(role)))
    write_vrt(ET.tostring(root, encoding="unicode"), vrt)
    return units


@contextmanager
def bands_told(stack: Stack, vrt: Path) -> Iterator[None]:
    """Name the file of a band that cannot be read, for a ``with``, in the place of the hidden VRT.

    Raises:
        SceneReadError: What was raised, or that of the band's file.
    """
    try:
        yield
    except SceneReadError as error:
        window = _WINDOW.search(str(error))
        if window is not None and os.path.abspath(vrt) in str(error):
            top, bottom, left, right = map(int, window.groups())
            place = Window(row_off=top, col_off=left, height=bottom - top, width=right - left)
            for _, path in stack:
                RasterioScene.open(path).read(place)
        raise


def _has_unit(scene: RasterioScene) -> bool:
    with scene.dataset() as dataset:
        return (dataset.scales[0], dataset.offsets[0]) != (1, 0)


def _band(number: int, role: str, scene: RasterioScene, unit: Unit | None) -> ET.Element:
    with scene.dataset() as dataset:
        band = located_vrt(dataset, {"VRTRasterBand"}).findall("VRTRasterBand")[0]
        tags = band_tags(dataset, 1)
    keep_only(band, BAND_PARTS - {"Description", "ColorInterp", "NoDataValue"})
    band.attrib = {"dataType": band.attrib["dataType"], "band": str(number)}
    add_tags(band, tags)
    ET.SubElement(band, "Description").text = role
    ET.SubElement(band, "NoDataValue").text = repr(NODATA if scene.nodata is None else float(scene.nodata))
    ET.SubElement(band, "ColorInterp").text = role.capitalize() if role != "nir" else "Undefined"
    for name, value in zip(("Scale", "Offset"), unit or (), strict=False):
        ET.SubElement(band, name).text = f"{value:.12g}"  # a GeoTIFF would not keep all 17 digits
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = scene.path
    ET.SubElement(source, "SourceBand").text = "1"
    return band
