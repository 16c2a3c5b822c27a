"""Windows of many tiles for the first guess, so that the network does not see the margin of every tile anew.

The tiles of a scene are divided evenly among windows of at most `SIDE` px. A window of which few tiles are to
be restored is cut into smaller ones, down to single tiles, where that is less work. Windows depend on the
scene and on the tiles to restore alone, not on batches, workers or what an interrupted run has left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, Tile, TileGrid

Group = tuple[int, ...]
"""Numbers of the tiles of a window, in order."""

SIDE = 1024
"""Greatest side of a window without its margin, px."""

MULTIPLE = 64
"""The sides of a window with its margin are multiples of it, px; networks need a divisor of it."""

LARGE_COSTS = 1.5
"""Work for a pixel of a window of many tiles, because of its normalisation; of a single tile it is 1."""


def windows(grid: TileGrid, halo: int, chosen: tuple[int, ...] | None = None) -> Batches:
    """Divide the tiles to restore among windows.

    Args:
        grid: The tiles.
        halo: How far beyond a window is seen, px.
        chosen: Numbers of the tiles to restore, in order; ``None``: all.
    """
    parts = [part for group in uncut(grid, chosen).groups for part in _cut(grid, halo, group)]
    return Batches(grid, tuple(parts))


def uncut(grid: TileGrid, chosen: tuple[int, ...] | None = None) -> Batches:
    """Divide tiles among the largest windows.

    A tile is in the same one, whatever else is chosen.

    Args:
        grid: The tiles.
        chosen: As for `windows`, each of which lies in one of these.
    """
    side = tiles_a_side(grid)
    rows, cols = (-(-len(starts) // side) for starts in (grid.rows, grid.cols))
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in range(len(grid)) if chosen is None else chosen:
        tile = grid[number]
        place = tile.grid_row * rows // len(grid.rows), tile.grid_col * cols // len(grid.cols)
        groups[place].append(number)
    return Batches(grid, tuple(tuple(groups[place]) for place in sorted(groups)))


def window_view(grid: TileGrid, tiles: Sequence[Tile], halo: int) -> Span:
    """Find the pixels that the network sees of a window: its tiles with a margin of ``halo`` px.

    Its sides are multiples of `MULTIPLE` where the scene is that large. Otherwise the network mirrors ground
    to reach a multiple, which changes its answer where the scene ends.
    """
    seen = grid.union(tiles, halo)
    if len(tiles) == 1:
        return seen
    (row, height), (col, width) = (
        _rounded(first, side, extent)
        for first, side, extent in zip(seen[:2], seen[2:], grid.shape, strict=True)
    )
    return Span(row, col, height, width)


def _rounded(first: int, side: int, extent: int) -> tuple[int, int]:
    rounded = -(-side // MULTIPLE) * MULTIPLE
    return (first, side) if rounded > extent else (min(first, extent - rounded), rounded)


def tiles_a_side(grid: TileGrid) -> int:
    """Count the tiles along the side of the largest window."""
    return max(1, (SIDE - grid.overlap) // (grid.size - grid.overlap))


def share_of_work(grid: TileGrid, halo: int, groups: Sequence[Group]) -> float:
    """Estimate the work for windows as a share of that for their tiles alone."""
    alone = [(number,) for group in groups for number in group]
    return _work(grid, halo, groups) / _work(grid, halo, alone) if alone else 1.0


def _cut(grid: TileGrid, halo: int, tiles: Group) -> Sequence[Group]:
    """Cut a window into parts of less work, never more than its tiles alone are."""
    alone = [(number,) for number in tiles]
    parts = _halved(grid, halo, tiles)
    return parts if _work(grid, halo, parts) < _work(grid, halo, alone) else alone


def _halved(grid: TileGrid, halo: int, tiles: Group) -> list[Group]:
    least, best = _work(grid, halo, [tiles]), [tiles]
    for halves in _splits(grid, tiles):
        work = _work(grid, halo, halves)
        if work < least:
            least, best = work, halves
    return best if len(best) == 1 else [part for half in best for part in _halved(grid, halo, half)]


def _splits(grid: TileGrid, tiles: Group) -> Iterator[list[Group]]:
    """Give all ways to split tiles in two by a line between two rows or columns."""
    for axis in (0, 1):
        places = [(grid[number].row, grid[number].col)[axis] for number in tiles]
        pairs = list(zip(tiles, places, strict=True))
        for line in sorted(set(places))[1:]:
            yield [tuple(n for n, at in pairs if at < line), tuple(n for n, at in pairs if at >= line)]


def _work(grid: TileGrid, halo: int, groups: Sequence[Group]) -> float:
    """Estimate the work for windows, in pixels of a single tile."""
    work = 0.0
    for group in groups:
        seen = window_view(grid, [grid[number] for number in group], halo)
        large = max(seen.height, seen.width) > grid.size + 2 * halo
        work += seen.height * seen.width * (LARGE_COSTS if large else 1)
    return work
