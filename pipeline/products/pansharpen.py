"""Describe a panchromatic and a multispectral raster as one scene, sharpened by GDAL's pansharpen VRT.

The VRT is one small hidden file beside the output: nothing is computed before a window is read, and workers
open it as any other scene. Sharpening is weighted Brovey, each band times PAN over its estimate from the
bands; the weights of that estimate are fitted to the pair itself, so that a PAN of another gain changes no
colour.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from rasterio.enums import Resampling
from rasterio.transform import Affine, RPCTransformer
from rasterio.windows import Window

from decr_scene.models.arrays import Double
from decr_scene.pipeline.errors import PairError
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.nodata import is_nodata
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.vrt import (
    BAND_PARTS,
    add_tags,
    band_tags,
    has_mask,
    keep_only,
    located_vrt,
    scene_tags,
    write_vrt,
)

RATIOS = (1.5, 16.0)
"""Least and greatest size of a multispectral pixel, in pixels of PAN."""

_SAMPLE = 512
"""Greatest side of the decimated images that the weights are fitted to, px."""


@dataclass(frozen=True)
class _Relation:
    """Where the pixels of a multispectral raster lie on PAN.

    Args:
        to_pan: From pixels of the multispectral raster to those of PAN: scales and shifts, no rotation.
        window: The pixels of PAN that the multispectral raster covers.
    """

    to_pan: Affine
    window: Window


def write_pansharpened(
    spectral: str | Path,
    pan: str | Path,
    vrt: Path,
    bands: str | None = None,
    acquired: datetime | None = None,
) -> tuple[float, ...]:
    """Describe a pair as one scene of PAN's pixels and the other's bands.

    Names, colours, units, nodata and tags of the bands come from the multispectral raster, the georeferencing
    (CRS, transform, GCPs, RPCs) from PAN. Without CRS, or where there are only RPCs or GCPs,
    the two are taken to cover the same ground, as a vendor's pair does.

    Args:
        spectral: The multispectral raster.
        pan: The panchromatic one, of one band.
        vrt: The file to write; an equal one is left as it is.
        bands: The bands, as ``--bands``; a band named ``alpha`` is refused.
        acquired: Acquisition time, for GDAL's tag of it where the rasters have none.

    Returns:
        The weights of the bands in the estimate of PAN.

    Raises:
        PairError: The two do not match.
        SceneReadError: One of them is missing or cannot be read.
    """
    colours, sharp = RasterioScene.open(spectral, bands), RasterioScene.open(pan)
    with colours, sharp, colours.dataset() as spectral_set, sharp.dataset() as pan_set:
        _check(spectral_set, pan_set, colours.bands)
        relation = _relate(spectral_set, pan_set)
        weights = fit_weights(spectral_set, pan_set, relation)
        text = _vrt_text(spectral_set, pan_set, relation, weights, acquired)
    text += f"<!-- {json.dumps([fingerprint(path) for path in (colours.path, sharp.path)])} -->"
    write_vrt(text, vrt)
    return weights


def fit_weights(spectral: Any, pan: Any, relation: _Relation) -> tuple[float, ...]:
    """Fit weights, none negative, with which the bands add up to PAN, over decimated images of both.

    Args:
        spectral: Open dataset.
        pan: Open dataset.
        relation: Where their pixels lie.

    Returns:
        One a band; equal ones that sum to 1 where too few pixels are valid.
    """
    from scipy.optimize import nnls

    bands, sharp = _decimated(spectral, pan, relation)
    good = np.isfinite(sharp) & np.isfinite(bands).all(axis=0) & (sharp > 0)
    for dataset, values in ((spectral, bands[0]), (pan, sharp)):
        good &= ~is_nodata(values, dataset.nodata)
    equal = (1 / len(bands),) * len(bands)
    if np.count_nonzero(good) < 10 * len(bands):
        return equal
    weights, _ = nnls(bands[:, good].T, sharp[good])
    return tuple(round(float(weight), 9) for weight in weights) if weights.any() else equal


def _decimated(spectral: Any, pan: Any, relation: _Relation) -> tuple[Double, Double]:
    """Read both over the same ground at the same size: ``(C, h, w)`` and ``(h, w)``."""
    left, top = ~relation.to_pan @ (relation.window.col_off, relation.window.row_off)
    right, bottom = ~relation.to_pan @ (
        relation.window.col_off + relation.window.width,
        relation.window.row_off + relation.window.height,
    )
    left, top = max(0.0, left), max(0.0, top)
    right, bottom = min(float(spectral.width), right), min(float(spectral.height), bottom)
    window = Window(left, top, right - left, bottom - top)
    height, width = (max(1, min(_SAMPLE, int(side))) for side in (window.height, window.width))
    options = {"resampling": Resampling.average, "boundless": False}
    bands = spectral.read(window=window, out_shape=(spectral.count, height, width), **options)
    sharp = pan.read(1, window=relation.window, out_shape=(height, width), **options)
    return bands.astype(np.float64), sharp.astype(np.float64)


# -- where their pixels lie ----------------------------------------------------------------------------------


def _check(spectral: Any, pan: Any, bands: Sequence[str]) -> None:
    if pan.count != 1:
        raise PairError(
            f"{pan.name} has {pan.count} bands, expected one, panchromatic: is it the other file?"
        )
    if "alpha" in bands or has_mask(spectral) or has_mask(pan):
        raise PairError(
            f"{spectral.name} or {pan.name} has a mask or an alpha band, which sharpening cannot keep: "
            "mark what is invalid with a nodata value"
        )
    if len({repr(value) for value in spectral.nodatavals}) > 1:
        raise PairError(
            f"{spectral.name}: the bands have different nodata values {spectral.nodatavals}: set one with "
            "gdal_translate -a_nodata"
        )


def _relate(spectral: Any, pan: Any) -> _Relation:
    """Relate the two by their coordinates, or by their sizes where neither has any."""
    if (spectral.crs is None) != (pan.crs is None):
        with_crs, without = (spectral, pan) if pan.crs is None else (pan, spectral)
        raise PairError(
            f"{with_crs.name} has a CRS and {without.name} has none: georeference both or neither"
        )
    if spectral.crs != pan.crs:
        raise PairError(
            f"{spectral.name} is in {spectral.crs.to_string()[:60]}, {pan.name} in "
            f"{pan.crs.to_string()[:60]}: reproject one of them"
        )
    if spectral.crs is not None and not spectral.transform.is_identity:
        to_pan = ~pan.transform @ spectral.transform
    else:
        to_pan = Affine.scale(pan.width / spectral.width, pan.height / spectral.height)
        _check_rpcs(spectral, pan, to_pan)
    _check_scales(spectral, pan, to_pan)
    return _Relation(to_pan, _common_window(spectral, pan, to_pan))


def _check_scales(spectral: Any, pan: Any, to_pan: Affine) -> None:
    across, down, skew = to_pan.a, to_pan.e, max(abs(to_pan.b), abs(to_pan.d))
    if skew * max(spectral.width, spectral.height) > 0.5:
        raise PairError(f"{pan.name} is rotated against {spectral.name}: warp one onto the other")
    low, high = RATIOS
    if not (low <= across <= high and low <= down <= high and abs(across / down - 1) < 0.02):
        raise PairError(
            f"a pixel of {spectral.name} is {across:.3g} x {down:.3g} px of {pan.name}, expected about "
            "4 x 4: are these the right two files?"
        )


def _check_rpcs(spectral: Any, pan: Any, to_pan: Affine) -> None:
    """Refuse two rasters that are on different ground by their own RPCs."""
    if spectral.rpcs is None or pan.rpcs is None:
        return
    height = spectral.rpcs.height_off
    rows, cols = [0, 0, spectral.height, spectral.height], [0, spectral.width, spectral.width, 0]
    xs, ys = RPCTransformer(spectral.rpcs, RPC_HEIGHT=height).xy(rows, cols, offset="ul")
    pixels = RPCTransformer(pan.rpcs, RPC_HEIGHT=height).rowcol(xs, ys, op=np.asarray)
    right, down = to_pan @ (np.asarray(cols, float), np.asarray(rows, float))
    off = max(np.abs(pixels[0] - down).max() / pan.height, np.abs(pixels[1] - right).max() / pan.width)
    if not off < 0.05:
        raise PairError(
            f"{pan.name} does not show the ground of {spectral.name}: by their RPCs they are "
            f"{100 * off:.0f} % of the scene apart, are these the right two files?"
        )


def _common_window(spectral: Any, pan: Any, to_pan: Affine) -> Window:
    """Return the window of whole pixels of PAN that the multispectral raster covers."""
    tiny = 1e-6 * max(pan.width, pan.height)
    left, top = (max(0, int(np.ceil(v - tiny))) for v in (to_pan.c, to_pan.f))
    right = min(pan.width, int(np.floor(to_pan.c + to_pan.a * spectral.width + tiny)))
    bottom = min(pan.height, int(np.floor(to_pan.f + to_pan.e * spectral.height + tiny)))
    if right <= left or bottom <= top:
        raise PairError(f"{pan.name} and {spectral.name} do not overlap: are these the right two files?")
    return Window(left, top, right - left, bottom - top)


# -- the VRT -------------------------------------------------------------------------------------------------


def _vrt_text(
    spectral: Any, pan: Any, relation: _Relation, weights: Sequence[float], acquired: datetime | None
) -> str:
    """Return the whole scene as one VRT.

    The two rasters are in it as VRTs of their own, on PAN's pixels.
    """
    window = relation.window
    root = located_vrt(pan, set())
    root.attrib = {
        "subClass": "VRTPansharpenedDataset",
        "rasterXSize": str(window.width),
        "rasterYSize": str(window.height),
    }
    _shift_transform(root, pan, window)
    tags = {domain: items for domain, items in scene_tags(spectral).items() if not domain.startswith("xml:")}
    tags["RPC"] = _shifted_rpcs(scene_tags(pan).get("RPC", {}), window)
    point = scene_tags(pan).get("", {}).get("AREA_OR_POINT")
    tags[""] = tags.get("", {}) | ({"AREA_OR_POINT": point} if point else {})
    if acquired is not None:
        moment = {"ACQUISITIONDATETIME": acquired.strftime("%Y-%m-%d %H:%M:%S")}
        tags["IMAGERY"] = moment | tags.get("IMAGERY", {})
    add_tags(root, tags)
    nodata = _nodata(spectral, pan)
    for number, band in enumerate(located_vrt(spectral, {"VRTRasterBand"}).findall("VRTRasterBand"), start=1):
        keep_only(band, BAND_PARTS)
        names = {"dataType": band.attrib["dataType"], "band": str(number)}
        band.attrib = names | {"subClass": "VRTPansharpenedRasterBand"}
        if nodata is not None and band.find("NoDataValue") is None:
            ET.SubElement(band, "NoDataValue").text = repr(float(nodata))
        add_tags(band, band_tags(spectral, number))
        root.append(band)
    root.append(_options(spectral, pan, relation, weights))
    return ET.tostring(root, encoding="unicode")


def _shift_transform(root: ET.Element, pan: Any, window: Window) -> None:
    place = root.find("GeoTransform")
    if place is not None:
        moved = pan.transform @ Affine.translation(window.col_off, window.row_off)
        place.text = ", ".join(repr(float(value)) for value in moved.to_gdal())


def _shifted_rpcs(rpcs: dict[str, str], window: Window) -> dict[str, str]:
    moved = {"LINE_OFF": window.row_off, "SAMP_OFF": window.col_off}
    return rpcs | {key: repr(float(rpcs[key]) - by) for key, by in moved.items() if by and key in rpcs}


def _options(spectral: Any, pan: Any, relation: _Relation, weights: Sequence[float]) -> ET.Element:
    options = ET.Element("PansharpeningOptions")

    def add(name: str, text: str, parent: ET.Element = options) -> None:
        ET.SubElement(parent, name).text = text

    add("Algorithm", "WeightedBrovey")
    add("Weights", ",".join(map(repr, weights)), ET.SubElement(options, "AlgorithmOptions"))
    add("Resampling", "Cubic")
    if "NBITS" in (bits := spectral.tags(1, ns="IMAGE_STRUCTURE")):
        add("BitDepth", bits["NBITS"])
    nodata = _nodata(spectral, pan)
    add("NoData", "None" if nodata is None else repr(float(nodata)))
    add("SpatialExtentAdjustment", "None")
    window = relation.window
    kind = _common_type(spectral, pan)
    sharp = _wrapped_vrt(pan, Affine.scale(1, -1), window, nodata, kind)
    _add_source(ET.SubElement(options, "PanchroBand"), sharp, 1)
    placement = Affine.scale(1, -1) @ Affine.translation(-window.col_off, -window.row_off) @ relation.to_pan
    whole = Window(0, 0, spectral.width, spectral.height)
    colours = _wrapped_vrt(spectral, placement, whole, nodata, kind)
    for number in spectral.indexes:
        band = ET.SubElement(options, "SpectralBand", dstBand=str(number))
        _add_source(band, colours, number)
    return options


def _nodata(spectral: Any, pan: Any) -> float | None:
    """Return what says that a pixel of the pair has no value; the panchromatic's, if the bands hold it."""
    if spectral.nodata is not None or pan.nodata is None:
        return None if spectral.nodata is None else float(spectral.nodata)
    value, kind = float(pan.nodata), np.dtype(spectral.dtypes[0])
    fits = kind.kind == "f" or (value.is_integer() and np.iinfo(kind).min <= value <= np.iinfo(kind).max)
    return value if fits else None


