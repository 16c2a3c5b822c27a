"""Read images for training and evaluation: any raster GDAL knows, scaled as a scene, whole or by window."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as to_crs
from rasterio.windows import Window

from decr_scene.models.arrays import Bool, Double, Float, Pixels
from decr_scene.models.errors import DecrSceneError, TrainingError
from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import Fit, fit_radiometry, may_be_veiled, white_places
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import (
    Georeferencing,
    datum_of,
    full_turn,
    georeferencing_of,
    pixel_of,
)
from decr_scene.pipeline.tiling.grid import reduced_shape

SAMPLE_SIDE = 1024
"""Longest side of the decimated read that the scaling of a large raster is fitted to, px."""

WHOLE_PIXEL = 0.999
"""How far pixels of a pair may not be off each other, px; grids of two dates may be by a part of it."""

MODERN, OLD = 3.0, 1000.0
"""How far coordinates of two datums may be off each other, m: both as satellites measure, or one older."""

POINTS = "ground control points"
"""How a place is known where there is no transform."""

DOUBTFUL = 3.0
"""Contradiction of GCPs, px, from which on they tell nothing of single pixels; below, thrice it may be."""

_UNKNOWN = (RasterioError, CPLE_BaseError, ValueError, ArithmeticError)

_NOTHING = "all of it is nodata or not a number, expected an image"

PICTURES = frozenset({"PNG", "WEBP", "JPEG"})
"""Formats whose alpha channel is never a band."""


def read_image(path: Path, like: Path | None = None) -> Float:
    """Read any raster GDAL knows as ``(C, H, W)`` in [-1, 1], scaled as a scene.

    Args:
        path: The image.
        like: The scene whose scaling is used, as that of the cloudy image for the clear one of a pair;
            ``None``, or one of other bands or another dtype: its own.

    Raises:
        DecrSceneError: One of them cannot be opened or read, they are of different places, or one has no
            valid pixel.
    """
    own = _whole(path)
    if not own.valid.any():
        raise SceneReadError(f"{path}: {_NOTHING}")
    scene = own if like is None or like == path else _whole(like)
    if not scene.valid.any():
        raise SceneReadError(f"{like}: {_NOTHING}")
    _check_place(path, own.place, like, scene.place)
    if scene.pixels.dtype != own.pixels.dtype or len(scene.pixels) != len(own.pixels):
        scene = own
    return scene.radiometry().to_model(own.pixels, own.valid)


def read_restored(path: Path, cloudy: Path) -> Float:
    """Read what a run made of an image, ``(C, H, W)`` in [-1, 1], scaled as that image is by `read_image`.

    Args:
        path: The restored one, with all bands of the file it was made of.
        cloudy: That file; a picture's alpha channel, which is no band of it, is left out of both.

    Raises:
        DecrSceneError: One of them cannot be opened or read.
    """
    with _opened(cloudy) as (scene, bands):
        radiometry = _all_of(scene, bands).radiometry()
    own = _whole(path)
    return radiometry.to_model(own.pixels[bands], own.valid[bands])


class _Place(NamedTuple):
    """Where an image lies: its coordinates, and the box of its pixels (columns before rows) where they hold.

    ``doubt`` is how far pixels may lie off them, px; ``by`` names them.
    """

    scene: RasterioScene
    coordinates: Georeferencing
    left_top: Double
    right_bottom: Double
    doubt: float = 0.0
    by: str = "its coordinates"

    @property
    def crs(self) -> CRS:
        """Return the CRS of the coordinates."""
        return self.coordinates.crs

    @property
    def turn(self) -> float:
        """Return what once around the globe is, from left to right."""
        return full_turn(self.crs) if self.crs.is_geographic else math.inf

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Return left, bottom, right and top, in units of the CRS."""
        corners = self.coordinates.to_coordinates(_spread(self.left_top, self.right_bottom))
        return (*corners.min(axis=0), *corners.max(axis=0))

    def is_apart(self, other: _Place) -> bool:
        """Return whether two places have nothing in common; of two CRS or by points it is not told."""
        if self.crs != other.crs or self.by != other.by or self.by == POINTS:
            return False
        left, bottom, right, top = self.bounds
        other_left, other_bottom, other_right, other_top = other.bounds
        to_the_right, to_the_left = other_left - left, left - other_left
        beside = (
            to_the_right % self.turn >= right - left and to_the_left % self.turn >= other_right - other_left
        )
        return beside or top <= other_bottom or other_top <= bottom

    def pixels_off(self, other: _Place) -> float:
        """Return how far a pixel of the other may be off that of the same row and column here, px.

        0 for less than `WHOLE_PIXEL`, for two sizes, and where that is not known.
        """
        left_top = np.maximum(self.left_top, other.left_top)
        right_bottom = np.minimum(self.right_bottom, other.right_bottom)
        if self.scene.shape != other.scene.shape or (left_top >= right_bottom).any():
            return 0.0
        with suppress(*_UNKNOWN):
            off = float(np.abs(self._off(_spread(left_top, right_bottom), other)).max())
            is_known = off - self.doubt - other.doubt - self._doubt_of_datum(other) >= WHOLE_PIXEL
            return off if is_known and math.isfinite(off) else 0.0
        return 0.0

    def _off(self, pixels: Double, other: _Place) -> Double:
        """Return columns and rows that pixels of the other are off, ``(n, 2)``."""
        here, there = self.coordinates.to_coordinates(pixels), other.coordinates.to_coordinates(pixels)
        if self.crs != other.crs:
            there = np.column_stack(to_crs(other.crs, self.crs, *there.T)[:2])
        if self.crs.is_geographic:
            there[:, 0] -= self.turn * np.round((there[:, 0] - here[:, 0]) / self.turn)
        return self.coordinates.to_pixels(there) - self.coordinates.to_pixels(here)

    def _doubt_of_datum(self, other: _Place) -> float:
        """Return how far apart two CRS may take one place to be, px."""
        if self.crs == other.crs or (one := datum_of(self.crs)) == (two := datum_of(other.crs)):
            return 0.0
        pixel = pixel_of(self.scene)
        return math.inf if pixel is None else (MODERN if one.is_modern and two.is_modern else OLD) / pixel


