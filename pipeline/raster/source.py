"""Give tasks their pixels: from a file that every worker opens, or from an array that Dask passes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from decr_scene.models.arrays import Bool, Pixels
from decr_scene.pipeline.raster.nodata import is_nodata
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span


@dataclass(frozen=True)
class FileSource:
    """A raster by its path; the open file is kept by the scene's own cache, one a thread.

    Args:
        path: The file.
        bands: As ``--bands``, where the file does not name them or is wrong.
    """

    path: str
    bands: str | None = None

    @property
    def nodata(self) -> float | None:
        """Return the value that no valid pixel may have."""
        return self._scene.nodata

    def read(self, span: Span) -> Pixels:
        """Read digital numbers, ``(bands, height, width)``."""
        return _reader(os.getpid()).submit(self._scene.read, span.window).result()

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Mark the valid ones of the pixels just read, same shape."""
        return _reader(os.getpid()).submit(self._scene.valid, span.window, pixels).result()

    @property
    def _scene(self) -> RasterioScene:
        return RasterioScene.open(self.path, self.bands)


@lru_cache(maxsize=1)
def _reader(process: int) -> ThreadPoolExecutor:
    """Return the one reading thread of a process: GDAL decodes a block once for each thread."""
    return ThreadPoolExecutor(1, thread_name_prefix="decr-scene-reader")


@dataclass(frozen=True)
class ArraySource:
    """A part of a scene in memory.

    Args:
        span: Its window in the scene.
        pixels: ``(bands, height, width)`` digital numbers of it.
        nodata: The nodata value, if there is one.
        alpha: 0-based position of the alpha band, if there is one.
    """

    span: Span
    pixels: Pixels
    nodata: float | None = None
    alpha: int | None = None

    def read(self, span: Span) -> Pixels:
        """Read digital numbers, ``(bands, height, width)``."""
        return self.pixels[(slice(None), *span.inside(self.span))]

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Mark all but nodata, NaN, infinities and an alpha of 0, same shape."""
        valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
        valid &= ~is_nodata(pixels, self.nodata)
        if self.alpha is not None:
            valid &= pixels[self.alpha] != 0
            valid[self.alpha] = True
        return valid


class Source(Protocol):
    """A source of pixels."""

    @property
    def nodata(self) -> float | None:
        """Return the value that no valid pixel may have."""
        ...

    def read(self, span: Span) -> Pixels:
        """Read digital numbers, ``(bands, height, width)``."""
        ...

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Mark the pixels just read that are neither nodata nor masked, same shape."""
        ...
