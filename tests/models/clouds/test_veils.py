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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thickness": (2, 1)}, "thickness must rise"),
        ({"scale": (0, 0)}, r"scale must rise within \[0.1, 100000\], got \(0, 0\)"),
        ({"fine_scale": (0, 8)}, "fine_scale must rise"),
        ({"blur": (1e9, 1e9)}, r"blur must rise within \[0, 100\]"),
        ({"tint": -0.1}, r"tint must be in \[0, 1\]"),
        ({"transmission": {"red": (1, 0)}}, "transmission of red must rise"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        VeilRecipe(**changes)


def test_half_of_the_veils_have_another_light_beyond_the_visible():
    def lights(beyond):
        recipe = VeilRecipe(thickness=(9, 9), uneven=(0, 0), light=(0.8, 0.8), tint=0, beyond=beyond)
        return np.array([(draw(recipe, seed).image.mean((1, 2)) + 1) / 2 for seed in range(40)])

    drawn = lights((0.5, 0.7))
    np.testing.assert_allclose(drawn[:, :3], 0.8, atol=0.01)
    other = drawn[:, 3] < 0.7
    assert 10 < other.sum() < 30
    np.testing.assert_allclose(drawn[~other, 3], 0.8, atol=0.01)
    assert 0.39 < drawn[other, 3].min() < 0.45
    assert 0.51 < drawn[other, 3].max() < 0.58
    assert lights((2.0, 2.0)).max() <= 1


@pytest.mark.parametrize("name", ["beyond", "colour"])
@pytest.mark.parametrize("limits", [(-0.1, 1), (0, 2.1), (1.2, 1)])
def test_other_limits_are_refused(name, limits):
    with pytest.raises(ValueError, match=f"{name} must rise"):
        VeilRecipe(**{name: limits})


@pytest.mark.parametrize("name", ["beyond", "colour"])
def test_plain_veils_draw_no_number_more(name):
    """So that a run draws the same crops as before there were other veils."""

    def next_number(recipe):
        rng = np.random.default_rng(1)
        veiled(ground(), BANDS, rng, recipe)
        return rng.random()

    assert next_number(VeilRecipe()) != next_number(VeilRecipe(**{name: (1, 1 + 1e-9)}))


def test_a_veil_of_large_drops_dims_all_bands_alike():
    def kept(colour):
        recipe = VeilRecipe(thickness=(1.5, 1.5), uneven=(0, 0), blur=(0, 0), colour=colour)
        deviations = [draw(recipe, seed).image.std((1, 2)) for seed in range(20)]
        return np.mean(deviations, axis=0) / ground().std((1, 2))

    np.testing.assert_allclose(kept((0.0, 0.0)), np.exp(-1.5), rtol=1e-3)
    assert kept((1.0, 1.0))[0] < 0.9 * kept((1.0, 1.0))[2]  # blue, red
    np.testing.assert_array_equal(kept((1.0, 1.0)), kept(VeilRecipe().colour))
