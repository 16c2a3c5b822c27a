"""Veils: even, neutral, and all to be taken off."""

import numpy as np
import pytest

from decr_scene.models.clouds.veils import VeilRecipe, veiled

BANDS = ("blue", "green", "red", "nir")


def ground(side=96):
    return np.random.default_rng(0).uniform(-0.8, 0.4, (4, side, side)).astype(np.float32)


def draw(recipe, seed=1, image=None):
    return veiled(ground() if image is None else image, BANDS, np.random.default_rng(seed), recipe)


def test_contrast_falls_by_the_transmission():
    recipe = VeilRecipe(
        thickness=(0.7, 0.7), uneven=(0, 0), blur=(0, 0), transmission={b: (1, 1) for b in BANDS}
    )
    drawn = draw(recipe)
    np.testing.assert_allclose(
        drawn.image.std(axis=(1, 2)), ground().std(axis=(1, 2)) * np.exp(-0.7), rtol=1e-3
    )
    np.testing.assert_allclose(drawn.opacity, 1 - np.exp(-0.7), rtol=1e-3)


def test_a_thick_veil_is_neutral():
    drawn = draw(VeilRecipe(thickness=(9, 9), uneven=(0, 0)))
    means = (drawn.image.mean(axis=(1, 2)) + 1) / 2
    assert np.ptp(means) < 2 * VeilRecipe().tint + 0.01
    assert 0.59 < means.mean() < 0.96


def test_a_veil_is_smooth():
    recipe = VeilRecipe(thickness=(1, 1), uneven=(0.5, 0.5), fine=0.0, blur=(0, 0))
    flat = np.full((4, 96, 96), -0.5, np.float32)
    for seed in range(5):
        image = draw(recipe, seed, flat).image
        assert np.abs(np.diff(image, axis=2)).max() < 0.06


def test_the_same_seed_draws_the_same_veil():
    first, second = draw(VeilRecipe(), 7), draw(VeilRecipe(), 7)
    np.testing.assert_array_equal(first.image, second.image)


def test_a_reversed_range_is_refused():
    with pytest.raises(ValueError, match="thickness must rise"):
        VeilRecipe(thickness=(2, 1))
