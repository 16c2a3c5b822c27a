import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decr_scene.models.clouds.fields import Canvas, Spectrum
from decr_scene.models.clouds.simulate import (
    CLEAR,
    CLOUD,
    CLOUD_OPACITY,
    LEAST,
    SHADOW,
    SHADOW_DEPTH,
    THIN,
    THIN_OPACITY,
    CloudRecipe,
    SimulatedCloud,
    _cast,
    classify,
    simulate,
    veil,
)
from decr_scene.models.clouds.types import TYPES

BANDS = ("red", "green", "blue", "nir")
SHADOWLESS = (0.0, 0.0)


def ground(height: int = 64, width: int = 64, bands: int = 4, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.9, 0.2, (bands, height, width)).astype(np.float32)


def only(name: str, **changes: Any) -> CloudRecipe:
    """A recipe of one kind of cloud, which every image has."""
    plain: dict[str, Any] = {"types": {name: 1.0}, "clear": 0.0, "aside": 0.0, "second": 0.0}
    return CloudRecipe(**plain | changes)


def scenes(
    recipe: CloudRecipe | None = None, count: int = 12, image: NDArray[np.float32] | None = None
) -> list[SimulatedCloud]:
    image = ground() if image is None else image
    return [simulate(image, BANDS, np.random.default_rng(seed), recipe) for seed in range(count)]


