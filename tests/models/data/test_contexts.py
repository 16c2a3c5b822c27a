"""What a crop's context knows: where cloud is, and the ground's tone from where there is none."""

import numpy as np

from decr_scene.models.data.contexts import CELL, draw_context
from decr_scene.models.data.source import cover_of_pair

SIDE = 128


def cloud_over(tone, seed):
    """Ground of one tone under a white disc; its context of a draw that knows something."""
    clear = np.full((2, SIDE, SIDE), tone, np.float32)
    rows, cols = np.ogrid[:SIDE, :SIDE]
    opacity = (np.hypot(rows - 64, cols - 64) < 30).astype(np.float32)
    cloudy = clear + (1 - clear) * opacity
    rng = np.random.default_rng(seed)
    return opacity, draw_context(cloudy, clear, opacity, np.zeros_like(opacity), rng)


def test_the_anchor_is_the_ground_around_the_cloud():
    known = [context for _, context in (cloud_over(-0.4, seed) for seed in range(20)) if context.any()]
    assert 5 < len(known) < 20, "a part of the draws knows nothing"
    for context in known:
        assert context.shape == (5, SIDE // CELL, SIDE // CELL)
        np.testing.assert_allclose(context[:2], -0.4, atol=0.3)  # cloud is 1.4 brighter


def test_cloud_is_seen_where_it_is_and_nearness_falls_below_it():
    contexts = [cloud_over(-0.4, seed)[1] for seed in range(20)]
    for context in (c for c in contexts if c.any()):
        assert context[2, 8, 8] > 0.7
        assert context[2, 0, 0] < 0.05
        assert context[4, 0, 0] > 0.9
        assert 0 < context[4, 8, 8] < 0.6


def test_a_pair_tells_cloud_from_shadow():
    clear = np.zeros((3, 64, 64), np.float32)
    cloudy = clear.copy()
    cloudy[:, :20], cloudy[:, 44:] = 0.8, -0.6
    opacity, shadow = cover_of_pair(cloudy, clear)
    assert opacity[5, 30] > 0.7
    assert shadow[60, 30] > 0.5
    assert shadow[5, 30] == opacity[60, 30] == 0
    assert max(opacity[32, 30], shadow[32, 30]) < 0.01
