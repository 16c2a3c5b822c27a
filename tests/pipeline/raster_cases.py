"""Tiny rasters with everything that can be odd about a raster, drawn by script; nothing is downloaded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

UTM = "EPSG:32650"
NORTH_UP = from_origin(399999.75, 4433001.25, 0.5, 0.5)

SIZES = ((1, 1), (200, 150), (256, 256), (257, 511), (777, 1000))
"""``(height, width)``, px."""


def draw(shape: tuple[int, int], count: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    """``(count, height, width)``: smooth ground with texture over the dtype's range, never 0."""
    rng = np.random.default_rng([seed, count, *shape])
    y, x = np.mgrid[: shape[0], : shape[1]]
    ground = 0.5 + 0.3 * np.sin(y / 37) * np.cos(x / 23)
    image = ground + rng.normal(0, 0.05, (count, *shape)) + 0.1 * np.linspace(-1, 1, count)[:, None, None]
    if np.dtype(dtype).kind == "f":
        return image.astype(dtype)
    info = np.iinfo(dtype)
    low = 1 if info.min == 0 else -2000
    return np.clip(low + image * min(info.max, 12000), low, info.max).astype(dtype)


def write(path: Path, pixels: NDArray[Any], **profile: Any) -> Path:
    """A GeoTIFF, 0.5 m in UTM unless ``profile`` says otherwise."""
    count, height, width = pixels.shape
    defaults = {"driver": "GTiff", "crs": UTM, "transform": NORTH_UP, "compress": "deflate"}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **{**defaults, **shape, **profile}) as dataset:
        dataset.write(pixels)
    return path


def plain(path: Path, shape: tuple[int, int], count: int = 4, dtype: str = "uint16", **profile: Any) -> Path:
    return write(path, draw(shape, count, dtype), **profile)


