import numpy as np
import pytest

from decr_scene.models.data.anchor import DECAY, clearness, context_of, pull_push


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (32, 32), (33, 70), (5, 128)])
def test_what_counts_in_full_keeps_its_value_and_the_rest_lies_between(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (4, *shape)).astype(np.float32)
    weights = (rng.random(shape) > 0.6).astype(np.float32)
    weights[0, 0] = 1
    values[:, weights == 0] = np.nan
    filled, nearness = pull_push(values, weights)
    assert filled.shape == values.shape
    assert nearness.shape == shape
    assert filled.dtype == np.float32
    np.testing.assert_allclose(filled[:, weights == 1], values[:, weights == 1], rtol=1e-6)
    assert np.all(np.abs(filled) <= 1)
    assert np.all(nearness[weights == 1] == 1)
    assert np.all((nearness > 0) & (nearness <= 1))


def test_a_flat_image_is_filled_flat() -> None:
    weights = np.zeros((40, 50), np.float32)
    weights[3, 7] = 0.2
    filled, _ = pull_push(np.full((2, 40, 50), 0.3, np.float32), weights)
    np.testing.assert_allclose(filled, 0.3, rtol=1e-5)


def test_nearness_falls_with_the_distance_by_the_decay_a_doubling() -> None:
    weights = np.zeros((64, 512), np.float32)
    weights[:, :64] = 1
    nearness = pull_push(np.zeros((1, 64, 512), np.float32), weights)[1][32]
    assert np.all(np.diff(nearness[64:]) <= 1e-6)
    assert nearness[64 + 128] / nearness[64 + 64] == pytest.approx(DECAY, abs=0.15)


def test_where_nothing_is_clear_nothing_is_known() -> None:
    filled, nearness = pull_push(np.full((3, 8, 8), np.nan, np.float32), np.zeros((8, 8), np.float32))
    assert not filled.any()
    assert not nearness.any()


def test_context_holds_anchor_cloud_shadow_and_nearness() -> None:
    image = np.full((4, 16, 16), -0.5, np.float32)
    cloud, shadow = np.zeros((2, 16, 16), np.float32)
    cloud[4:9, 4:9], image[:, 4:9, 4:9] = 0.6, 1.0
    context = context_of(image, cloud, shadow)
    assert context.shape == (7, 16, 16)
    assert context.dtype == np.float32
    np.testing.assert_allclose(context[:4], -0.5, rtol=1e-5)
    np.testing.assert_array_equal(context[4], cloud)
    assert context[6, 0, 0] == 1
    assert context[6, 6, 6] < DECAY + 1e-6


def test_likelier_cloud_or_shadow_than_not_counts_nothing() -> None:
    half = np.array([[0.0, 0.25, 0.5, 0.9]], np.float32)
    np.testing.assert_allclose(clearness(half, half * 0), [[1, 0.5, 0, 0]])
    np.testing.assert_allclose(clearness(half * 0, half), [[1, 0.5, 0, 0]])
    np.testing.assert_allclose(clearness(half * 0, half * 0, half), half)
