"""Images to train and measure on: any raster GDAL knows, scaled as a scene would be, whole or by window."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from decr_scene.models.errors import TrainingError
from decr_scene.pipeline.arrays import Float
from decr_scene.pipeline.raster.radiometry import Radiometry, fit_radiometry
from decr_scene.pipeline.raster.vrt import band_names

SAMPLE_SIDE = 1024
"""Longest side of the decimated read that the scaling of a large raster is fitted to, px."""

PICTURES = frozenset({"PNG", "WEBP", "JPEG"})
"""Formats whose alpha channel is never a band."""


def read_image(path: Path, like: Path | None = None) -> Float:
    """Read any raster GDAL knows as ``(C, H, W)`` in [-1, 1], with the scaling that a scene would get.

    Args:
        path: The image.
        like: The scene whose scaling it takes, as the clear image of a pair takes the cloudy one's; ``None``,
            or one of other bands or another dtype: its own.
    """
    pixels, valid = _pixels(path)
    scene = (pixels, valid) if like in (None, path) else _pixels(like)
    if scene[0].dtype != pixels.dtype or len(scene[0]) != len(pixels):
        scene = pixels, valid
    return fit_radiometry(pixels.dtype, len(pixels), *scene).to_model(pixels, valid)


@dataclass(frozen=True)
class RasterImage:
    """A raster too large to hold: windows and an overview, with one scaling for the whole of it.

    Args:
        path: The file.
        shape: Bands, height and width.
        like: The file whose scaling it takes; ``None``: its own.
    """

    path: Path
    shape: tuple[int, int, int]
    like: Path | None = None

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> RasterImage:
        """Look at the file, and at the one whose scaling it takes as in `read_image`; no pixels are read."""
        with _opened(path) as source:
            shape, dtypes = (len(_bands(source)), source.height, source.width), set(source.dtypes)
        if like in (None, path):
            return cls(path, shape)
        with _opened(like) as scene:
            alike = len(_bands(scene)) == shape[0] and set(scene.dtypes) == dtypes
        return cls(path, shape, like if alike else None)

    def read(self, row: int, col: int, height: int, width: int) -> Float:
        """A window, ``(C, height, width)`` in [-1, 1].

        Raises:
            TrainingError: The file has gone, or the window cannot be decoded.
        """
        window = Window(col_off=col, row_off=row, width=width, height=height)
        return self._scaled(window=window)

    def overview(self, height: int, width: int) -> Float:
        """The whole image, averaged to ``(C, height, width)``."""
        return self._scaled(out_shape=(height, width), resampling=Resampling.average)

    @cached_property
    def radiometry(self) -> Radiometry:
        """Of the whole file, from a decimated read."""
        if self.like is not None:
            return RasterImage.open(self.like).radiometry
        factor = max(1, -(-max(self.shape[1:]) // SAMPLE_SIDE))
        pixels, valid = self._read(out_shape=tuple(-(-side // factor) for side in self.shape[1:]))
        return fit_radiometry(pixels.dtype, len(pixels), pixels, valid)

    def _scaled(self, **how: Any) -> Float:
        pixels, valid = self._read(**how)
        return self.radiometry.to_model(pixels, valid)

    def _read(self, **how: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels and validity; the mask is decimated without averaging."""
        plain = {key: value for key, value in how.items() if key != "resampling"}
        if "out_shape" in how:
            shape = (self.shape[0], *how["out_shape"])
            how, plain = {**how, "out_shape": shape}, {**plain, "out_shape": shape}
        try:
            with _opened(self.path) as source:
                bands = _bands(source)
                return source.read(bands, **how), source.read_masks(bands, **plain) > 0
        except RasterioError as error:
            raise TrainingError(f"{self.path}: {how} cannot be read: {error}") from error


def band_descriptions(path: Path) -> tuple[str | None, ...]:
    """What a raster says that its bands are; nothing, if it cannot be opened."""
    try:
        with _opened(path) as source:
            return band_names(source)
    except RasterioError:
        return ()


def _pixels(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with _opened(path) as source:
        bands = _bands(source)
        return source.read(bands), source.read_masks(bands) > 0


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        # training images need no place on the ground
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            yield source


def _bands(source: Any) -> list[int]:
    """1-based bands without the alpha channel of a picture."""
    bands = list(source.indexes)
    if source.driver not in PICTURES:
        return bands
    return [b for b, meaning in zip(bands, source.colorinterp, strict=True) if meaning != ColorInterp.alpha]
