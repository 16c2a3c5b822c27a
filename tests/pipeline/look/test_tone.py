"""A first guess takes the tone of the clear ground where it is further off than clear ground varies."""

import numpy as np

from decr_scene.pipeline.look.tone import in_tone

SIDE, SPREAD = 128, (0.1, 0.02)
TONE = np.full((2, SIDE, SIDE), -0.5, np.float32)
SEEN = np.zeros((SIDE, SIDE), np.float32)
SEEN[20:100, 30:110] = 1


def detail():
    return np.random.default_rng(0).normal(0, 0.05, TONE.shape).astype(np.float32)


def test_a_tone_that_is_further_off_is_brought_back_to_what_clear_ground_has():
    guess = TONE + 0.4 * SEEN
    found = in_tone(guess, TONE, SEEN, SPREAD)[:, 60, 60]
    np.testing.assert_allclose(found, [-0.4, -0.48], atol=1e-5)
    found = in_tone(TONE - 0.4 * SEEN, TONE, SEEN, SPREAD)[:, 60, 60]
    np.testing.assert_allclose(found, [-0.6, -0.52], atol=1e-5)


def test_a_tone_that_clear_ground_has_too_stays_to_the_last_bit():
    guess = TONE + 0.015 + 0 * detail()
    np.testing.assert_array_equal(in_tone(guess, TONE, SEEN, SPREAD), guess)


def test_detail_stays_and_what_nobody_sees_keeps_its_bits():
    guess = TONE + detail() + 0.4 * SEEN
    found = in_tone(guess, TONE, SEEN, SPREAD)
    np.testing.assert_array_equal(found[:, SEEN == 0], guess[:, SEEN == 0])
    change = (found - guess)[:, SEEN == 1].reshape(2, 80, 80)
    assert np.abs(np.diff(change, axis=1)).max() < 0.005
    assert change.mean() < -0.25


def test_the_soft_border_of_what_is_seen_has_no_step():
    ramp = np.clip((np.arange(SIDE, dtype=np.float32) - 40) / 20, 0, 1)
    seen = np.broadcast_to(ramp, (SIDE, SIDE))
    found = in_tone(TONE + 0.4, TONE, np.ascontiguousarray(seen), SPREAD)
    assert np.abs(np.diff(found, axis=2)).max() < 0.03
