"""Windows share the tiles of a scene out, and are never more work than its tiles alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decr_scene.pipeline.tiling.grid import Span, TileGrid
from decr_scene.pipeline.tiling.windows import SIDE, share_of_work, tiles_a_side, window_view, windows

shapes = st.tuples(st.integers(1, 2600), st.integers(1, 2600))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 128), st.integers(1, 300), st.data())
def test_every_chosen_tile_is_in_one_window_and_none_is_too_large(shape, overlap, halo, data):
    grid = TileGrid(shape, overlap=overlap)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(grid) - 1))))
    groups = windows(grid, halo, tuple(chosen)).groups
    assert sorted(tile for group in groups for tile in group) == chosen
    for group in groups:
        assert max(grid.union([grid[number] for number in group])[2:]) <= SIDE
    assert share_of_work(grid, halo, groups) <= 1


def test_a_cloudy_scene_is_shared_out_evenly_and_seen_less_than_twice():
    grid = TileGrid((2048, 2048))
    found = windows(grid, 128)
    assert [len(group) for group in found.groups] == [16, 16, 12, 16, 16, 12, 12, 12, 9]
    seen = [window_view(grid, found[number], 128) for number in range(len(found))]
    assert sum(span.height * span.width for span in seen) < 1.8 * 2048**2
    alone = sum(view.height * view.width for view in (grid.view(tile, 128) for tile in grid))
    assert alone > 7 * 2048**2


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 128), st.integers(1, 300))
def test_what_is_seen_of_a_window_lies_in_the_scene_and_is_of_even_sides_where_that_can_be(
    shape, overlap, halo
):
    grid = TileGrid(shape, overlap=overlap)
    together = windows(grid, halo)
    for number in range(len(together)):
        own, view = grid.union(together[number], halo), window_view(grid, together[number], halo)
        assert own & view == own
        assert view & Span(0, 0, *shape) == view
        for side, before, extent in zip(view[2:], own[2:], shape, strict=True):
            assert len(together[number]) == 1 or side % 64 == 0 or (side == before and extent - side < 64)


def test_what_is_chosen_elsewhere_does_not_move_a_window():
    grid = TileGrid((2048, 2048))
    whole = windows(grid, 128).groups
    part = windows(grid, 128, tuple(sorted({*whole[0], *whole[8]}))).groups
    assert part == (whole[0], whole[8])


@pytest.mark.parametrize(("chosen", "expected"), [((0, 3), 2), ((0, 1, 11, 12), 1), ((0, 3, 33, 36), 4)])
def test_few_tiles_are_seen_apart_where_that_is_less_work(chosen, expected):
    assert len(windows(TileGrid((2048, 2048)), 128, chosen)) == expected


def test_a_window_holds_as_many_tiles_as_its_side_allows():
    assert [tiles_a_side(TileGrid((5000, 5000), overlap=overlap)) for overlap in (0, 64, 128)] == [4, 5, 7]