def test_one_seed_gives_one_cloud() -> None:
    first, again, other = (simulate(ground(), BANDS, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name in ("cloudy", "opacity", "shadow", "mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.cloudy, other.cloudy)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    bands=st.lists(st.sampled_from([*BANDS, "swir", "thermal"]), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_and_seed_gives_an_image_in_range(
    height: int, width: int, bands: list[str], seed: int
) -> None:
    clear = ground(height, width, len(bands), seed % 7)
    drawn = simulate(clear, tuple(bands), np.random.default_rng(seed))
    assert drawn.cloudy.shape == clear.shape
    assert drawn.opacity.shape == drawn.shadow.shape == drawn.mask.shape == (height, width)
    assert [a.dtype for a in (drawn.cloudy, drawn.opacity, drawn.shadow)] == [np.float32] * 3
    assert drawn.mask.dtype == np.uint8
    assert np.abs(drawn.cloudy).max() <= 1
    for part in (drawn.opacity, drawn.shadow):
        assert part.min() >= 0
        assert part.max() <= 1
    untouched = (drawn.opacity == 0) & (drawn.shadow == 0)
    np.testing.assert_array_equal(drawn.cloudy[:, untouched], clear[:, untouched])


def test_the_clear_image_is_left_alone() -> None:
    clear = ground()
    before = clear.copy()
    scenes(image=clear)
    np.testing.assert_array_equal(clear, before)


def test_clear_ground_comes_back_bit_for_bit() -> None:
    clear = ground()
    shares = []
    for drawn in scenes(only("cumulus", coverage=(0.2, 0.4)), image=clear):
        untouched = (drawn.opacity == 0) & (drawn.shadow == 0)
        np.testing.assert_array_equal(drawn.cloudy[:, untouched], clear[:, untouched])
        shares.append(untouched.mean())
    assert np.mean(shares) > 0.2


def test_some_images_have_no_cloud() -> None:
    clear = ground()
    for drawn in scenes(CloudRecipe(clear=1.0, aside=0.0), count=3, image=clear):
        np.testing.assert_array_equal(drawn.cloudy, clear)
        assert not drawn.mask.any()
    plain = sum(not drawn.opacity.any() and not drawn.shadow.any() for drawn in scenes(count=200))
    assert 4 <= plain <= 40


def test_a_cloud_beside_the_image_casts_its_shadow_in() -> None:
    drawn = scenes(CloudRecipe(clear=0.0, aside=1.0), count=20)
    assert not any(one.opacity.any() for one in drawn)
    assert sum(bool((one.mask == SHADOW).any()) for one in drawn) >= 10
    for one in drawn:  # it comes in from an edge
        border = np.concatenate([one.shadow[0], one.shadow[-1], one.shadow[:, 0], one.shadow[:, -1]])
        assert one.shadow.max() <= border.max() + 0.3


@given(
    light=st.floats(0, 1),
    cloud=st.floats(0, 1),
    factor=st.floats(0, 2),
    taus=st.tuples(*[st.floats(0, 20)] * 2),
)
def test_thicker_cloud_is_nearer_to_the_cloud_s_own_light(
    light: float, cloud: float, factor: float, taus: tuple[float, float]
) -> None:
    thin, thick = (
        veil(np.array([light], np.float32), np.array([tau], np.float32), factor, cloud)[0]
        for tau in sorted(taus)
    )
    assert abs(thick - cloud) <= abs(thin - cloud) + 1e-6
    assert min(light, cloud) - 1e-6 <= thick <= max(light, cloud) + 1e-6


def test_no_thickness_shows_the_ground_and_endless_thickness_the_cloud() -> None:
    light = np.array([0.1, 0.5], np.float32)
    np.testing.assert_allclose(veil(light, np.zeros(2, np.float32), 1.0, 0.9), light, rtol=1e-6)
    np.testing.assert_allclose(veil(light, np.full(2, 60, np.float32), 1.0, 0.9), 0.9, rtol=1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_longer_waves_are_disturbed_less(name: str) -> None:
    bands = ("blue", "green", "red", "nir", "swir")
    grey = np.full((5, 64, 64), -0.7, np.float32)
    recipe = only(name, thickness=(0.3, 1.0), shadow_strength=SHADOWLESS, tint=0.0)
    for seed in range(5):
        drawn = simulate(grey, bands, np.random.default_rng(seed), recipe)
        change = np.abs(drawn.cloudy - grey).mean(axis=(1, 2))
        assert (np.diff(change) < 0).all()


def test_half_of_the_images_have_cloud_of_another_light_beyond_the_visible() -> None:
    recipe = only("stratus", thickness=(12, 12), coverage=(1, 1), tint=0.0, brightness_bounds=(0.9, 0.9))
    plain = scenes(recipe, 40)
    drawn = scenes(dataclasses.replace(recipe, beyond=(0.5, 0.7)), 40)
    ratios = []
    for other, white in zip(drawn, plain, strict=True):
        np.testing.assert_array_equal(other.cloudy[:3], white.cloudy[:3])
        thick = white.opacity > 0.999
        ratios.append(float(np.median(((other.cloudy[3] + 1) / (white.cloudy[3] + 1))[thick])))
    changed = np.array([ratio for ratio in ratios if ratio < 0.99])
    assert 10 < len(changed) < 30
    assert 0.49 < changed.min() < 0.56
    assert 0.64 < changed.max() < 0.71
    assert max(float(s.cloudy.max()) for s in scenes(dataclasses.replace(recipe, beyond=(2, 2)), 4)) <= 1


def test_thin_cloud_leaves_the_ground_visible() -> None:
    clear = ground()
    for drawn in scenes(only("haze", thickness=(0.2, 0.5)), count=5, image=clear):
        assert np.corrcoef(drawn.cloudy[3].ravel(), clear[3].ravel())[0, 1] > 0.8


def test_an_unknown_band_is_dimmed_by_nine_tenths() -> None:
    clear = np.repeat(ground(bands=1), 2, axis=0)
    recipe = only("cumulus", shadow_strength=SHADOWLESS)
    cloudy = simulate(clear, ("red", "ultraviolet"), np.random.default_rng(1), recipe).cloudy
    np.testing.assert_array_equal(cloudy[0], cloudy[1])


@pytest.mark.parametrize("name", ["cumulus", "altocumulus", "stratus", "cirrus"])
@pytest.mark.parametrize("coverage", [0.2, 0.7])
def test_the_wanted_part_of_the_image_is_covered(name: str, coverage: float) -> None:
    drawn = scenes(only(name, coverage=(coverage, coverage)), image=ground(96, 96))
    covered = [float(np.isin(one.mask, (CLOUD, THIN)).mean()) for one in drawn]
    assert np.mean(covered) == pytest.approx(coverage, abs=0.06)


def test_coverage_spreads_over_its_range() -> None:
    drawn = scenes(only("cumulus", coverage=(0.1, 0.9)), count=60)
    covered = [float(np.isin(one.mask, (CLOUD, THIN)).mean()) for one in drawn]
    assert min(covered) < 0.25
    assert max(covered) > 0.75
    assert np.mean(covered) == pytest.approx(0.5, abs=0.12)


def test_the_mask_says_what_opacity_and_shadow_say() -> None:
    for drawn in scenes(count=30):
        np.testing.assert_array_equal(drawn.mask, classify(drawn.opacity, drawn.shadow))
        assert (drawn.opacity[drawn.mask == CLOUD] >= CLOUD_OPACITY).all()
        thin = drawn.opacity[drawn.mask == THIN]
        assert ((thin >= THIN_OPACITY) & (thin < CLOUD_OPACITY)).all()
        assert (drawn.shadow[drawn.mask == SHADOW] >= SHADOW_DEPTH).all()
        assert (drawn.opacity[np.isin(drawn.mask, (CLEAR, SHADOW))] < THIN_OPACITY).all()


def test_a_shadow_darkens_and_leaves_blue_the_most_light() -> None:
    clear = ground()
    seen = 0
    for drawn in scenes(only("cumulus", coverage=(0.1, 0.3), shadow_offset=(20, 30)), image=clear):
        shaded = (drawn.opacity == 0) & (drawn.shadow > 0.1)
        seen += int(shaded.sum())
        left = (drawn.cloudy[:, shaded] + 1) / (clear[:, shaded] + 1)
        assert (left < 1).all()
        assert (left[2] > left[1]).all()
        assert (left[1] > left[3]).all()
    assert seen > 100


@pytest.mark.parametrize("offset", [(12, 5), (-9, 7), (0, -14), (-3, -3)])
def test_a_shadow_falls_where_the_sun_puts_it(offset: tuple[int, int]) -> None:
    canvas = Canvas((60, 50), offset, blur=1)
    tau = np.zeros(canvas.span, np.float32)
    canvas.crop(tau)[28:33, 23:28] = 5
    rows, cols = np.nonzero(_cast(tau, canvas, 0.9) > LEAST)
    assert (rows.mean(), cols.mean()) == pytest.approx((30 + offset[0], 25 + offset[1]), abs=0.01)


def test_thick_cloud_keeps_its_texture() -> None:
    for drawn in scenes(only("cumulus", thickness=(8, 12), coverage=(0.8, 0.9))):
        thick = drawn.cloudy[0][drawn.opacity > 0.99]
        assert thick.max() < 1
        assert thick.std() > 0.01


def test_noise_does_not_wrap_round() -> None:
    rng = np.random.default_rng(0)
    fields = [Spectrum(scale=60, slope=4.0).draw((96, 96), rng) for _ in range(60)]
    step = np.mean([np.abs(field[:, 1] - field[:, 0]).mean() for field in fields])
    seam = np.mean([np.abs(field[:, -1] - field[:, 0]).mean() for field in fields])
    assert seam > 8 * step


def test_a_second_layer_lies_over_the_first() -> None:
    one, two = (
        np.mean([drawn.opacity.mean() for drawn in scenes(only("stratus", second=second), count=30)])
        for second in (0.0, 1.0)
    )
    assert two > 1.1 * one


def test_a_long_scene_is_as_good_as_a_square_one() -> None:
    clear = ground(700, 3)
    drawn = simulate(clear, BANDS, np.random.default_rng(5), only("stratus", coverage=(0.5, 0.5)))
    assert np.isin(drawn.mask, (CLOUD, THIN)).mean() == pytest.approx(0.5, abs=0.1)


def test_a_recipe_travels_to_workers() -> None:
    recipe = CloudRecipe(coverage=(0.1, 0.2))
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"thickness": (1.0, float("inf"))},
            r"thickness must rise within \[0.01, 1000\], got \(1, inf\)",
        ),
        ({"thickness": (1.0, 1e308)}, "thickness must rise"),
        ({"scale": (1e308, 1e308)}, "scale must rise"),
        ({"shadow_offset": (1e9, 1e9)}, "shadow_offset must rise"),
        ({"brightness": (1.0, 1e308)}, "brightness must rise"),
        ({"transmission": {"red": math.nan}}, "transmission must have factors from 0 to 100"),
        ({"coverage": (0.5, 0.2)}, r"coverage must rise within \[0, 1\], got \(0.5, 0.2\)"),
        ({"coverage": (0.5, 1.2)}, "coverage must rise"),
        ({"thickness": (0.0, 1.0)}, "thickness must rise"),
        ({"shadow_strength": (0.0, 1.5)}, "shadow_strength must rise"),
        ({"beyond": (0.5, 2.1)}, "beyond must rise"),
        ({"beyond": (-0.1, 1.0)}, "beyond must rise"),
        ({"clear": 1.5}, r"clear must be in \[0, 1\], got 1.5"),
        ({"clear": 0.7, "aside": 0.7}, "must not exceed 1 together"),
        ({"types": {"cumulus": 0.0}}, "types must have weights"),
        ({"types": {"nimbus": 1.0}}, "types must be of cumulus, .*, got nimbus"),
        ({"transmission": {"blue": -1.0}}, "transmission must have factors from 0"),
        ({"skylight": {"blue": 1.1}}, "skylight must have parts"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CloudRecipe(**changes)


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (4, 0, 64)])
def test_an_image_needs_a_channel_for_each_band(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clear must be \(C, H, W\)"):
        simulate(np.zeros(shape, np.float32), BANDS, np.random.default_rng(0))


def test_thin_cloud_darkens_a_white_roof_the_less_the_brighter_it_is() -> None:
    roof = np.full((1, 96, 96), 0.8, np.float32)
    means = []
    for light in (0.64, 0.88, 1.0):
        recipe = CloudRecipe(
            thickness=(0.3, 1.0),
            coverage=(0.9, 1.0),
            clear=0,
            aside=0,
            second=0,
            thin_light=light,
            types={"cirrus": 1.0},
        )
        means.append(float(simulate(roof, ("red",), np.random.default_rng(4), recipe).cloudy.mean()))
    assert means[0] < means[1] < means[2]
    assert means[0] < 0.8
