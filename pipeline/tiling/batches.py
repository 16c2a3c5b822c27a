"""Which tiles are restored in one task: runs in reading order, or squares that are denoised together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from decr_scene.pipeline.tiling.grid import Span, Tile, TileGrid

JOINT_SIDE = 4
"""Tiles a side of a square that is denoised together. Part of the result: other squares, another one."""


@dataclass(frozen=True)
class Batches:
    """The tiles to restore, in batches.

    Args:
        grid: The grid.
        groups: Numbers of the tiles of each batch, in order.
    """

    grid: TileGrid
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, grid: TileGrid, size: int, chosen: tuple[int, ...] | None = None, joint: bool = False
    ) -> Batches:
        """Make runs of ``size`` tiles, or, if they are to be denoised together, squares of `JOINT_SIDE`."""
        return cls.squares(grid, JOINT_SIDE, chosen) if joint else cls.runs(grid, size, chosen)

    @classmethod
    def runs(cls, grid: TileGrid, size: int, chosen: tuple[int, ...] | None = None) -> Batches:
        """Make runs of ``size`` in reading order, which do not stop at the end of a row.

        Args:
            grid: The grid.
            size: Tiles in a batch.
            chosen: Numbers of the tiles to restore, in order; ``None``: all.
        """
        numbers = tuple(range(len(grid))) if chosen is None else chosen
        return cls(grid, tuple(numbers[first : first + size] for first in range(0, len(numbers), size)))

    @classmethod
    def squares(cls, grid: TileGrid, side: int, chosen: tuple[int, ...] | None = None) -> Batches:
        """Make squares of ``side`` tiles, anchored at the scene's origin, row by row of squares.

        Args:
            grid: The grid.
            side: Tiles a side.
            chosen: As for `runs`; a square without any of them is left out.
        """
        squares: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number in range(len(grid)) if chosen is None else chosen:
            tile = grid[number]
            squares[tile.grid_row // side, tile.grid_col // side].append(number)
        return cls(grid, tuple(tuple(squares[place]) for place in sorted(squares)))

    @cached_property
    def tiles(self) -> int:
        """Count the tiles in all batches."""
        return sum(map(len, self.groups))

    @cached_property
    def largest(self) -> int:
        """Count the tiles in the largest batch."""
        return max(map(len, self.groups), default=0)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> list[Tile]:
        return [self.grid[tile] for tile in self.groups[number]]

    def touching(self, span: Span) -> set[int]:
        """Find the batches with a tile that shares a pixel with ``span``."""
        numbers = (self._batch_of.get(tile.number) for tile in self.grid.touching(span))
        return {number for number in numbers if number is not None}

    def over(self, tiles: Sequence[Tile]) -> set[int]:
        """Find the batches with a tile that overlaps one of these tiles."""
        return set().union(*(self.touching(self.grid.span(tile)) for tile in tiles))

    def top(self, number: int) -> int:
        """Find the first row of a batch, or one above: no later batch begins further up."""
        return self._tops[number]

    def bottom(self, number: int) -> int:
        """Find the first row below a batch."""
        return max(self.grid.span(tile).bottom for tile in self[number])

    @cached_property
    def _tops(self) -> tuple[int, ...]:
        tops = [min(self.grid[tile].row for tile in group) for group in self.groups]
        for number in range(len(tops) - 2, -1, -1):
            tops[number] = min(tops[number], tops[number + 1])
        return tuple(tops)

    @cached_property
    def _batch_of(self) -> Mapping[int, int]:
        return {tile: number for number, group in enumerate(self.groups) for tile in group}
