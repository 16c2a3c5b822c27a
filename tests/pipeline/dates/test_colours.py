"""How the colours of one date become those of another, and how it is told whether they do."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from decr_scene.pipeline.dates.colours import Colours
from decr_scene.pipeline.dates.likeness import PATCH, Window


def ground(seed, shape=(192, 224), bands=3):
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((bands, *shape)), (0, 4, 4))
    return (0.2 * fields / fields.std()).astype(np.float32)


def fitted(ours, theirs, weights=None):
    weights = np.ones(ours.shape[1:], np.float32) if weights is None else weights
    flat = [image.reshape(len(image), -1) for image in (ours, theirs)]
    return Colours.fit(*flat, weights.ravel(), weights.size)


def explained(ours, theirs, colours):
    left, own = Window(ours, theirs, np.ones(ours.shape[1:], np.float32)).variances(colours)
    return 1 - left.sum() / own.sum()


def test_bands_that_are_mixed_and_curved_are_found():
    theirs = np.clip(ground(0), -0.5, 0.5)
    mixed = np.stack([theirs[1], 0.5 * theirs[0] - 0.3 * theirs[2], theirs[2] ** 2]) + np.float32(0.1)
    colours = fitted(mixed, 1000 + 4000 * theirs)
    np.testing.assert_allclose(colours(1000 + 4000 * theirs), mixed, atol=0.02)
    assert explained(mixed, 1000 + 4000 * theirs, colours) > 0.99


def test_unrelated_ground_becomes_flat_and_explains_nothing():
    ours, theirs = ground(1), ground(2)
    colours = fitted(ours, theirs)
    assert colours(theirs).std() < 0.2 * ours.std()
    assert abs(explained(ours, theirs, colours)) < 0.05


def test_cloud_that_nobody_saw_hardly_counts():
    theirs, cloudy = ground(3), ground(3)
    cloudy[:, 20:80, 30:90] = 0.95
    off = np.abs(fitted(cloudy, theirs)(theirs) - theirs)
    plain = np.abs(fitted(theirs, theirs)(theirs) - theirs)
    assert off.mean() < plain.mean() + 0.03


def test_pixels_of_no_weight_have_no_say():
    theirs, ours = ground(4), ground(4)
    ours[:, :, 100:] = 0.9
    weights = np.ones(ours.shape[1:], np.float32)
    weights[:, 100:] = 0
    left = (slice(None), slice(None), slice(0, 100))
    np.testing.assert_allclose(fitted(ours, theirs, weights)(theirs)[left], theirs[left], atol=0.02)


def test_few_pixels_are_fitted_by_a_plane():
    theirs = ground(5)
    flat = theirs.reshape(3, -1)
    weights = np.ones(flat.shape[1], np.float32)
    assert Colours.fit(flat**2, flat, weights, 10).terms == 4
    assert Colours.fit(flat**2, flat, weights, 10**4).terms == 10


def test_a_band_of_one_value_and_what_has_none_are_no_trouble():
    theirs, ours = ground(6), ground(6)
    theirs[1] = 7
    values = theirs.copy()
    values[:, :5] = np.nan
    mapped = fitted(ours, theirs)(values)
    assert np.isfinite(mapped).all()
    np.testing.assert_allclose(mapped[0, 5:], ours[0, 5:], atol=0.02)


@pytest.mark.parametrize("hidden", [False, True])
def test_squares_are_alike_where_both_dates_show_the_same_ground(hidden):
    ours, theirs = ground(7), 3 + 2 * ground(7)
    if hidden:
        theirs[:, :PATCH, :PATCH] = ground(8)[:, :PATCH, :PATCH]
    alike = Window(ours, theirs, np.ones(ours.shape[1:], np.float32)).alike()
    assert alike[:PATCH, :PATCH].all() != hidden
    assert alike[PATCH:, PATCH:].all()