def described(path: Path, names: tuple[str, ...], dtype: str = "uint16", **profile: Any) -> Path:
    """A small scene whose bands have descriptions."""
    plain(path, (300, 280), len(names), dtype, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = names
    return path


# -- odd ones: name -> function(folder) -> path --------------------------------------------------------------


def with_all_tags(folder: Path) -> Path:
    path = described(folder / "tags.tif", ("blue", "green", "red", "nir"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_SOFTWARE="sensor desk 7", NOTE='<&> "quoted" ü 吉林', LINES="one\n two ")
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2021-05-04 02:11:00", CLOUDCOVER="35")
        dataset.update_tags(ns="VENDOR", sensor="JL1KF01A", gain="0.0312, 0.0298")
        for number in dataset.indexes:
            dataset.update_tags(number, wavelength=str(400 + 100 * number), STATISTICS_MEAN="1")
            dataset.update_tags(number, ns="CALIBRATION", gain=f"{number / 7}")
        dataset.units = ("W/m2", "W/m2", "W/m2", "W/m2")
        dataset.scales = (0.1, 0.2, 1 / 3, 0.4)
        dataset.offsets = (-1.5, 0.0, 1e-12, 3.0)
    return path


def with_xmp(folder: Path) -> Path:
    cover = '<cloud:cover xmlns:cloud="urn:x">35 &amp; more</cloud:cover>'
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{cover}</x:xmpmeta>'
    text = f"""<VRTDataset rasterXSize="40" rasterYSize="30">
      <Metadata domain="xml:XMP" format="xml">{xmp}</Metadata>
      <VRTRasterBand dataType="Byte" band="1"/></VRTDataset>"""
    return translate(text, folder / "xmp.tif", copy_src_mdd="YES")


def with_rpc(folder: Path) -> Path:
    path = plain(folder / "rpc.tif", (120, 90), 4, transform=None, crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = rational()
    return path


def with_rpc_text(folder: Path) -> Path:
    """RPCs in a text file beside the raster, as several vendors deliver them."""
    path = plain(folder / "vendor.tif", (120, 90), 4, transform=None, crs=None)
    rpc = rational().to_dict()
    lines = [f"{name.upper()}: {rpc[name]:+.12g}" for name in rpc if name.endswith(("_off", "_scale"))]
    for name in ("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff"):
        lines += [f"{name.upper()}_{i}: {value:+.15e}" for i, value in enumerate(rpc[name], start=1)]
    (folder / "vendor_RPC.TXT").write_text("\n".join(lines) + "\n")
    return path


def rational() -> RPC:
    rng = np.random.default_rng(5)
    coefficients = {
        f"{axis}_{part}_coeff": [1.0 if part == "den" else 0.1, *(rng.normal(0, 1e-4, 19))]
        for axis in ("line", "samp")
        for part in ("num", "den")
    }
    coefficients["line_num_coeff"][2] = -1.1
    coefficients["samp_num_coeff"][1] = 1.2
    offsets = {"height_off": 430.5, "lat_off": 43.8125, "line_off": 60.5, "long_off": 125.3, "samp_off": 45.5}
    scales = {
        "height_scale": 500.0,
        "lat_scale": 0.1,
        "line_scale": 60.0,
        "long_scale": 0.15,
        "samp_scale": 45.0,
    }
    return RPC(**offsets, **scales, **coefficients, err_bias=1.5, err_rand=0.25)


def with_gcps(folder: Path) -> Path:
    points = [
        GroundControlPoint(row, col, 125 + col / 777.0, 43 - row / 999.0, 12.125, id=f"p{row}", info="corner")
        for row, col in ((0.5, 0.5), (0.25, 149.123456789), (199.5, 149.5), (199.987654321, 0.5))
    ]
    path = folder / "gcps.tif"
    pixels = draw((200, 150), 4, "uint16")
    profile = {"driver": "GTiff", "count": 4, "height": 200, "width": 150, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:4326") as dataset:
        dataset.write(pixels)
    return path


def rotated(folder: Path) -> Path:
    turned = NORTH_UP * Affine.rotation(17.3) * Affine.shear(2.0, 0.0)
    return plain(folder / "rotated.tif", (180, 220), transform=turned)


def south_up(folder: Path) -> Path:
    return plain(folder / "south_up.tif", (100, 80), transform=Affine(0.5, 0, 4e5, 0, 0.5, 4.4e6))


def pixel_is_point(folder: Path) -> Path:
    path = plain(folder / "point.tif", (100, 80))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    return path


def no_georeferencing(folder: Path) -> Path:
    return plain(folder / "nowhere.tif", (100, 80), 3, "uint8", crs=None, transform=None)


def nodata_collar(folder: Path) -> Path:
    pixels = draw((300, 260), 4, "uint16")
    pixels[:, :40] = 0
    pixels[:, :, -70:] = 0
    return write(folder / "collar.tif", pixels, nodata=0)


def nan_nodata(folder: Path) -> Path:
    pixels = draw((130, 140), 2, "float32")
    pixels[:, 20:50, 30:60] = np.nan
    return write(folder / "nan.tif", pixels, nodata=float("nan"))


def nan_without_nodata(folder: Path) -> Path:
    pixels = draw((130, 140), 2, "float32")
    pixels[0, 20:50, 30:60], pixels[1, 0, 0] = np.nan, np.inf
    return write(folder / "nan_bare.tif", pixels)


def lowest_float_nodata(folder: Path) -> Path:
    pixels = draw((130, 140), 1, "float32")
    lowest = np.finfo("float32").min
    pixels[0, :9] = lowest
    return write(folder / "lowest.tif", pixels, nodata=float(lowest))


def nodata_out_of_range(folder: Path) -> Path:
    """999 in bytes: common in the wild, but rasterio writes none, so the tag is changed by hand."""
    path = plain(folder / "out_of_range.tif", (60, 50), 1, "uint8", nodata=255)
    tag = struct.pack("<HHI", 42113, 2, 4)
    content = path.read_bytes()
    assert content.count(tag + b"255\0") == 1
    path.write_bytes(content.replace(tag + b"255\0", tag + b"999\0"))
    return path


def internal_mask(folder: Path) -> Path:
    path = folder / "masked.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        _with_mask(path)
    return path


def external_mask(folder: Path) -> Path:
    path = folder / "masked_outside.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        _with_mask(path)
    assert path.with_name(path.name + ".msk").exists()
    return path


def _with_mask(path: Path) -> None:
    pixels = draw((700, 600), 3, "uint8")
    profile = {"driver": "GTiff", "count": 3, "height": 700, "width": 600, "dtype": "uint8", "crs": UTM}
    with rasterio.open(path, "w", **profile, transform=NORTH_UP) as dataset:
        dataset.write(pixels)
        mask = np.full((700, 600), 255, "uint8")
        mask[100:233, 50:391] = 0
        dataset.write_mask(mask)


def with_alpha(folder: Path) -> Path:
    pixels = draw((300, 260), 4, "uint16")
    pixels[3] = 65535
    pixels[3, :60] = 0
    path = write(folder / "alpha.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = _colours("red", "green", "blue", "alpha")
    return path


def with_colours(folder: Path) -> Path:
    path = plain(folder / "colours.tif", (90, 80), 6, "uint16")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = _colours("blue", "green", "red", "nir", "rededge", "undefined")
    return path


def three_grey_bytes(folder: Path) -> Path:
    """Three bytes that are not red, green, blue."""
    path = plain(folder / "grey.tif", (90, 80), 3, "uint8", photometric="MINISBLACK")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[0] is ColorInterp.gray
    return path


def _colours(*names: str) -> tuple[ColorInterp, ...]:
    return tuple(ColorInterp[name] for name in names)


def palette(folder: Path) -> Path:
    pixels = (draw((90, 80), 1, "uint8") // 64).astype("uint8")
    path = write(folder / "palette.tif", pixels, photometric="PALETTE")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (60 * i, 255 - 60 * i, 10 * i, 255) for i in range(4)})
    return path


def twelve_bits(folder: Path) -> Path:
    pixels = np.minimum(draw((90, 80), 4, "uint16"), 4095)
    return write(folder / "nbits.tif", pixels, nbits=12, compress="lzw")


def eight_bands(folder: Path) -> Path:
    names = ("coastal", "blue", "green", "yellow", "red", "red edge", "NIR1", "NIR2")
    return described(folder / "wv2.tif", names)


def band_interleaved_strips(folder: Path) -> Path:
    return plain(folder / "strips.tif", (300, 280), interleave="band", compress="packbits")


def lossy(folder: Path) -> Path:
    profile = {
        "compress": "jpeg",
        "photometric": "ycbcr",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    return plain(folder / "lossy.tif", (600, 700), 3, "uint8", **profile)


def zstd_float(folder: Path) -> Path:
    return plain(folder / "zstd.tif", (600, 700), 2, "float32", compress="zstd", predictor=3)


def as_vrt(folder: Path) -> Path:
    base = described(folder / "under.tif", ("blue", "green", "red", "nir"), nodata=0)
    path = folder / "over.vrt"
    path.write_text(vrt_of(base))
    return path


def as_png(folder: Path) -> Path:
    path = folder / "picture.png"
    rasterio.shutil.copy(plain(folder / "for_png.tif", (90, 80), 3, "uint8"), path, driver="PNG")
    return path


def wide_integers(folder: Path) -> Path:
    return plain(folder / "wide.tif", (90, 80), 2, "int32")


ODD: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        *(with_all_tags, with_xmp, with_rpc, with_rpc_text, with_gcps, rotated, south_up, pixel_is_point),
        *(no_georeferencing, nodata_collar, nan_nodata, nan_without_nodata, lowest_float_nodata),
        *(nodata_out_of_range, internal_mask, external_mask, with_alpha, with_colours, three_grey_bytes),
        *(palette, twelve_bits, eight_bands, band_interleaved_strips, lossy, zstd_float, as_vrt, as_png),
        wide_integers,
    )
}
"""Rasters that must come through with everything they have."""


def with_attribute_table(folder: Path) -> Path:
    """Categories, an attribute table and stale statistics, which GDAL keeps in a sidecar."""
    path = plain(folder / "classes.tif", (60, 50), 1, "uint8")
    path.with_name("classes.tif.aux.xml").write_text(
        """<PAMDataset><PAMRasterBand band="1">
        <CategoryNames><Category>none</Category><Category>water</Category></CategoryNames>
        <GDALRasterAttributeTable>
        <FieldDefn index="0"><Name>Value</Name><Type>0</Type><Usage>0</Usage></FieldDefn>
        <Row index="0"><F>7</F></Row></GDALRasterAttributeTable>
        <Metadata><MDI key="STATISTICS_MAXIMUM">99999</MDI></Metadata></PAMRasterBand></PAMDataset>"""
    )
    return path


def with_json(folder: Path) -> Path:
    text = """<VRTDataset rasterXSize="40" rasterYSize="30">
      <Metadata domain="json:ISIS3" format="json">{"a": {"b": [1, 2]}, "c=d": "x:y &lt;"}</Metadata>
      <VRTRasterBand dataType="Byte" band="1"/></VRTDataset>"""
    return translate(text, folder / "json.tif", copy_src_mdd="YES")


def vrt_of(path: Path) -> str:
    with rasterio.io.MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(path, memory.name, driver="VRT")
        return str(memory.read().decode())


def translate(source: str, path: Path, **options: Any) -> Path:
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, path, driver="GTiff", **options)
    return path
