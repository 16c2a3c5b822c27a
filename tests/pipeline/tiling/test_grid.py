import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decr_scene.pipeline.engine.under_way import block_rows
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.feather import axis_weights, blend
from decr_scene.pipeline.tiling.grid import Span, TileGrid, reduced_shape

shapes = st.tuples(st.integers(1, 900), st.integers(1, 900))
overlaps = st.integers(0, 128)


@given(shapes, overlaps)
def test_every_pixel_is_covered_and_no_tile_sticks_out(shape, overlap):
    grid = TileGrid(shape, overlap=overlap)
    covered = np.zeros(shape, bool)
    for tile in grid:
        span = grid.span(tile)
        assert span.bottom <= shape[0]
        assert span.right <= shape[1]
        covered[span.row : span.bottom, span.col : span.right] = True
    assert covered.all()


@given(shapes, overlaps)
def test_neighbours_overlap_at_least_as_much_as_asked(shape, overlap):
    grid = TileGrid(shape, overlap=overlap)
    for starts in (grid.rows, grid.cols):
        assert all(b - a <= grid.size - overlap for a, b in itertools.pairwise(starts))


def test_the_grid_is_anchored_at_the_origin_and_its_last_tile_moves_inwards():
    grid = TileGrid((256, 1000))
    assert grid.rows == (0,)
    assert grid.cols == (0, 192, 384, 576, 744)


def test_a_scene_of_one_pixel_has_one_tile():
    grid = TileGrid((1, 1))
    assert [grid.span(tile) for tile in grid] == [Span(0, 0, 1, 1)]


@given(shapes, overlaps, st.integers(0, 300))
def test_a_view_holds_its_tile_and_lies_in_the_scene_and_all_are_alike(shape, overlap, halo):
    grid = TileGrid(shape, overlap=overlap)
    for tile in grid:
        span, view = grid.span(tile), grid.view(tile, halo)
        assert span & view == span
        assert view & Span(0, 0, *shape) == view
        assert view[2:] == tuple(min(grid.size + 2 * halo, extent) for extent in shape)
        assert halo or view == span


def test_a_view_has_its_tile_in_the_middle_where_the_scene_goes_on():
    grid = TileGrid((1000, 1000))
    assert grid.view(grid[6], 100) == Span(92, 92, 456, 456)
    assert grid.view(grid[0], 100) == Span(0, 0, 456, 456)
    assert Span(0, 4, 2, 2) | Span(3, 0, 1, 5) == Span(0, 0, 4, 6)


@pytest.mark.parametrize(("shape", "overlap"), [((0, 5), 64), ((300, 300), -1), ((300, 300), 129)])
def test_a_grid_that_cannot_be_is_refused(shape, overlap):
    with pytest.raises(ValueError, match="got"):
        TileGrid(shape, overlap=overlap)


@given(shapes, overlaps)
def test_cells_cut_the_scene_at_all_edges_of_tiles(shape, overlap):
    grid = TileGrid(shape, overlap=overlap)
    for starts, cells, extent in zip((grid.rows, grid.cols), grid.cells, shape, strict=True):
        assert [0, *(end for _, end in cells)] == [*(first for first, _ in cells), extent]
        for start, (first, end) in itertools.product(starts, cells):
            assert start <= first < end <= start + grid.size or end <= start or first >= start + grid.size


