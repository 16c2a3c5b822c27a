"""Cloud that a first guess leaves gives way to the tone of the ground, and nothing else does."""

import numpy as np
import pytest

from decr_scene.pipeline.restoration.remnants import without_remnants

BANDS = ("blue", "green", "red", "nir")
SIDE = 64


def flat(light):
    return np.full((4, SIDE, SIDE), 2 * light - 1, np.float32)


def clouds(light):
    """Ground at .1 with squares of cloud."""
    image = flat(0.1)
    image[:, 16:40, 16:40] = 2 * light - 1
    return image


SEEN = np.ones((SIDE, SIDE), np.float32)
TONE = flat(0.1)


def test_cloud_that_is_left_becomes_ground():
    answer = without_remnants(clouds(0.4), clouds(0.5), TONE, SEEN, BANDS)
    np.testing.assert_allclose(answer[:, 22:34, 22:34], TONE[:, 22:34, 22:34], atol=0.01)


def test_what_gives_way_is_on_the_level_of_the_guess_around():
    guess, darker = clouds(0.4), 2 * 0.03
    guess[guess == TONE] -= darker
    answer = without_remnants(guess, clouds(0.5), TONE, SEEN, BANDS)
    np.testing.assert_allclose(answer[:, 22:34, 22:34], TONE[:, 22:34, 22:34] - darker, atol=0.01)


def test_a_guess_of_cloud_alone_has_no_level():
    answer = without_remnants(flat(0.4), flat(0.5), TONE, SEEN, BANDS)
    np.testing.assert_allclose(answer, TONE, atol=1e-3)


def test_shadow_that_is_left_becomes_ground():
    answer = without_remnants(clouds(0.02), clouds(0.01), TONE, SEEN, BANDS)
    np.testing.assert_allclose(answer[:, 26:30, 26:30], TONE[:, 26:30, 26:30], atol=0.02)


def test_cloud_that_was_taken_off_keeps_its_ground_with_all_detail():
    detail = np.random.default_rng(0).normal(0, 0.05, TONE.shape).astype(np.float32)
    guess = TONE + detail
    np.testing.assert_allclose(without_remnants(guess, clouds(0.6), TONE, SEEN, BANDS), guess, atol=0.02)


def test_nothing_changes_where_nobody_sees_cloud():
    guess = clouds(0.4)
    np.testing.assert_array_equal(without_remnants(guess, clouds(0.5), TONE, 0 * SEEN, BANDS), guess)


def test_ground_that_is_darker_after_a_bright_cloud_stays():
    guess = clouds(0.02)  # a lake
    np.testing.assert_array_equal(
        without_remnants(guess, clouds(0.7), TONE, SEEN, BANDS)[:, 28, 28], guess[:, 28, 28]
    )


def test_bands_in_the_infrared_do_not_decide():
    guess = TONE.copy()
    guess[3] = 0.6  # a forest
    np.testing.assert_array_equal(without_remnants(guess, clouds(0.6), TONE, SEEN, BANDS), guess)


def test_the_rim_of_cloud_that_is_seen_tightly_gives_way_with_it():
    """The outermost pixels keep less than a third of their light."""
    seen = np.zeros_like(SEEN)
    seen[16:40, 16:40] = 1
    guess = clouds(0.4)
    left = (without_remnants(guess, clouds(0.5), TONE, seen, BANDS) - TONE) / 0.6
    assert left[:, 16, 18:38].max() < 0.33


WIDE_SIDE = 160
PATTERN = 0.04 * np.sin(np.arange(WIDE_SIDE) * 0.9) * np.ones((WIDE_SIDE, 1))
INNER = np.s_[:, 50:110, 50:110]
LEAF = np.array([-1, -1, -1, 3])[:, None, None] / np.sqrt(12)
"""Ground that differs in near infrared most, across the line from its tone to white."""

WHITE = np.full((4, 1, 1), 0.5)


def wide(light, pattern=0.0):
    return (np.full((4, WIDE_SIDE, WIDE_SIDE), 2 * light - 1) + pattern).astype(np.float32)


def restored(guess, cloudy):
    seen = np.ones((WIDE_SIDE, WIDE_SIDE), np.float32)
    return without_remnants(guess, cloudy, wide(0.2), seen, BANDS) - wide(0.2)


def kept(answer, pattern):
    """Return how much of a pattern there is in an answer."""
    inner, own = answer[INNER], np.broadcast_to(pattern, answer.shape)[INNER]
    return float((inner * own).sum() / (own * own).sum())


