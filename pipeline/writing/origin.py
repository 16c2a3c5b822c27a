"""What a writer copies from: everything of an output but its pixels, and what is valid among those."""

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
    """Where a writer takes everything but the pixels from."""

    @property
    def source(self) -> str | None:
        """The file whose pixels are written again, changed or not, if there is one."""

    @property
    def place(self) -> tuple[CRS | None, Affine]:
        """CRS, and pixel to CRS, for the scratch file."""

    def env(self) -> AbstractContextManager[Any]:
        """GDAL's settings while it is written."""

    def check(self, output: Path) -> None:
        """Refuse what cannot be written, and an output that is one of its own files.

        Raises:
            OutputError: The output is a file of the input.
            SceneError: It has something that a GeoTIFF cannot say.
        """

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """What counts in the statistics of ``(C, h, w)`` pixels; ``None``: all."""

    def compression(self, asked: str) -> dict[str, str]:
        """Creation options of the compression that is asked for."""

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the output over the file that has its pixels; as `copy_vrt`."""


@dataclass(frozen=True)
class _OfScene:
    """Size, place and surroundings of a scene."""

    scene: RasterioScene

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``, px."""
        return self.scene.shape

    @property
    def place(self) -> tuple[CRS | None, Affine]:
        """CRS, and pixel to CRS."""
        return self.scene.crs, self.scene.transform

    def env(self) -> AbstractContextManager[Any]:
        """GDAL's settings for the scene."""
        return gdal_env(self.scene)


@dataclass(frozen=True)
class CopyOf(_OfScene):
    """The same bands as a scene, with everything else that it has.

    Args:
        scene: The scene.
    """

    @property
    def count(self) -> int:
        """Bands."""
        return self.scene.count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of all bands."""
        return self.scene.dtype

    @property
    def source(self) -> str | None:
        """The scene's file."""
        return self.scene.path

    def check(self, output: Path) -> None:
        """As `Origin.check`."""
        with self.scene.dataset() as dataset:
            check_representable(dataset)
            if any(is_same_file(name, output) for name in dataset.files):
                raise OutputError(f"{output} is a file of the input: choose another name for the output")

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """What the scene takes for valid."""
        return None if self.scene.always_valid else self.scene.valid(span.window, pixels)

    def compression(self, asked: str) -> dict[str, str]:
        """``auto``: as the scene, where that is lossless."""
        with self.scene.dataset() as dataset:
            stored = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
            return lossless(asked, stored, has_palette(dataset))

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the copy."""
        with self.scene.dataset() as dataset:
            return copy_vrt(dataset, pixels, blocksize, statistics, resampling)


@dataclass(frozen=True)
class Companion(_OfScene):
    """What is written beside a scene, pixel for pixel: other bands of another dtype in the same place.

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
        """New bands."""
        return len(self.bands)

    @property
    def source(self) -> str | None:
        """Nothing: the pixels are new."""
        return None

    def check(self, output: Path) -> None:
        """Refuse nothing: new bands can be written, and not over the scene, as its own writer sees to."""

    def valid(self, span: Span, pixels: Pixels) -> Bool | None:
        """What is neither nodata nor infinite."""
        valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else None
        if self.nodata is None or np.isnan(self.nodata):
            return valid
        differs = ~is_nodata(pixels, self.nodata)
        return differs if valid is None else valid & differs

    def compression(self, asked: str) -> dict[str, str]:
        """``auto``: deflate."""
        return lossless(asked, "DEFLATE", bool(self.colors))

    def vrt(
        self, pixels: str, blocksize: int, statistics: Sequence[Tags], resampling: str
    ) -> tuple[str, int]:
        """Describe the new bands."""
        bands = NewBands(self.bands, self.dtype.name, self.nodata, self.colors)
        with self.scene.dataset() as dataset:
            return new_vrt(dataset, bands, dict(self.tags), pixels, blocksize, statistics)
