"""The error that is to be expected of an answer: what it depends on, and how it is fitted."""

import numpy as np
import pytest

from decr_scene.models.checkpoints.expected_error import REACH, ExpectedError, change_and_texture
from decr_scene.pipeline.measures.expected_error import fit_expected_error

ERROR = ExpectedError(0.3, 0.4, 0.2)


def images(seed=0, shape=(3, 96, 120)):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (2, *shape)).astype(np.float32)


def test_it_is_as_its_formula_says():
    cloudy = np.zeros((2, 80, 80), np.float32)
    answer = cloudy + np.float32(0.25)
    answer[:, ::2] += 0.1
    answer[:, 1::2] -= 0.1
    change, texture = change_and_texture(cloudy, answer)
    assert change[40, 40] == pytest.approx(np.hypot(0.25, 0.1), rel=1e-3)
    assert texture[40, 40] == pytest.approx(0.1, rel=1e-2)
    expected = 0.3 * change[40, 40] ** 0.4 * texture[40, 40] ** 0.2
    assert ERROR.deviation(cloudy, answer)[40, 40] == pytest.approx(expected, rel=1e-5)


def test_no_pixel_beyond_its_reach_counts():
    cloudy, answer = images()
    whole = ERROR.deviation(cloudy, answer)
    part = ERROR.deviation(cloudy[:, :, : 60 + REACH], answer[:, :, : 60 + REACH])
    np.testing.assert_array_equal(part[:, :60], whole[:, :60])


def test_numbers_that_made_errors_are_found_again():
    rng = np.random.default_rng(1)
    change, texture = np.exp(rng.uniform(-6, 0, (2, 40_000))).astype(np.float32)
    error = np.abs(rng.normal(0, 1, 40_000)) * 0.3 * change**0.4 * texture**0.2
    found = fit_expected_error(error.astype(np.float32), change, texture)
    assert (found.scale, found.change_power, found.texture_power) == pytest.approx((0.3, 0.4, 0.2), rel=0.05)


@pytest.mark.parametrize("error", [np.zeros(0, np.float32), np.zeros(5, np.float32)])
def test_no_error_is_fitted_to_nothing(error):
    with pytest.raises(ValueError, match="no error to fit"):
        fit_expected_error(error, error, error)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), 1e9])
def test_numbers_that_cannot_be_are_refused(scale):
    with pytest.raises(ValueError, match="scale of the expected error must be in 0 to 100"):
        ExpectedError(scale, 0.4, 0.2)