@given(shapes, overlaps, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_tiles_over_some_cells_are_all_that_share_a_pixel_with_them(shape, overlap, seed, share):
    grid = TileGrid(shape, overlap=overlap)
    rows, cols = grid.cells
    touched = np.random.default_rng(seed).random((len(rows), len(cols))) < share
    expected = set()
    for row, col in np.argwhere(touched):
        (top, bottom), (left, right) = rows[row], cols[col]
        expected |= {tile.number for tile in grid.touching(Span(top, left, bottom - top, right - left))}
    assert grid.over(touched) == sorted(expected)


@given(shapes, overlaps, st.integers(0, 300), st.integers(0, 99))
def test_the_cells_around_some_are_those_within_the_distance(shape, overlap, distance, seed):
    grid, rng = TileGrid(shape, overlap=overlap), np.random.default_rng(seed)
    rows, cols = grid.cells
    row, col = (int(rng.integers(len(cells))) for cells in (rows, cols))
    touched = np.zeros((len(rows), len(cols)), bool)
    touched[row, col] = True
    near = np.zeros(shape, bool)
    (top, bottom), (left, right) = rows[row], cols[col]
    near[max(0, top - distance) : bottom + distance, max(0, left - distance) : right + distance] = True
    expected = [[near[slice(*r), slice(*c)].any() for c in cols] for r in rows]
    np.testing.assert_array_equal(grid.around(touched, distance), expected)


@given(st.integers(1, 1200), overlaps)
def test_weights_sum_to_one_at_every_pixel(extent, overlap):
    grid = TileGrid((1, extent), overlap=overlap)
    total = np.zeros(extent)
    weights = axis_weights(grid.cols, grid.size, extent, overlap)
    for start, weight in zip(grid.cols, weights, strict=True):
        assert weight.min() > 0
        total[start : start + len(weight)] += weight
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_the_border_of_the_scene_is_not_tapered():
    weights = axis_weights((0, 192), 256, 448, 64)
    assert weights[0][0] == 1
    assert weights[1][-1] == 1


@given(shapes, overlaps, st.floats(-1, 1, width=32))
def test_feathering_a_constant_gives_it_back_to_the_last_bit(shape, overlap, value):
    grid = TileGrid(shape, overlap=overlap)
    tiles = [(tile, np.full((1, *grid.span(tile)[2:]), value, np.float32)) for tile in grid]
    blended = blend(grid, Span(0, 0, *shape), tiles, 1)
    assert (blended == np.float32(value)).all()


def test_feathering_windows_gives_the_same_as_feathering_the_whole():
    grid, rng = TileGrid((500, 700)), np.random.default_rng(0)
    tiles = [(tile, rng.normal(size=(2, 256, 256)).astype(np.float32)) for tile in grid]
    whole = blend(grid, Span(0, 0, 500, 700), tiles, 2)
    part = Span(130, 201, 77, 300)
    touching = {tile.number for tile in grid.touching(part)}
    there = blend(grid, part, [pair for pair in tiles if pair[0].number in touching], 2)
    np.testing.assert_array_equal(there, whole[(slice(None), *part.inside(Span(0, 0, 500, 700)))])


@given(shapes, st.integers(1, 20))
def test_every_tile_is_in_one_batch(shape, size):
    grid = TileGrid(shape)
    batches = Batches.runs(grid, size)
    assert [tile for number in range(len(batches)) for tile in batches[number]] == list(grid)
    assert all(len(batches[number]) == size for number in range(len(batches) - 1))


@given(shapes, st.integers(1, 5), st.integers(0, 1000))
def test_squares_of_tiles_lie_where_they_lie_whatever_is_chosen(shape, side, seed):
    grid, rng = TileGrid(shape), np.random.default_rng(seed)
    chosen = tuple(np.flatnonzero(rng.random(len(grid)) < 0.4).tolist())
    squares = Batches.squares(grid, side, chosen)
    assert sorted(number for group in squares.groups for number in group) == list(chosen)
    of_all = {tile: set(group) for group in Batches.squares(grid, side).groups for tile in group}
    assert all(set(group) == of_all[group[0]] & set(chosen) for group in squares.groups)
    assert all(len(set(group)) <= side**2 for group in squares.groups)


@given(shapes, st.booleans(), st.integers(0, 1000))
def test_no_later_batch_begins_above_the_top_of_one(shape, joint, seed):
    grid, rng = TileGrid(shape), np.random.default_rng(seed)
    batches = Batches.of(grid, 3, tuple(np.flatnonzero(rng.random(len(grid)) < 0.4).tolist()), joint)
    first = [min(tile.row for tile in batches[number]) for number in range(len(batches))]
    assert all(batches.top(number) == min(first[number:]) for number in range(len(batches)))


@given(shapes, st.sampled_from([128, 256, 512]))
def test_output_windows_cover_the_scene_once_in_whole_blocks(shape, block):
    count = np.zeros(shape, int)
    for row in block_rows(shape, block):
        for span in row:
            assert span.row % block == 0
            assert span.col % block == 0
            count[span.row : span.bottom, span.col : span.right] += 1
    assert (count == 1).all()


@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), st.integers(1, 1024))
def test_a_reduced_shape_is_as_large_as_a_whole_factor_lets_it_be(shape, side):
    height, width = reduced_shape(shape, side)
    assert max(height, width) <= side
    factor = -(-max(shape) // side)
    assert (height, width) == (-(-shape[0] // factor), -(-shape[1] // factor))
    assert factor == 1 or -(-max(shape) // (factor - 1)) > side


def test_a_shape_that_is_small_enough_stays():
    assert reduced_shape((30, 40), 40) == (30, 40)
