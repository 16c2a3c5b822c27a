"""Statistics, gathered in any order and in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decr_scene.pipeline.writing.statistics import BandStatistics


@given(
    st.lists(st.lists(st.integers(-500, 500), max_size=50), min_size=1, max_size=6), st.integers(-300, 300)
)
def test_statistics_add_up(parts, nodata):
    arrays = [np.array(part, "int16") for part in parts]
    found = sum((BandStatistics.of(a, a != nodata) for a in arrays), BandStatistics())
    everything = np.concatenate(arrays)
    valid = everything[everything != nodata].astype(float)
    assert (found.pixels, found.count) == (everything.size, valid.size)
    if valid.size:
        expected = (valid.min(), valid.max(), valid.mean(), valid.var() * valid.size)
        np.testing.assert_allclose((found.low, found.high, found.mean, found.squares), expected, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_statistics_keep_their_digits(offset):
    values = (offset + np.random.default_rng(3).normal(0, 0.1, 200_000)).astype("float64")
    found = BandStatistics.of(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-13, abs=1e-13)
    assert (found.squares / found.count) ** 0.5 == pytest.approx(values.std(), rel=1e-6)
