import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from decr_scene.pipeline.measures.cloud_classes import classify_clouds
from decr_scene.pipeline.measures.texture import NAMES, Texture, octaves

SIDE = 128


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(0, 1, (3, SIDE, SIDE)), 0.7, axes=(1, 2))
    return (0.2 * noise - 0.4).astype(np.float32)


@pytest.fixture(scope="module")
def cloudy(truth):
    """From top to bottom: a cloud that hides the ground, a veil, clear ground, a shadow."""
    image = truth.copy()
    image[:, :30] = 0.1 * truth[:, :30] + 0.9 * 0.9
    image[:, 30:64] = 0.6 * truth[:, 30:64] + 0.4 * 0.9
    image[:, 100:] -= 0.2
    return image


@pytest.fixture(scope="module")
def texture(truth, cloudy):
    return Texture(truth, classify_clouds(cloudy, truth))


def test_every_pixel_is_in_one_region(truth, cloudy):
    found = classify_clouds(cloudy, truth)
    np.testing.assert_array_equal(sum(where.astype(int) for where in found), 1)
    for where, rows in zip(found, ((0, 26), (34, 60), (104, 128), (68, 96)), strict=True):
        assert where[slice(*rows)].all()
        assert where.mean() < 0.45


def test_a_veil_without_a_brighter_cloud_is_not_opaque(truth):
    assert classify_clouds(truth + np.float32(0.3), truth).thin.all()


def test_the_truth_has_its_own_texture(texture, truth):
    row = texture.compare(truth)
    assert len(row) == 4 * len(NAMES)
    assert list(row.values()) == pytest.approx([1] * len(row))


def test_blur_loses_the_finest_octave_first(texture, truth):
    rows = [texture.compare(gaussian_filter(truth, sigma, axes=(1, 2))) for sigma in (0.5, 1, 2)]
    for row in rows:
        assert row["octave1_opaque"] < row["octave2_opaque"] < row["octave3_opaque"] < 1
    for name in ("octave1_opaque", "octave3_thin", "gradient_clear"):
        assert 1 > rows[0][name] > rows[1][name] > rows[2][name]


def test_the_energy_of_half_the_contrast_is_a_quarter(texture, truth):
    row = texture.compare(truth / 2)
    assert [row[f"octave{n}_thin"] for n in (1, 2)] == pytest.approx([0.25] * 2, rel=1e-4)
    assert row["gradient_thin"] == pytest.approx(1, abs=1e-5)


def test_texture_that_is_made_up_has_its_edges_elsewhere(texture, truth):
    row = texture.compare(np.ascontiguousarray(truth[:, ::-1, ::-1]))
    assert row["octave1_opaque"] == pytest.approx(1, abs=0.2)
    assert row["gradient_opaque"] == pytest.approx(2 / np.pi, abs=0.05)


def test_a_flat_answer_has_no_texture(texture, truth):
    row = texture.compare(np.full_like(truth, 0.25))
    assert list(row.values()) == pytest.approx([0] * len(row), abs=1e-6)


def test_what_lies_outside_a_region_is_not_seen(texture, truth, cloudy):
    row = texture.compare(np.where(classify_clouds(cloudy, truth).opaque, truth, np.float32(0)))
    assert [row[f"{name}_opaque"] for name in NAMES] == pytest.approx([1] * len(NAMES), abs=1e-5)


def test_a_region_that_is_not_there_tells_nothing(truth):
    row = Texture(truth, classify_clouds(truth, truth)).compare(truth)
    assert np.isnan(row["octave1_opaque"])
    assert np.isnan(row["gradient_shadow"])
    assert row["octave1_clear"] == pytest.approx(1)


def test_open_water_is_no_yardstick(truth):
    water = (0.004 * truth).astype(np.float32)
    row = Texture(water, classify_clouds(water, water)).compare(truth)
    assert all(np.isnan(row[f"octave{n}_clear"]) for n in (1, 2, 3))


def test_octaves_and_what_is_left_are_the_image(truth):
    left = gaussian_filter(truth, 4.0, axes=(1, 2), truncate=3.0)
    whole = gaussian_filter(truth, 0.5, axes=(1, 2), truncate=3.0)
    np.testing.assert_allclose(sum(octaves(truth)) + left, whole, atol=1e-5)
