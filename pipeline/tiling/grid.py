"""Place tiles on a scene: pure arithmetic on rows and columns, immutable values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from decr_scene.pipeline.defaults import OVERLAP


class Tile(NamedTuple):
    """One tile: its place in the grid and its first pixel in the scene."""

    number: int
    grid_row: int
    grid_col: int
    row: int
    col: int


class Span(NamedTuple):
    """Rows ``[row, row + height)`` and columns ``[col, col + width)`` of the scene, px."""

    row: int
    col: int
    height: int
    width: int

    @property
    def window(self) -> Window:
        """Return the span as a window of rasterio."""
        return Window(col_off=self.col, row_off=self.row, width=self.width, height=self.height)

    @property
    def bottom(self) -> int:
        """Return the first row below."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """Return the first column to the right."""
        return self.col + self.width

    def __and__(self, other: Span) -> Span:
        """Intersect both, with height or width 0 where they do not meet."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Span(row, col, max(0, bottom - row), max(0, right - col))

    def __or__(self, other: Span) -> Span:
        """Find the smallest span that holds both."""
        row, col = min(self.row, other.row), min(self.col, other.col)
        bottom, right = max(self.bottom, other.bottom), max(self.right, other.right)
        return Span(row, col, bottom - row, right - col)

    def inside(self, outer: Span) -> tuple[slice, slice]:
        """Return rows and columns of this span as slices of an array of ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True)
class TileGrid:
    """Cover a scene with overlapping square tiles, anchored at its origin.

    The last tile of a row or column moves inwards, so no tile sticks out, unless the scene itself is smaller
    than a tile: then there is one, cut to the scene.

    Args:
        shape: ``(height, width)`` of the scene, px.
        size: Side of a tile, px.
        overlap: Least overlap of neighbours, px, in ``[0, size / 2]``.

    Raises:
        ValueError: The scene is empty or ``overlap`` is out of range.
    """

    shape: tuple[int, int]
    size: int = 256
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a scene has at least 1 x 1 px, got {self.shape}")
        if not 0 <= self.overlap <= self.size // 2:
            raise ValueError(f"overlap must be in [0, {self.size // 2}] px, got {self.overlap}")

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """List the first pixel row of each row of tiles."""
        return _starts(self.shape[0], self.size, self.overlap)

    @cached_property
    def cols(self) -> tuple[int, ...]:
        """List the first pixel column of each column of tiles."""
        return _starts(self.shape[1], self.size, self.overlap)

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of a grid of {len(self)}")
        grid_row, grid_col = divmod(index, len(self.cols))
        return Tile(index, grid_row, grid_col, self.rows[grid_row], self.cols[grid_col])

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def cells(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """Cut the scene at all edges of tiles: ``(first, end)`` of the cells of a column, and of a row."""
        height, width = self.shape
        return _cells(self.rows, self.size, height), _cells(self.cols, self.size, width)

    def over(self, touched: NDArray[np.bool_]) -> list[int]:
        """List the numbers of the tiles over marked cells, in order.

        Args:
            touched: Marks some of the `cells`, ``(rows, cols)``.
        """
        of_rows, of_cols = (
            np.array([[start <= first < start + self.size for first, _ in cells] for start in starts])
            for starts, cells in zip((self.rows, self.cols), self.cells, strict=True)
        )
        return np.flatnonzero(of_rows @ touched @ of_cols.T).tolist()

    def around(self, touched: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
        """Mark the `cells` with a pixel within a distance, px, of marked ones, too."""
        of_rows, of_cols = (
            np.array([[a < d + distance and c - distance < b for c, d in cells] for a, b in cells])
            for cells in self.cells
        )
        return np.asarray(of_rows @ touched @ of_cols.T)

    def span(self, tile: Tile) -> Span:
        """Find the pixels of the scene that a tile covers."""
        height, width = (min(self.size, extent) for extent in self.shape)
        return Span(tile.row, tile.col, height, width)

    def view(self, tile: Tile, halo: int) -> Span:
        """Grow a tile by ``halo`` px on each side, or by twice that away from the border of the scene."""
        height, width = (min(self.size + 2 * halo, extent) for extent in self.shape)
        row, col = (
            min(max(0, first - halo), extent - side)
            for first, extent, side in zip((tile.row, tile.col), self.shape, (height, width), strict=True)
        )
        return Span(row, col, height, width)

    def union(self, tiles: Sequence[Tile], halo: int = 0) -> Span:
        """Find the smallest window that holds all the tiles, each with a border of ``halo`` px."""
        return reduce(Span.__or__, (self.view(tile, halo) for tile in tiles))

    def touching(self, span: Span) -> list[Tile]:
        """List the tiles that share a pixel with ``span``, row by row."""
        rows = _touching(self.rows, self.size, span.row, span.bottom)
        cols = _touching(self.cols, self.size, span.col, span.right)
        return [self[row * len(self.cols) + col] for row in rows for col in cols]


def reduced_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Divide a shape, px, by the least whole number that leaves no side above ``side``, rounded up."""
    factor = max(1, -(-max(shape) // side))
    return -(-shape[0] // factor), -(-shape[1] // factor)


def _starts(extent: int, size: int, overlap: int) -> tuple[int, ...]:
    if extent <= size:
        return (0,)
    return (*range(0, extent - size, size - overlap), extent - size)


def _cells(starts: tuple[int, ...], size: int, extent: int) -> tuple[tuple[int, int], ...]:
    edges = sorted({0, extent, *starts, *(start + size for start in starts if start + size < extent)})
    return tuple(pairwise(edges))


def _touching(starts: tuple[int, ...], size: int, first: int, end: int) -> list[int]:
    return [i for i, start in enumerate(starts) if start < end and start + size > first]
