"""Read and interpolate fields: small rasters of a whole scene, on coarse pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from decr_scene.models.arrays import Double, Float, Pixels
from decr_scene.pipeline.errors import MaskError


class Field(Protocol):
    """Bands on coarse pixels, each a whole block of a scene's."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(height, width)``, coarse pixels."""
        ...

    def read(self, rows: slice, cols: slice) -> Pixels:
        """Read a part of it, ``(C, h, w)``."""
        ...


@dataclass(frozen=True)
class FileField:
    """A field on disk; every worker opens its own handle.

    Args:
        path: The raster.
        shape: ``(height, width)``.
    """

    path: str
    shape: tuple[int, int]

    def read(self, rows: slice, cols: slice) -> Pixels:
        """Read a part of it, ``(C, rows, cols)``.

        Raises:
            MaskError: It cannot be read.
        """
        window = Window(
            col_off=cols.start,
            row_off=rows.start,
            width=cols.stop - cols.start,
            height=rows.stop - rows.start,
        )
        try:
            with rasterio.open(self.path) as source:
                return source.read(window=window)
        except RasterioError as error:
            raise MaskError(f"the look at the scene in {self.path} cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class ArrayField:
    """A field in memory.

    Args:
        values: ``(C, height, width)``.
    """

    values: Pixels

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(height, width)``."""
        return self.values.shape[1], self.values.shape[2]

    def read(self, rows: slice, cols: slice) -> Pixels:
        """Read a part of it, ``(C, rows, cols)``."""
        return self.values[:, rows, cols]


def interpolate(field: Field, rows: Double, cols: Double) -> Float:
    """Interpolate a field between its pixels, bilinearly.

    Beyond the outer ones it is constant.

    Args:
        field: The field.
        rows: Ascending positions, in coarse pixels from the top; the centre of the first is 0.5.
        cols: The same from the left.

    Returns:
        ``(C, len(rows), len(cols))``. A value does not depend on the other positions.
    """
    (up, down, low), (left, right, across) = (
        _neighbours(places, extent) for places, extent in zip((rows, cols), field.shape, strict=True)
    )
    part = field.read(slice(up[0], down[-1] + 1), slice(left[0], right[-1] + 1)).astype(np.float32)
    left, right = left - left[0], right - left[0]
    wide = part[..., left] * (1 - across) + part[..., right] * across
    low = low[:, None]
    return np.asarray(wide[:, up - up[0]] * (1 - low) + wide[:, down - up[0]] * low, np.float32)


def _neighbours(places: Double, extent: int) -> tuple[Pixels, Pixels, Float]:
    """Return the pixels before and after each place, and the weight of the latter, ``(n,)`` each."""
    centred = np.clip(np.asarray(places, np.float64) - 0.5, 0, extent - 1)
    before = np.floor(centred).astype(np.intp)
    return before, np.minimum(before + 1, extent - 1), (centred - before).astype(np.float32)