class _Bands(NamedTuple):
    """Pixels and validity, ``(C, H, W)`` each, names of the bands; whether a veil may lie over all; where."""

    pixels: Pixels
    valid: Bool
    names: list[str]
    veiled: bool
    place: _Place | None

    def radiometry(self) -> Radiometry:
        """Fit their scaling."""
        fit = Fit(white_places(self.names), veiled=self.veiled)
        return fit_radiometry(self.pixels.dtype, len(self.pixels), self.pixels, self.valid, fit)


@dataclass(frozen=True)
class RasterImage:
    """A raster too large for memory: windows and an overview, with one scaling for all of it.

    Args:
        path: The file.
        shape: Bands, height and width.
        like: The file whose scaling is used; ``None``: its own.
    """

    path: Path
    shape: tuple[int, int, int]
    like: Path | None = None

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> RasterImage:
        """Open the file, and the one whose scaling is used as in `read_image`.

        No pixels are read.

        Raises:
            DecrSceneError: One of them cannot be opened, or they are of different places.
        """
        with _opened(path) as (scene, bands):
            shape, dtype, place = (len(bands), *scene.shape), scene.dtype, _place_of(scene)
        if like is None or like == path:
            return cls(path, shape)
        with _opened(like) as (scene, bands):
            alike = len(bands) == shape[0] and scene.dtype == dtype
            _check_place(path, place, like, _place_of(scene))
        return cls(path, shape, like if alike else None)

    def read(self, row: int, col: int, height: int, width: int) -> Float:
        """Read a window, ``(C, height, width)`` in [-1, 1].

        Raises:
            TrainingError: The file is missing, or the window cannot be decoded.
        """
        window = Window(col_off=col, row_off=row, width=width, height=height)
        with _readable(self.path), _opened(self.path) as (scene, bands):
            pixels = scene.read(window)
            valid = scene.valid(window, pixels)
        return self.radiometry.to_model(pixels[bands], valid[bands])

    def overview(self, height: int, width: int) -> Float:
        """Average the whole image to ``(C, height, width)``, in [-1, 1].

        Raises:
            TrainingError: As `read`; or nothing of it is valid.
        """
        small = self._decimated((height, width), Resampling.average)
        if not small.valid.any():
            raise TrainingError(f"{self.path}: {_NOTHING} (looked at in {height} x {width} px)")
        return self.radiometry.to_model(small.pixels, small.valid)

    @cached_property
    def radiometry(self) -> Radiometry:
        """Return the scaling of the whole file, fitted to a decimated read."""
        if self.like is not None:
            return RasterImage.open(self.like).radiometry
        return self._decimated(reduced_shape(self.shape[1:], SAMPLE_SIDE), Resampling.nearest).radiometry()

    def _decimated(self, shape: tuple[int, int], resampling: Resampling) -> _Bands:
        with _readable(self.path), _opened(self.path) as (scene, bands):
            pixels, valid = scene.decimated(shape, resampling)
            return _bands_of(scene, bands, pixels, valid)


def band_roles(path: Path) -> tuple[str, ...]:
    """Name the bands of a raster by descriptions, else colours, or none if it cannot be opened."""
    try:
        with _opened(path) as (scene, bands):
            return tuple(scene.bands[band] for band in bands)
    except DecrSceneError:
        return ()


