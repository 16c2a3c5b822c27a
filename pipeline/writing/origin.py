"""Describe the origin of an output: everything but its pixels, and which of those are valid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from decr_scene.models.arrays import Bool, Pixels
from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.files import is_same_file
from decr_scene.pipeline.raster.nodata import is_nodata
from decr_scene.pipeline.raster.scene import Raster, RasterioScene, gdal_env
from decr_scene.pipeline.raster.vrt import NewBands, Tags, check_representable, copy_vrt, new_vrt
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.cog import has_palette, lossless


class Origin(Raster, Protocol):
    """Source of everything in an output but the pixels."""

    @property
    def source(self) -> str | None:
        """Return the file whose pixels are written again, changed or not, if there is one."""

    @property
    def place(self) -> tuple[CRS | None, Affine]:
        """Return CRS, and pixel to CRS, for the scratch file."""

    def env(self) -> AbstractContextManager[Any]:
        """Return GDAL's settings while it is written."""

    def check(self, output: Path) -> None:
        """Refuse a scene that a GeoTIFF cannot represent, and an output that is one of its own files.

        Raises:
            OutputError: The output is a file of the input.
            SceneError: A GeoTIFF cannot represent it.
        """

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """Mark what counts in the statistics of ``(C, h, w)`` pixels, same shape, or ``None`` if all do."""

    def compression(self, requested: str) -> dict[str, str]:
        """Return creation options of the requested compression."""

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the output over the file of its pixels, as `copy_vrt` does."""


@dataclass(frozen=True)
class _OfScene:
    """Size, place and surroundings of a scene."""

    scene: RasterioScene

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(height, width)``, px."""
        return self.scene.shape

    @property
    def place(self) -> tuple[CRS | None, Affine]:
        """Return CRS, and pixel to CRS."""
        return self.scene.crs, self.scene.transform

    def env(self) -> AbstractContextManager[Any]:
        """Return GDAL's settings for the scene."""
        return gdal_env(self.scene)


@dataclass(frozen=True)
class CopyOf(_OfScene):
    """The same bands as a scene, with everything else that it has.

    Args:
        scene: The scene.
    """

    @property
    def count(self) -> int:
        """Return the number of bands."""
        return self.scene.count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of all bands."""
        return self.scene.dtype

    @property
    def source(self) -> str | None:
        """Return the scene's file."""
        return self.scene.path

    def check(self, output: Path) -> None:
        """Check as `Origin.check`."""
        with self.scene.dataset() as dataset:
            check_representable(dataset)
            if any(is_same_file(name, output) for name in dataset.files):
                raise OutputError(f"{output} is a file of the input: choose another name for the output")

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """Mark the pixels that the scene has as valid, ``(C, h, w)``."""
        return None if self.scene.always_valid else self.scene.valid(span.window, pixels)

    def compression(self, requested: str) -> dict[str, str]:
        """Return creation options, with ``auto`` as the scene where that is lossless."""
        with self.scene.dataset() as dataset:
            stored = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
            return lossless(requested, stored, has_palette(dataset))

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the copy."""
        with self.scene.dataset() as dataset:
            return copy_vrt(dataset, pixels, blocksize, statistics, resampling)


@dataclass(frozen=True)
class Companion(_OfScene):
    """New bands of another dtype on the grid of a scene.

    Args:
        scene: The scene, for its size and georeferencing: CRS, transform, GCPs, RPCs.
        bands: Descriptions of the new bands.
        dtype: Of all of them.
        nodata: Of all of them.
        tags: For the default domain.
        colors: Colour table of a single band of classes: ``(red, green, blue, alpha)`` of 0, 1, ...
    """

    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None = None
    tags: tuple[tuple[str, str], ...] = ()
    colors: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def count(self) -> int:
        """Return the number of new bands."""
        return len(self.bands)

    @property
    def source(self) -> str | None:
        """Return ``None``: the pixels are new."""
        return None

    def check(self, output: Path) -> None:
        """Refuse nothing: a GeoTIFF can represent new bands, and `check_target` keeps the scene."""

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """Mark the pixels that are neither nodata nor infinite, ``(C, h, w)``."""
        valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else None
        if self.nodata is None or np.isnan(self.nodata):
            return valid
        differs = ~is_nodata(pixels, self.nodata)
        return differs if valid is None else valid & differs

    def compression(self, requested: str) -> dict[str, str]:
        """Return creation options, with ``auto`` as deflate."""
        return lossless(requested, "DEFLATE", bool(self.colors))

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the new bands."""
        bands = NewBands(self.bands, self.dtype.name, self.nodata, self.colors)
        with self.scene.dataset() as dataset:
            return new_vrt(dataset, bands, dict(self.tags), pixels, blocksize, statistics)
