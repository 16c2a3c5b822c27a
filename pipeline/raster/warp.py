"""Read another raster on the pixels of a scene: by coordinates, or pixel on pixel where either has none.

And tell where these are, by transform, GCPs or RPCs, and how large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine, GCPTransformer, RPCTransformer
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as to_crs

from decr_scene.models.arrays import Bool, Double, Pixels
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span

BASE = 64
"""Pixels, at most, over which the size of one is measured, in the middle of the scene."""

METRES_A_DEGREE = 111_320.0

WGS_84 = 6_378_137.0
"""Semi-major axis of that ellipsoid and of GRS 1980, m."""

COARSEST = 10_000.0
"""Side of the coarsest pixels, m: one of Greenwich among GCPs in UTM makes a megametre."""

TRUE_SCALE = 0.01
"""By how much of a side a map may stretch it and still say its length: UTM stretches by up to .001."""

ELSEWHERE = (
    "lies elsewhere than the scene, by its coordinates and the scene's GCPs or RPCs: choose another, or take "
    "its coordinates away, so that it is laid on pixel by pixel"
)
"""What is said of a raster that `lies_elsewhere`."""

EDGE = 9
"""Points along each side of a raster by which it is told where it lies on a scene."""

_LONGITUDE_LATITUDE = CRS.from_epsg(4326)

Map = Callable[[Double], Double]


class Georeferencing(NamedTuple):
    """Convert between coordinates and pixels of a scene.

    Both maps take and return ``(n, 2)``, x before y. Of pixels x is the column and y the row, from the outer
    corner of the scene.
    """

    crs: CRS
    to_pixels: Map
    to_coordinates: Map


def georeferencing_of(scene: RasterioScene) -> Georeferencing | None:
    """Return the georeferencing of a scene, or ``None`` if it has none.

    RPCs are taken at their mean height.
    """
    if scene.crs is not None and scene.is_placed and not scene.transform.is_degenerate:
        to_ground, to_grid = scene.transform, ~scene.transform
        return Georeferencing(
            scene.crs,
            lambda xy: np.column_stack(to_grid @ (xy[:, 0], xy[:, 1])),
            lambda pixels: np.column_stack(to_ground @ (pixels[:, 0], pixels[:, 1])),
        )
    with scene.dataset() as dataset:
        (points, points_crs), rpcs = dataset.gcps, dataset.rpcs
    if points and points_crs is not None:
        return _by(GCPTransformer(points), points_crs)
    if rpcs is not None:
        return _by(RPCTransformer(rpcs, RPC_HEIGHT=rpcs.height_off), CRS.from_epsg(4326))
    return None


def ground_size(scene: RasterioScene) -> float | None:
    """Measure the side of a pixel on the ground, in the middle of a scene.

    Any unit and projection, GCPs and RPCs; the stretch of a Mercator map is taken out.

    Returns:
        Square root of its area, m; ``None``: the scene does not say where it is.
    """
    height, width = scene.shape
    base = max(1, min(BASE, height - 1, width - 1))
    row, col = (height - base) / 2, (width - base) / 2
    corners = np.array([(col, row), (col + base, row), (col, row + base)])
    with suppress(RasterioError, CPLE_BaseError, ValueError, ArithmeticError):
        georeferencing = georeferencing_of(scene)
        if georeferencing is None:
            return None
        x, y = georeferencing.to_coordinates(corners).T
        side = side_on_ground(georeferencing.crs, x, y)
        return None if side is None else side / base
    return None


def pixel_of(scene: RasterioScene) -> float | None:
    """Return the side of a scene's pixel, m: as `pixel_size` by its grid, else by its GCPs or RPCs.

    ``None``: it has neither, or they make no sense.
    """
    if side := pixel_size(scene.crs, scene.transform, scene.shape):
        return side
    side = ground_size(scene)
    return side if side is not None and side < COARSEST else None


def pixel_size(crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> float | None:
    """Return the side of a scene's pixel, m, square root of its area.

    By the units of the CRS; where its map stretches more than `TRUE_SCALE`, as Web Mercator far from the
    equator, on the ground in the middle of the scene.

    ``None``: it is not georeferenced, or wrongly, by pixels without an area.
    """
    side = float(np.sqrt(abs(transform.determinant)))
    if crs is None or transform.is_identity or not 0 < side < np.inf:
        return None
    if crs.is_geographic:
        _, latitude = transform @ (shape[1] / 2, shape[0] / 2)
        return side * METRES_A_DEGREE * float(np.sqrt(np.cos(np.radians(min(85.0, abs(latitude))))))
    if not crs.is_projected:
        return side
    told = side * float(crs.linear_units_factor[1])
    row, col = shape[0] / 2, shape[1] / 2
    x, y = transform @ (np.array([col, col + 1, col]), np.array([row, row, row + 1]))
    found = side_on_ground(crs, x, y)
    return told if found is None or abs(found / told - 1) <= TRUE_SCALE else found


def full_turn(crs: CRS) -> float:
    """Return a turn about the earth's axis in the units of a geographic CRS, 360 of degrees."""
    return 2 * math.pi / float(crs.units_factor[1])


