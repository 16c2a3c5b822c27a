"""Blend overlapping tiles with raised-cosine weights that sum to 1 over every pixel, in pure numpy."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.tiling.grid import Span, Tile, TileGrid


def axis_weights(starts: tuple[int, ...], size: int, extent: int, overlap: int) -> tuple[Double, ...]:
    """Weigh the tiles along one axis.

    At every pixel the weights of all tiles sum to 1. A tile rises over ``overlap`` px where it has a
    neighbour and does not taper at the scene's own border, so there is no dark frame. Where a moved-in tile
    overlaps further, the weights are shared out.

    Args:
        starts: First pixel of each tile.
        size: Side of a tile, px.
        extent: Length of the axis, px.
        overlap: Width of the taper, px.

    Returns:
        One array of the tile's length (``min(size, extent)``) each.
    """
    length = min(size, extent)
    raw = [_window(length, overlap, start > 0, start + length < extent) for start in starts]
    total = np.zeros(extent)
    for start, weights in zip(starts, raw, strict=True):
        total[start : start + length] += weights
    return tuple(weights / total[start : start + length] for start, weights in zip(starts, raw, strict=True))


def tile_weights(grid: TileGrid, tile: Tile) -> tuple[Double, Double]:
    """Weigh a tile's rows ``(h,)`` and columns ``(w,)``.

    The weight of a pixel is their product.
    """
    rows, cols = _grid_weights(grid)
    return rows[tile.grid_row], cols[tile.grid_col]


def blend(
    grid: TileGrid, span: Span, tiles: Iterable[tuple[Tile, Float]], bands: int, share_out: bool = False
) -> Float:
    """Blend the tiles that touch ``span``.

    The sum is taken in float64 and in the order of the tiles, so equal tiles give their value to
    the last bit of float32, whatever the weights.

    Args:
        grid: The grid.
        span: Window of the result.
        tiles: The tiles that touch ``span``, each with its ``(bands, h, w)`` values, further bands
            count for nothing; a missing one counts as 0.
        bands: Bands of the result.
        share_out: Distribute the weight of missing tiles among the others.

    Returns:
        ``(bands, span.height, span.width)`` float32.
    """
    own = {(tile.grid_row, tile.grid_col): values for tile, values in tiles}
    result = np.empty((bands, span.height, span.width), np.float32)
    by_rows, by_cols = _grid_weights(grid)
    share = _present(grid, span, own) if share_out else None
    across = list(_pieces(grid.cols, by_cols, span.col, span.right))
    for rows, tile_rows in _pieces(grid.rows, by_rows, span.row, span.bottom):
        for cols, tile_cols in across:
            parts = [
                (own[i, j][:, row, col], _product(by_row, by_col))
                for (i, row, by_row), (j, col, by_col) in product(tile_rows, tile_cols)
                if (i, j) in own
            ]
            _sum(parts, None if share is None else share[rows, cols], result[:, rows, cols])
    return result


def spread(grid: TileGrid, span: Span, tiles: Iterable[tuple[Tile, Float]], blended: Float) -> Float:
    """Measure how far blended tiles are from one another: the weighted variance around their blend.

    Args:
        grid: As `blend`.
        span: As `blend`.
        tiles: As `blend`; a missing one counts as 0.
        blended: Their `blend`.

    Returns:
        ``(bands, span.height, span.width)``; 0 where one tile has all the weight.
    """
    total = np.zeros(blended.shape)
    missing = np.ones(blended.shape[1:])
    for here, values, weights in _weighted(grid, span, tiles):
        total[(slice(None), *here)] += (values - blended[(slice(None), *here)]) ** 2 * weights
        missing[here] -= weights
    return (total + np.square(blended) * missing.clip(0)).astype(np.float32)


def shares(grid: TileGrid, span: Span, tiles: Sequence[Tile]) -> list[Double]:
    """Weigh each tile of a span as `blend` does with ``share_out``, ``(h, w)`` each."""
    present = np.zeros((span.height, span.width))
    placed = [(grid.span(tile).inside(span), np.multiply.outer(*tile_weights(grid, tile))) for tile in tiles]
    for here, weights in placed:
        present[here] += weights
    return [weights / present[here] for here, weights in placed]


def _sum(parts: Sequence[tuple[Float, Double | None]], share: Double | None, out: Float) -> None:
    """Sum up weighted values of tiles over the same pixels, ``(bands, h, w)``, and divide them by a share."""
    if not parts:
        out[:] = 0
        return
    (values, weights), *others = parts
    if not others and share is None and weights is None:  # float64 would change nothing
        np.add(values[: len(out)], 0.0, out=out, casting="same_kind")  # no -0.0
        return
    for band in range(len(out)):  # at a time, so that the products stay in the processor's cache
        total = values[band].astype(np.float64) if weights is None else values[band] * weights
        for other, its_weights in others:
            total += other[band] * its_weights
        if share is not None:
            total /= share
        np.add(total, 0.0, out=out[band], casting="same_kind")


def _product(by_row: Double | None, by_col: Double | None) -> Double | None:
    """Multiply weights of rows and columns, either of them ``None``: 1."""
    if by_row is None or by_col is None:
        return by_col if by_row is None else by_row[:, None]
    return by_row[:, None] * by_col


def _present(grid: TileGrid, span: Span, own: Collection[tuple[int, int]]) -> Double | None:
    """Sum up the weights of the tiles that are there, ``(h, w)``, 1 without any.

    ``None``: all are there.
    """
    touching = grid.touching(span)
    there = [tile for tile in touching if (tile.grid_row, tile.grid_col) in own]
    if len(there) == len(touching):
        return None
    present = np.zeros((span.height, span.width))
    for tile in there:
        own_span = grid.span(tile)
        common = own_span & span
        rows, cols = common.inside(own_span)
        by_row, by_col = tile_weights(grid, tile)
        present[common.inside(span)] += by_row[rows, None] * by_col[None, cols]
    return None if present.min() >= 1 - 1e-9 else np.where(present > 0, present, 1)


class _Part(NamedTuple):
    """A tile over a piece of an axis: its number, the piece in it, and its weights there, ``None``: 1."""

    number: int
    piece: slice
    weights: Double | None


def _pieces(
    starts: Sequence[int], weights: Sequence[Double], first: int, end: int
) -> Iterator[tuple[slice, list[_Part]]]:
    """Cut a part of an axis at all edges of tiles, and yield its pieces with the tiles over each."""
    ends = [start + len(own) for start, own in zip(starts, weights, strict=True)]
    edges = sorted(edge for edge in {first, end, *starts, *ends} if first <= edge <= end)
    for begin, stop in pairwise(edges):
        parts = []
        for number in range(bisect_right(ends, begin), bisect_left(starts, stop)):
            piece = slice(begin - starts[number], stop - starts[number])
            own = weights[number][piece]
            parts.append(_Part(number, piece, None if own.min() == 1 else own))
        yield slice(begin - first, stop - first), parts


@lru_cache(maxsize=8)
def _grid_weights(grid: TileGrid) -> tuple[tuple[Double, ...], tuple[Double, ...]]:
    height, width = grid.shape
    return (
        axis_weights(grid.rows, grid.size, height, grid.overlap),
        axis_weights(grid.cols, grid.size, width, grid.overlap),
    )


def _window(length: int, overlap: int, before: bool, after: bool) -> Double:
    """Return a symmetric ``sin^2`` rise over ``overlap`` px where there is a neighbour, never zero."""
    weights = np.ones(length)
    ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    if before and overlap:
        weights[:overlap] *= ramp
    if after and overlap:
        weights[length - overlap :] *= ramp[::-1]
    return weights


def _weighted(
    grid: TileGrid, span: Span, tiles: Iterable[tuple[Tile, Float]]
) -> Iterator[tuple[tuple[slice, slice], Float, NDArray[np.float64]]]:
    """Yield each tile's part of a window, in order: slices, values ``(bands, h, w)``, weights ``(h, w)``."""
    for tile, values in sorted(tiles, key=lambda pair: pair[0].number):
        own = grid.span(tile)
        common = own & span
        rows, cols = common.inside(own)
        by_row, by_col = tile_weights(grid, tile)
        yield common.inside(span), values[:, rows, cols], by_row[rows, None] * by_col[None, cols]
