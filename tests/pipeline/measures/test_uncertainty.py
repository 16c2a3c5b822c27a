import numpy as np
import pytest

from decr_scene.pipeline.measures.cloud_classes import CloudClasses
from decr_scene.pipeline.measures.uncertainty import Uncertainty, error_of, spread_of

SHAPE = (3, 64, 64)
NOTHING = np.zeros(SHAPE[1:], bool)
LEFT = np.arange(64) < np.full((64, 1), 32)
CLASSES = CloudClasses(LEFT, NOTHING, NOTHING, ~LEFT)
TRUTH = np.zeros(SHAPE, np.float32)
DEVIATION = np.linspace(0.01, 0.4, 64, dtype=np.float32)


def drawn(deviation, count=6, seed=0):
    """Samples around the truth."""
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE)).astype(np.float32) * deviation


def calibration(*images):
    uncertainty = Uncertainty()
    for samples in images:
        uncertainty.add(spread_of(samples), error_of(samples[0], TRUTH), CLASSES)
    return uncertainty.calibration()


def test_samples_around_the_truth_foretell_their_error():
    told = calibration(drawn(DEVIATION), drawn(DEVIATION, seed=1))
    assert [row["uncertainty_rank"] > 0.7 for row in told.correlations] == [True, True]
    assert len(told.deciles) == 10
    stated = [row["std_dn"] for row in told.deciles]
    assert stated == sorted(stated)
    for row in told.deciles:
        assert row["error_dn"] == pytest.approx(row["std_dn"], rel=0.25)


def test_samples_that_agree_too_much_state_less_than_their_error():
    samples = drawn(DEVIATION)
    told = calibration(list(samples[0] + 0.2 * samples))
    assert all(row["error_dn"] > 4 * row["std_dn"] for row in told.deciles[3:])
    assert told.correlations[0]["uncertainty_rank"] > 0.5, "the order is right all the same"


def test_a_spread_that_knows_nothing_of_the_error_has_no_rank():
    samples = drawn(np.float32(0.1))
    error = np.random.default_rng(9).normal(0, 1, SHAPE).astype(np.float32)
    assert abs(calibration(list(samples + error)).correlations[0]["uncertainty_rank"]) < 0.1


def test_a_spread_the_wrong_way_round_is_negative():
    assert (
        calibration(list(drawn(DEVIATION) + DEVIATION[::-1] * 5)).correlations[0]["uncertainty_rank"] < -0.7
    )


def test_regions_are_told_apart():
    mixed = np.where(np.arange(64) < 32, 0.1, DEVIATION).astype(np.float32)
    (row,) = calibration(drawn(mixed)).correlations
    assert row["uncertainty_rank_opaque"] < row["uncertainty_rank_clear"] - 0.1
    assert np.isnan(row["uncertainty_rank_thin"])


def test_samples_that_do_not_differ_have_no_rank():
    (row,) = calibration([TRUTH + 1, TRUTH + 1]).correlations
    assert np.isnan(row["uncertainty_rank"])
