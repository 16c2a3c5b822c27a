"""Read images for training and evaluation: any raster GDAL knows, scaled as a scene, whole or by window."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.models.errors import DecrSceneError, TrainingError
from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import Fit, fit_radiometry, may_be_veiled, white_places
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import full_turn, pixel_size
from decr_scene.pipeline.tiling.grid import reduced_shape

SAMPLE_SIDE = 1024
"""Longest side of the decimated read that the scaling of a large raster is fitted to, px."""

WHOLE_PIXEL = 0.999
"""How far pixels of a pair may not be off each other, px; grids of two dates may be by a part of it."""

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
    """Where a georeferenced image lies, in units of its CRS: its grid, height and width, and its edges."""

    crs: CRS
    grid: Affine
    shape: tuple[int, int]
    left: float
    bottom: float
    right: float
    top: float

    @property
    def turn(self) -> float:
        """Return what once around the globe is, from left to right."""
        return full_turn(self.crs) if self.crs.is_geographic else math.inf

    def is_apart(self, other: _Place) -> bool:
        """Return whether two places have nothing in common; of two CRS it is not told."""
        if self.crs != other.crs:
            return False
        to_the_right, to_the_left = other.left - self.left, self.left - other.left
        beside = (
            to_the_right % self.turn >= self.right - self.left
            and to_the_left % self.turn >= other.right - other.left
        )
        return beside or self.top <= other.bottom or other.top <= self.bottom

    def pixels_off(self, other: _Place) -> float:
        """Return how far a pixel of the other may be off that of the same row and column here, px.

        0 for two CRS or two sizes.
        """
        if self.crs != other.crs or self.shape != other.shape:
            return 0.0
        height, width = self.shape
        to_pixels, corners = ~self.grid, [(x, y) for x in (0, width) for y in (0, height)]
        return max(abs(v) for corner in corners for v in self._off(corner, other, to_pixels))

    def _off(self, corner: tuple[int, int], other: _Place, to_pixels: Affine) -> tuple[float, float]:
        """Return columns and rows that a corner of the other is off."""
        (x, y), (other_x, other_y) = self.grid @ corner, other.grid @ corner
        across, down = math.remainder(other_x - x, self.turn), other_y - y
        return to_pixels.a * across + to_pixels.b * down, to_pixels.d * across + to_pixels.e * down


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
    veiled = may_be_veiled(pixel_size(scene.crs, scene.transform, scene.shape), scene.shape)
    return _Bands(pixels[bands], valid[bands], names, veiled, _place_of(scene))


def _place_of(scene: RasterioScene) -> _Place | None:
    """Return where a scene lies; ``None``: it is not georeferenced."""
    if scene.crs is None or tuple(map(abs, scene.transform[:6])) == (1, 0, 0, 0, 1, 0):
        return None
    height, width = scene.shape
    corners = np.array([scene.transform @ (x, y) for x in (0, width) for y in (0, height)])
    return _Place(scene.crs, scene.transform, scene.shape, *corners.min(axis=0), *corners.max(axis=0))


def _check_place(path: Path, own: _Place | None, like: Path | None, other: _Place | None) -> None:
    """Refuse an image of a pair whose pixels show other ground than the other one's, by coordinates."""
    if own is None or other is None:
        return
    if own.is_apart(other):
        raise SceneReadError(
            f"{path}: it lies at {own.left:.10g}, {own.top:.10g} and {like} at {other.left:.10g}, "
            f"{other.top:.10g} (left, top), with no ground in common"
        )
    if (off := own.pixels_off(other)) >= WHOLE_PIXEL:
        raise SceneReadError(
            f"{path}: by its coordinates it lies {off:.4g} px off {like}, expected the same ground in every "
            "pixel: lay one on the other's grid with gdalwarp, or take away the coordinates if they are wrong"
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