def _common_type(spectral: Any, pan: Any) -> str:
    """Return GDAL's name of a type that holds the values of both: it computes in that of the panchromatic."""
    kind = np.result_type(*spectral.dtypes, *pan.dtypes)
    return _GDAL_TYPES.get(kind.name, "Float64")


def _add_source(element: ET.Element, vrt: str, number: int) -> None:
    ET.SubElement(element, "SourceFilename", relativeToVRT="0").text = vrt
    ET.SubElement(element, "SourceBand").text = str(number)


def _wrapped_vrt(dataset: Any, place: Affine, window: Window, nodata: float | None, kind: str) -> str:
    """Return the VRT of a raster, or a window of it, with another transform, nodata value and type."""
    size = {"rasterXSize": str(window.width), "rasterYSize": str(window.height)}
    root = ET.Element("VRTDataset", size)
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(value)) for value in place.to_gdal())
    inside = {name: str(int(value)) for name, value in zip(_RECT, window.flatten(), strict=True)}
    target = inside | {"xOff": "0", "yOff": "0"}
    for number in dataset.indexes:
        band = ET.SubElement(root, "VRTRasterBand", {"dataType": kind, "band": str(number)})
        if nodata is not None:
            ET.SubElement(band, "NoDataValue").text = repr(float(nodata))
        own_nodata = dataset.nodatavals[number - 1]
        source = ET.SubElement(band, "SimpleSource" if own_nodata is None else "ComplexSource")
        _add_source(source, dataset.name, number)
        ET.SubElement(source, "SrcRect", inside)
        ET.SubElement(source, "DstRect", target)
        if own_nodata is not None:
            ET.SubElement(source, "NODATA").text = repr(float(own_nodata))
    return ET.tostring(root, encoding="unicode")


_GDAL_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
}
_RECT = ("xOff", "yOff", "xSize", "ySize")
