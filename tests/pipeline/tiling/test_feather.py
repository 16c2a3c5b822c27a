import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decr_scene.pipeline.tiling.feather import blend, tile_weights
from decr_scene.pipeline.tiling.grid import Span, TileGrid


def pixel_by_pixel(grid, span, tiles, bands, share_out):
    """The sum that `blend` documents, over whole tiles and without any haste."""
    total, present = np.zeros((bands, *grid.shape)), np.zeros(grid.shape)
    for tile, values in tiles:
        here, weights = grid.span(tile).inside(Span(0, 0, *grid.shape)), np.outer(*tile_weights(grid, tile))
        total[(slice(None), *here)] += values * weights
        present[here] += weights
    part = span.inside(Span(0, 0, *grid.shape))
    if share_out and present[part].min() < 1 - 1e-9:
        total /= np.where(present > 0, present, 1)
    return total[(slice(None), *part)].astype(np.float32)


@pytest.mark.parametrize("share_out", [False, True])
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from([0, 1, 64, 128]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_every_window_is_the_weighted_sum_to_the_last_bit(share_out, shape, overlap, there, seed):
    grid, rng = TileGrid(shape, overlap=overlap), np.random.default_rng(seed)
    (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in shape)
    span = Span(int(top), int(left), int(bottom - top), int(right - left))
    tiles = [
        (tile, rng.choice(np.float32([-0.0, 0.1, -0.3]), (2, *grid.span(tile)[2:])))
        for tile in grid
        if rng.random() < there
    ]
    found = blend(grid, span, tiles[::-1], 2, share_out)
    expected = pixel_by_pixel(grid, span, tiles, 2, share_out)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("side", [200, 400], ids=["one tile alone", "tiles that overlap"])
def test_bands_beyond_those_that_are_asked_for_count_for_nothing(side):
    grid, rng = TileGrid((side, side), overlap=64), np.random.default_rng(0)
    tiles = [(tile, rng.normal(size=(3, *grid.span(tile)[2:])).astype(np.float32)) for tile in grid]
    whole = Span(0, 0, side, side)
    np.testing.assert_array_equal(blend(grid, whole, tiles, 2), blend(grid, whole, tiles, 3)[:2])
