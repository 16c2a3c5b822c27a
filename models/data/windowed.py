"""An image that stays on disk: crops are read of it as they are drawn, because it is too large to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from decr_scene.models.arrays import Float
from decr_scene.models.data.crops import area_reduced

OVERVIEW_SIDE = 256
"""Shorter side of the overview, px, that the tone of a large pair is fitted on."""


class Raster(Protocol):
    """An image that is read by window."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return bands, height and width."""
        ...

    def read(self, row: int, col: int, height: int, width: int) -> Float:
        """Read a window, ``(C, height, width)`` in [-1, 1]."""
        ...

    def overview(self, height: int, width: int) -> Float:
        """Average the whole image to ``(C, height, width)``."""
        ...


@dataclass(frozen=True)
class WindowedImage:
    """An image on disk that slices like an array of ``(C, H, W)``; every slice is read anew.

    Args:
        raster: The file.
        bands: Bands to take, 0-based; ``None``: all.
        factor: Pixels averaged a side.
    """

    raster: Raster
    bands: tuple[int, ...] | None = None
    factor: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return bands, height and width."""
        bands, height, width = self.raster.shape
        return (
            bands if self.bands is None else len(self.bands),
            height // self.factor,
            width // self.factor,
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Float:
        (top, bottom, _), (left, right, _) = (
            part.indices(side) for part, side in zip(place[1:], self.shape[1:], strict=True)
        )
        f = self.factor
        pixels = self.raster.read(top * f, left * f, (bottom - top) * f, (right - left) * f)
        return area_reduced(self._chosen(pixels), f)[place[0]]

    def overview(self) -> Float:
        """Read all of it, small, ``(C, height, width)``."""
        height, width = self.raster.shape[1:]
        factor = max(1, min(height, width) // OVERVIEW_SIDE)
        return self._chosen(self.raster.overview(height // factor, width // factor))

    def _chosen(self, pixels: Float) -> Float:
        return pixels if self.bands is None else pixels[list(self.bands)]