def has_alpha(path: Path) -> bool:
    """Return whether a picture has an alpha channel, which is no band of it here.

    Raises:
        DecrSceneError: It cannot be opened.
    """
    with _opened(path) as (scene, bands):
        return len(bands) < len(scene.bands)


def _whole(path: Path) -> _Bands:
    """Read an image."""
    with _opened(path) as (scene, bands):
        return _all_of(scene, bands)


def _all_of(scene: RasterioScene, bands: list[int]) -> _Bands:
    window = Window(col_off=0, row_off=0, width=scene.shape[1], height=scene.shape[0])
    pixels = scene.read(window)
    return _bands_of(scene, bands, pixels, scene.valid(window, pixels))


def _bands_of(scene: RasterioScene, bands: list[int], pixels: Pixels, valid: Bool) -> _Bands:
    names = [scene.bands[band] for band in bands]
    veiled = may_be_veiled(pixel_of(scene), scene.shape)
    return _Bands(pixels[bands], valid[bands], names, veiled, _place_of(scene))


def _place_of(scene: RasterioScene) -> _Place | None:
    """Return where a scene lies by its transform or by GCPs alone; ``None``: it is not known."""
    with suppress(*_UNKNOWN):
        is_placed = scene.is_placed and tuple(map(abs, scene.transform[:6])) != (1, 0, 0, 0, 1, 0)
        if is_placed and not scene.transform.is_degenerate:
            coordinates, size = georeferencing_of(scene), np.array(scene.shape[::-1], np.float64)
            return None if coordinates is None else _Place(scene, coordinates, np.zeros(2), size)
        with scene.dataset() as dataset:
            points, crs = dataset.gcps
        coordinates = georeferencing_of(scene) if points and crs is not None else None
        return None if coordinates is None else _place_by_points(scene, coordinates, points)
    return None


def _place_by_points(scene: RasterioScene, coordinates: Georeferencing, points: list[Any]) -> _Place | None:
    """Return where GCPs place a scene: in doubt by what they contradict each other, and only among them.

    ``None``: they are so few that the fit, of 3 coefficients up to 9 points and of 6 from then on, goes
    through wrong ones, too; or it is far off some.
    """
    if len(points) < (6 if len(points) < 10 else 12) or pixel_of(scene) is None:
        return None
    pixels = np.array([(point.col, point.row) for point in points])
    found = coordinates.to_pixels(np.array([(point.x, point.y) for point in points]))
    there_and_back = coordinates.to_pixels(coordinates.to_coordinates(pixels))  # fits of their own
    doubt = float(np.abs([found - pixels, there_and_back - pixels]).max())
    ends = (pixels.min(axis=0), pixels.max(axis=0))
    left_top, right_bottom = (np.clip(end, 0, scene.shape[::-1]) for end in ends)
    if not doubt < DOUBTFUL:
        return None
    return _Place(scene, coordinates, left_top, right_bottom, 3 * doubt, POINTS)


def _spread(left_top: Double, right_bottom: Double) -> Double:
    """Return the corners of a box, the middles of its sides and its own, ``(9, 2)``."""
    steps = np.stack(np.meshgrid([0, 0.5, 1], [0, 0.5, 1]), axis=-1).reshape(-1, 2)
    return left_top + steps * (right_bottom - left_top)


def _check_place(path: Path, own: _Place | None, like: Path | None, other: _Place | None) -> None:
    """Refuse an image of a pair whose pixels show other ground than the other one's, by coordinates."""
    if own is None or other is None:
        return
    if own.is_apart(other):
        (left, _, _, top), (other_left, _, _, other_top) = own.bounds, other.bounds
        raise SceneReadError(
            f"{path}: it lies at {left:.10g}, {top:.10g} and {like} at {other_left:.10g}, "
            f"{other_top:.10g} (left, top), with no ground in common"
        )
    if off := own.pixels_off(other):
        by = POINTS if POINTS in (own.by, other.by) else own.by
        here, there = (place.crs.to_string()[:60] for place in (own, other))
        grids = f" (it is in {here}, that one in {there})" if own.crs != other.crs else ""
        raise SceneReadError(
            f"{path}: by {by} it lies {off:.4g} px off {like}, on another grid{grids}, expected the same "
            "ground in every pixel: lay one on the other's grid with gdalwarp, or take away wrong coordinates"
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[RasterioScene, list[int]]]:
    """Open a raster, and yield it with its bands (0-based), without the alpha channel of a picture."""
    with warnings.catch_warnings():
        # training images need no georeferencing
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with RasterioScene.open(path) as scene:
            with scene.dataset() as dataset:
                picture = dataset.driver in PICTURES
            bands = [i for i, name in enumerate(scene.bands) if name != "alpha" or not picture]
            yield scene, bands


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except SceneReadError as error:
        raise TrainingError(f"{path}: it cannot be read: {error}") from error
