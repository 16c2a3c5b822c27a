"""Crops as they are drawn: compressed, and in the tone that pictures are delivered in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from decr_scene.models.clouds.veils import VeilRecipe
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.crops import LightChange, compressed
from decr_scene.models.data.source import OTHER_LIGHT, Pair, PairSource, in_other_light

BANDS = ("blue", "green", "red", "nir")


def ground(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """A smooth dark image ``(4, side, side)`` whose bands differ."""
    rows, cols = np.mgrid[:side, :side].astype(np.float32) / side
    wave = 0.2 * np.sin(6 * rows) * np.cos(5 * cols)
    levels = np.array([-0.8, -0.6, -0.7, -0.2], np.float32)
    return (levels[:, None, None] + wave + rng.normal(0, 0.02, (4, side, side))).astype(np.float32)


def test_compression_keeps_bands_in_their_places() -> None:
    """A wrong order of bands, or a band lost, would be off by tenths."""
    image = ground(np.random.default_rng(0))
    fine, coarse = compressed(image, 95), compressed(image, 10)
    assert fine.shape == image.shape
    assert fine.dtype == np.float32
    assert np.abs(fine - image).mean() < 0.02 < np.abs(coarse - image).max()
    one = compressed(image[:1], 95)
    assert one.shape == (1, 64, 64)
    assert np.abs(one - image[:1]).mean() < 0.02


def drawn(config: DataConfig, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    image = ground(np.random.default_rng(0), side)
    source = PairSource(config, ((Pair("a", image, image, None),),))
    crops = [source.crop(np.random.default_rng(seed), side, BANDS) for seed in range(8)]
    return np.stack([crop.cloudy for crop in crops]), np.stack([crop.clear for crop in crops])


def test_truth_has_the_mean_and_spread_that_were_asked_for() -> None:
    config = DataConfig(
        clear="x",
        simulate=1.0,
        brightness=(1, 1),
        veil=1.0,
        veil_clouds=0,
        mean=(0.5, 0.6),
        spread=(0.04, 0.05),
    )
    light = (drawn(config)[1] + 1) / 2
    means = light.mean(axis=(2, 3))
    assert ((means[:, :3] > 0.44) & (means[:, :3] < 0.67)).all()
    assert (means[:, 3] > 1.2 * means[:, :3].max(axis=1)).all(), "near infrared keeps its ratio"
    inside = (light - means[..., None, None]).std(axis=(1, 2, 3))
    assert ((inside > 0.035) & (inside < 0.055)).all()


def test_compressed_crops_are_compressed_in_the_cloudy_image_alone() -> None:
    plain = DataConfig(clear="x", simulate=1.0, veil=1.0, veil_clouds=0)
    config = DataConfig(clear="x", simulate=1.0, veil=1.0, veil_clouds=0, jpeg=(10, 20))
    (cloudy, clear), (other, truth) = drawn(plain), drawn(config)
    steps = [len(np.unique(np.rint((image + 1) * 127.5 * 1000))) for image in other]
    assert min(steps) <= 256 < max(steps), "half of the crops lie on 256 levels"
    assert len(np.unique(truth)) > 10_000
    assert cloudy.shape == other.shape
    assert clear.shape == truth.shape


def test_a_band_outside_the_visible_is_stretched_in_truth_and_cloudy_alike() -> None:
    """A grey veil is then not grey there; the visible bands stay as they were."""
    plain = DataConfig(clear="x", simulate=1.0, veil=1.0, veil_clouds=0)
    config = DataConfig(clear="x", simulate=1.0, veil=1.0, veil_clouds=0, stretch=0.4)
    for was, shown in zip(drawn(plain), drawn(config), strict=True):
        was, shown = ((np.sort(image.reshape(8, 4, -1)) + 1) / 2 for image in (was, shown))
        np.testing.assert_array_equal(shown[:, :3], was[:, :3])
        gains = [np.polyfit(a[b < 1], b[b < 1], 1) for a, b in zip(was[:, 3], shown[:, 3], strict=True)]
        gain, offset = np.array(gains).T
        assert (np.abs(np.log(gain)) < 0.41).all()
        assert (np.abs(offset) < 0.14).all()
        assert gain.min() < 0.85 < 1.15 < gain.max()


def test_under_a_veil_the_cloudy_date_may_be_shown_in_a_light_of_its_own() -> None:
    """Brighter or darker by one factor, towards the truth's mean; not where the veil is thin."""
    thick = VeilRecipe((1.0, 2.0), light=(0.8, 0.9))
    plain = DataConfig(clear="x", simulate=1.0, veil=1.0, veil_clouds=0, veils=thick, mean=(0.2, 0.2))
    (was, clear), (shown, truth) = drawn(plain), drawn(replace(plain, shown=1.0))
    was, shown, clear = ((np.sort(image.reshape(8, -1)) + 1) / 2 for image in (was, shown, clear))
    np.testing.assert_array_equal(np.sort(truth.reshape(8, -1)), 2 * clear - 1)
    factors = shown.mean(1) / was.mean(1)
    assert (np.abs((shown - was * factors[:, None]).mean(1)) < 1e-3).all()
    least, most = np.sort([np.ones(8), clear.mean(1) / was.mean(1)], axis=0)
    beyond = [least / factors, factors / most]
    assert np.max(beyond) < np.exp(OTHER_LIGHT + 1e-3)
    assert factors.min() < 0.7, "light of the veil .8 to .9, of the ground .2"
    assert factors.max() > 0.8
    half = np.sort(drawn(replace(plain, shown=0.5))[0].reshape(8, -1))
    same = (np.abs((half + 1) / 2 - was) < 1e-6).all(1)
    assert 0 < same.sum() < 8
    thin = replace(plain, veils=VeilRecipe((0.05, 0.15), (0.0, 0.0)))
    one, two = (np.sort(drawn(config)[0].ravel()) for config in (thin, replace(thin, shown=1.0)))
    np.testing.assert_array_equal(one, two)