class Datum(NamedTuple):
    """What the coordinates of a CRS refer to; a modern one has the ellipsoid of WGS 84 or nearly so."""

    name: str
    is_modern: bool


def datum_of(crs: CRS) -> Datum:
    """Return the datum of a CRS, without a name if it has none."""
    described = crs.to_dict(projjson=True)
    while inner := described.get("source_crs") or described.get("base_crs") or described.get("components"):
        described = inner[0] if isinstance(inner, list) else inner
    found = described.get("datum") or described.get("datum_ensemble") or {}
    axis = found.get("ellipsoid", {}).get("semi_major_axis", 0)
    return Datum(str(found.get("name", "")).removesuffix(" ensemble"), axis == WGS_84)


def side_on_ground(crs: CRS, x: Double, y: Double) -> float | None:
    """Measure the side of a small square on the ground.

    Args:
        crs: Of the coordinates.
        x: Of three of its corners, from the first of which two sides go.
        y: Likewise.

    Returns:
        Square root of its area, m; ``None``: these coordinates have no place there.
    """
    with suppress(RasterioError, CPLE_BaseError, ValueError, ArithmeticError):
        if not np.isfinite([x, y]).all():
            return None
        longitudes, latitudes = np.radians(to_crs(crs, _LONGITUDE_LATITUDE, x, y)[:2])
        # on the ellipsoid of WGS 84, from its centre, so that poles and antimeridian are like other places
        upright = WGS_84 / np.sqrt(1 - 0.00669438 * np.sin(latitudes) ** 2)
        off_axis = upright * np.cos(latitudes)
        along_axis = upright * (1 - 0.00669438) * np.sin(latitudes)
        corners = np.stack([off_axis * np.cos(longitudes), off_axis * np.sin(longitudes), along_axis], axis=1)
        side = math.sqrt(np.linalg.norm(np.cross(*(corners[1:] - corners[0]))))
        return side if math.isfinite(side) and side > 0 else None
    return None


def _by(transformer: GCPTransformer | RPCTransformer, crs: CRS) -> Georeferencing:
    def to_pixels(xy: Double) -> Double:
        rows, cols = transformer.rowcol(xy[:, 0], xy[:, 1], op=np.asarray)
        return np.column_stack([cols, rows]).astype(np.float64)

    def to_coordinates(pixels: Double) -> Double:
        return np.column_stack(transformer.xy(pixels[:, 1], pixels[:, 0], offset="ul"))

    return Georeferencing(crs, to_pixels, to_coordinates)


def lies_elsewhere(source: Any, scene: RasterioScene) -> bool:
    """Return whether an open raster that has coordinates lies apart from a scene that has GCPs or RPCs alone.

    Such a raster is laid on the scene pixel on pixel, which its coordinates may belie.
    """
    if scene.crs is not None or source.crs is None or source.transform.is_identity:
        return False
    place = georeferencing_of(scene)
    if place is None:
        return False
    steps = np.linspace(0, 1, EDGE)
    rows, cols = np.meshgrid(steps * source.height, steps * source.width)
    x, y = source.transform @ (cols.ravel(), rows.ravel())
    with suppress(RasterioError, CPLE_BaseError, ValueError, ArithmeticError):
        there = np.column_stack(to_crs(source.crs, place.crs, x, y)[:2])
        turn = full_turn(place.crs) if place.crs.is_geographic else 0
        turned = [there + np.array([shift, 0.0]) for shift in ((0, -turn, turn) if turn else (0,))]
        return not any(_touches(place.to_pixels(xy), scene.shape) for xy in turned)
    return False


def _touches(pixels: Double, shape: tuple[int, int]) -> bool:
    """Return whether a box around points ``(n, 2)``, x before y, meets a scene."""
    known = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(known):
        return False
    (left, top), (right, bottom) = known.min(axis=0), known.max(axis=0)
    return bool(right > 0 and bottom > 0 and left < shape[1] and top < shape[0])


def misfit(source: Any, scene: RasterioScene) -> str | None:
    """Return why an open raster cannot be read on the grid of a scene, or ``None`` if it can."""
    if _both_georeferenced(source, scene) or source.shape == scene.shape:
        return None
    return (
        f"is {source.shape} px, scene {scene.shape}, and not both are georeferenced: "
        "make it of the scene's size, or georeference it"
    )


