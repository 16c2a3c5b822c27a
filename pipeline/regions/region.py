"""Declare the protocol of regions: a mask, or an area of interest."""

from __future__ import annotations

from typing import Protocol

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.tiling.grid import Span, TileGrid


class Region(Protocol):
    """A part of a scene in which alone anything may change, with a soft border."""

    def soft(self, span: Span) -> Float:
        """Return the weight of the restoration in a window: 0 outside, 1 well inside, ``(height, width)``."""
        ...

    def touched_cells(self, grid: TileGrid) -> Bool:
        """Mark the cells of a grid with a pixel that may change, of the shape of `TileGrid.cells`."""
        ...