def test_a_light_of_its_own_may_lie_beyond_both() -> None:
    image = np.full((4, 8, 8), -0.2, np.float32)
    shown = [in_other_light(np.random.default_rng(n), image, image) for n in range(40)]
    means = [float(own.mean() + 1) / 0.8 for own in shown]
    assert np.exp(-OTHER_LIGHT) - 1e-3 < min(means) < 0.95 < 1.05 < max(means) < np.exp(OTHER_LIGHT) + 1e-3


def test_a_date_may_be_stretched_about_its_mean_besides() -> None:
    """By one gain, so that its black falls; its mean is one that it might have had anyway."""
    rng = np.random.default_rng(0)
    veil, clear = rng.uniform(0.2, 0.4, (4, 32, 32)), rng.uniform(-0.5, 0.1, (4, 32, 32))
    veil, clear = veil.astype(np.float32), clear.astype(np.float32)
    gains = []
    for n in range(40):
        plain = in_other_light(np.random.default_rng(n), veil, clear)
        shown = in_other_light(np.random.default_rng(n), veil, clear, 0.5)
        assert shown.mean() == pytest.approx(float(plain.mean()), abs=1e-4)
        gain, offset = np.polyfit(plain.ravel(), shown.ravel(), 1)
        np.testing.assert_allclose(shown, gain * plain + offset, atol=1e-4)
        gains.append(gain)
    assert 1 <= min(gains) < 1.15 < 1.5 < max(gains) < np.exp(0.5)


def test_ranges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="shown_gain must be"):
        DataConfig(clear="x", simulate=1.0, shown=1.0, shown_gain=1.1)
    with pytest.raises(ValueError, match="beside shown"):
        DataConfig(clear="x", simulate=1.0, shown_gain=0.5)
    with pytest.raises(ValueError, match="stretch must be"):
        DataConfig(clear="x", simulate=1.0, stretch=-0.1)
    with pytest.raises(ValueError, match="beside mean"):
        DataConfig(clear="x", simulate=1.0, spread=(0.1, 0.2))
    with pytest.raises(ValueError, match="qualities"):
        DataConfig(clear="x", simulate=1.0, jpeg=(90, 30))


def test_offset_adds_light() -> None:
    level = np.full((1, 1, 1), 0.25, np.float32)
    shown = LightChange(np.ones((1, 1, 1), np.float32), 1.0, np.zeros((1, 1, 1), np.float32), level)
    assert np.allclose(shown.apply(np.full((1, 2, 2), -0.5, np.float32)), 0.0)