def read_on_grid(
    source: Any, scene: RasterioScene, span: Span, bands: list[int], resampling: Resampling
) -> tuple[Pixels, Bool]:
    """Read an open raster on the pixels of a window of a scene.

    Args:
        source: The raster; `misfit` has accepted it.
        scene: The scene.
        span: The window.
        bands: 1-based.
        resampling: Of the warp, where there is one.

    Returns:
        ``(C, h, w)`` pixels, and where all bands are valid, ``(h, w)``.
    """
    if not _both_georeferenced(source, scene) or _has_its_pixels(source, scene, resampling):
        window = span.window
        return source.read(bands, window=window), source.read_masks(bands, window=window).all(axis=0)
    values, valid = _warped(source, scene, span, bands, resampling, 0)
    if scene.crs is not None and scene.crs.is_geographic and source.crs.is_geographic:
        for shift in _turns_apart(source, scene.crs, scene.transform, span):
            if valid.all():
                break
            more, has_more = _warped(source, scene, span, bands, resampling, shift)
            values, valid = np.where(valid, values, more), valid | has_more
    return values, valid


def _warped(
    source: Any, scene: RasterioScene, span: Span, bands: list[int], resampling: Resampling, shift: float
) -> tuple[Pixels, Bool]:
    """Warp a raster that is moved along its longitudes to a window of a scene, as `read_on_grid`.

    Bands are warped by their nodata, each band's pixels for themselves: as one, GDAL takes a pixel for nodata
    only where all bands have it, and mixes what one of them has into its neighbours.
    """
    transform = scene.transform @ Affine.translation(span.col, span.row)
    grid = {"crs": scene.crs, "transform": transform, "width": span.width, "height": span.height}
    if shift:
        grid["src_transform"] = Affine.translation(shift, 0) @ source.transform
    grid |= {"resampling": resampling, "UNIFIED_SRC_NODATA": "NO"}
    has_alpha = ColorInterp.alpha in source.colorinterp
    values: dict[int, Pixels] = {}
    valid = np.ones((span.height, span.width), np.bool_)
    for nodata, numbers in _by_nodata(source, bands).items():
        opaque = nodata is None and not has_alpha
        with WarpedVRT(source, **grid, src_nodata=nodata, nodata=nodata, add_alpha=opaque) as vrt:
            values |= zip(numbers, vrt.read(numbers), strict=True)
            if nodata is not None:
                valid &= vrt.read_masks(numbers).all(axis=0)
            if has_alpha or opaque:
                valid &= vrt.read(vrt.colorinterp.index(ColorInterp.alpha) + 1) > 0
    return np.stack([values[number] for number in bands]), valid


def _by_nodata(source: Any, bands: list[int]) -> dict[float | None, list[int]]:
    """Group bands by their nodata, ``None`` where there is none that a pixel can have."""
    groups: dict[float | None, list[int]] = {}
    for number in bands:
        nodata = source.nodatavals[number - 1]
        if nodata is not None and math.isnan(nodata):
            nodata = math.nan  # one object, so that it is one key
        if nodata is not None and not in_dtype_range(nodata, source.dtypes[number - 1]):
            nodata = None
        groups.setdefault(nodata, []).append(number)
    return groups


def _turns_apart(source: Any, crs: CRS, transform: Affine, span: Span) -> list[float]:
    """Return by what, in whole turns, a raster of longitudes may be moved to meet a window of a scene.

    Between two datums PROJ brings longitudes into one turn, so there any may, where one leaves that turn.
    """
    turn = full_turn(source.crs)
    corners = np.array([(span.col, span.row), (span.right, span.row), (span.col, span.bottom)])
    corners = np.vstack([corners, (span.right, span.bottom)])
    longitudes = (transform @ tuple(corners.T))[0] / full_turn(crs) * turn
    low, high = longitudes.min(), longitudes.max()
    west, east = sorted((source.bounds.left, source.bounds.right))
    if source.crs != crs:
        leaves = max(-low, high, -west, east) > turn / 2
        return [turn, -turn] if leaves else []
    return [shift for shift in (turn, -turn) if low < east + shift and high > west + shift]


def _has_its_pixels(source: Any, scene: RasterioScene, resampling: Resampling) -> bool:
    """Return whether a warp would give back the pixels as they are, of a raster of one band."""
    same = (source.crs, source.transform, source.shape) == (scene.crs, scene.transform, scene.shape)
    return same and source.count == 1 and resampling == Resampling.nearest


def _both_georeferenced(source: Any, scene: RasterioScene) -> bool:
    return source.crs is not None and scene.crs is not None