@pytest.mark.parametrize("strength", [1, 4])
@pytest.mark.parametrize("bands", [WHITE, LEAF])
@pytest.mark.parametrize("light", [0.1, 0.148])
def test_ground_in_wide_shade_takes_the_tone_and_keeps_its_detail(strength, bands, light):
    ground = strength * PATTERN * bands / np.abs(bands).max() / 2
    answer = restored(wide(max(0.12, light), ground), wide(light, ground))
    assert abs(answer[INNER].mean()) < 0.01
    assert kept(answer, ground) == pytest.approx(1, abs=0.1)


def test_what_is_wider_is_no_detail():
    hill = 0.02 * np.cos((np.arange(WIDE_SIDE) - 80) * 2 * np.pi / 120)[:, None] * np.ones((4, 1, WIDE_SIDE))
    assert kept(restored(wide(0.12, hill), wide(0.1, hill)), hill) < 0.4


def test_the_tone_of_shade_is_that_of_its_inside():
    """The clear ground that its smoothed border reaches has no say."""
    guess, cloudy = wide(0.2), wide(0.2)
    place = np.s_[:, 62:98, 62:98]
    guess[place], cloudy[place] = wide(0.14)[place], wide(0.1)[place]
    assert abs(restored(guess, cloudy)[:, 72:88, 72:88].mean()) < 0.005


def test_a_small_shadow_has_no_detail_of_the_ground():
    ground = PATTERN.T * WHITE
    guess, cloudy = wide(0.2), wide(0.2)
    place = np.s_[:, 76:84]
    guess[place], cloudy[place] = wide(0.12, ground)[place], wide(0.1, ground)[place]
    inside, own = restored(guess, cloudy)[:, 78:82], np.broadcast_to(ground, guess.shape)[:, 78:82]
    assert (inside * own).sum() < 0.2 * (own * own).sum()
    assert inside.mean() > 0.2 * (guess - wide(0.2))[:, 78:82].mean()


@pytest.mark.parametrize("light", [0.25, 0.33])
def test_ground_under_thin_cloud_keeps_what_does_not_look_like_cloud(light):
    cloud, ground = PATTERN.T * WHITE, PATTERN * LEAF
    answer = restored(wide(light, cloud + ground), wide(light + 0.01, cloud + ground))
    assert kept(answer, ground) > 0.4
    assert abs(kept(answer, cloud)) < 0.05


def test_the_line_of_cloud_is_that_of_its_surroundings():
    """Strong detail of the ground does not turn it."""
    ground = 4 * PATTERN * LEAF
    answer = restored(wide(0.25, ground / 2), wide(0.26, ground))
    assert kept(answer, ground / 2) > 0.9


def test_cloud_with_a_little_colour_leaves_less_of_it():
    cloud, colour = PATTERN.T * WHITE, 0.2 * PATTERN.T * LEAF
    assert kept(restored(wide(0.25, cloud + colour), wide(0.26, cloud + colour)), colour) < 0.1


def test_nothing_is_seen_through_dense_cloud():
    ground = PATTERN * LEAF
    answer = restored(wide(0.5, ground), wide(0.6, ground))
    assert abs(kept(answer, ground)) < 0.01


def test_nothing_is_seen_in_a_small_gap_of_dense_cloud():
    """Dark in near infrared, too, which does not tell cloud."""
    ground = PATTERN * np.array([1, -1, 0, 0])[:, None, None]
    guess, cloudy = wide(0.35, ground), wide(0.9)
    place = np.s_[:, 76:84, 76:84]
    cloudy[place] = wide(0.25, ground)[place]
    cloudy[3] = -0.6
    assert np.abs(restored(guess, cloudy)[:3, 78:82, 78:82]).max() < 0.006


def test_a_small_dense_cloud_beside_shade_does_not_come_back():
    """Together they are as light as the ground, and darker in near infrared."""
    cloudy = wide(0.17)
    cloudy[3] -= 0.3
    guess = cloudy + 0.02
    place = np.s_[:, 74:86, 74:86]
    cloudy[place], guess[place] = wide(0.8)[place], wide(0.6)[place]
    assert restored(guess, cloudy)[:, 77:83, 77:83].max() < 0.02


def test_the_border_of_shade_gets_no_ring_to_speak_of():
    """Ground in half shade looks like light detail of what lies in full shade."""
    cloudy, guess = wide(0.2), wide(0.2)
    for light, rim in ((0.12, 0), (0.06, 3), (0.02, 6)):
        place = np.s_[:, 40 + rim : 120 - rim, 40 + rim : 120 - rim]
        cloudy[place], guess[place] = wide(light)[place], wide(light + 0.02)[place]
    assert restored(guess, cloudy).max() < 0.11


def test_bands_in_the_infrared_do_not_tell_shade():
    """Young crops in shade are as bright in them as the ground around."""
    ground = PATTERN * WHITE
    guess, cloudy = wide(0.12, ground), wide(0.1, ground)
    guess[3] += 0.16
    cloudy[3] += 0.2
    assert kept(restored(guess, cloudy), ground) > 0.9
