"""Where tasks get their pixels: a file that every worker opens for itself, or an array that Dask hands in."""

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
        bands: What its bands are, where the file does not say or is wrong.
    """

    path: str
    bands: str | None = None

    @property
    def nodata(self) -> float | None:
        """The value that no valid pixel may take."""
        return self._scene.nodata

    def read(self, span: Span) -> Pixels:
        """``(bands, height, width)`` digital numbers."""
        return _reader(os.getpid()).submit(self._scene.read, span.window).result()

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Which of the pixels just read are valid, same shape."""
        return _reader(os.getpid()).submit(self._scene.valid, span.window, pixels).result()

    @property
    def _scene(self) -> RasterioScene:
        return RasterioScene.open(self.path, self.bands)


@lru_cache(maxsize=1)
def _reader(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that reads: GDAL decodes a block once for each thread that asks for it."""
    return ThreadPoolExecutor(1, thread_name_prefix="decr-scene-reader")


@dataclass(frozen=True)
class ArraySource:
    """A part of a scene in memory.

    Args:
        span: Which part.
        pixels: ``(bands, height, width)`` digital numbers of it.
        nodata: The nodata value, if there is one.
        alpha: 0-based position of the alpha band, if there is one.
    """

    span: Span
    pixels: Pixels
    nodata: float | None = None
    alpha: int | None = None

    def read(self, span: Span) -> Pixels:
        """``(bands, height, width)`` digital numbers."""
        return self.pixels[(slice(None), *span.inside(self.span))]

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Everything but nodata, NaN, infinities and an alpha of 0, same shape."""
        valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
        valid &= ~is_nodata(pixels, self.nodata)
        if self.alpha is not None:
            valid &= pixels[self.alpha] != 0
            valid[self.alpha] = True
        return valid


class Source(Protocol):
    """Where pixels come from."""

    @property
    def nodata(self) -> float | None:
        """The value that no valid pixel may take."""
        ...

    def read(self, span: Span) -> Pixels:
        """``(bands, height, width)`` digital numbers."""
        ...

    def valid(self, span: Span, pixels: Pixels) -> Bool:
        """Which of the pixels just read are neither nodata nor masked, same shape."""
        ...
