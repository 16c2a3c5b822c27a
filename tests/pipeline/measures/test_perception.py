import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.measures import features, perception
from decr_scene.pipeline.measures.cloud_classes import CloudClasses
from decr_scene.pipeline.measures.features import Encoder, distance_maps, mean_distance
from decr_scene.pipeline.measures.perception import Perception, frechet_distance

BANDS = ("red", "green", "blue")
SHAPE = (256, 256)


@pytest.fixture(scope="module")
def ground():
    """Fields with some grain, in [-1, 1]."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.uniform(-0.8, 0.2, (3, 16, 16)), np.ones((16, 16)))
    return (fields + rng.normal(0, 0.04, fields.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(BANDS)


@pytest.fixture(scope="module")
def apart(encoder, ground):
    """Distance of an image to the ground."""
    scaling = encoder.scaling(ground)
    own = encoder(ground, scaling)

    def measured(image, where=None):
        area = np.ones(image.shape[1:], bool) if where is None else where
        return mean_distance(distance_maps(encoder(image.astype(np.float32), scaling), own), area)

    return measured


def noisy(image, deviation):
    return image + np.random.default_rng(1).normal(0, deviation, image.shape).astype(np.float32)


def test_an_image_does_not_look_different_from_itself(apart, ground):
    assert apart(ground) == 0


@pytest.mark.parametrize(
    "worse",
    [
        [lambda image, s=s: gaussian_filter(image, s, axes=(1, 2)) for s in (0.5, 1, 2, 4)],
        [lambda image, s=s: noisy(image, s) for s in (0.02, 0.05, 0.1, 0.2)],
    ],
    ids=["blur", "noise"],
)
def test_the_distance_grows(apart, ground, worse):
    found = [apart(change(ground)) for change in worse]
    assert found[0] > 0
    assert found == sorted(found)
    assert found[-1] > 2 * found[0]


def test_the_distance_is_of_its_region(apart, ground):
    other = ground.copy()
    other[:, :128] = noisy(ground[:, :128], 0.2)
    upper = np.arange(256)[:, None] < np.full(256, 96)
    assert apart(other, upper) > 4 * apart(other, upper[::-1])


def test_bands_are_seen_by_their_names(encoder, ground):
    turned, mirrored = Encoder(BANDS[::-1]), np.ascontiguousarray(ground[::-1])
    (one,), (other,) = encoder(ground, encoder.scaling(ground)), turned(mirrored, turned.scaling(mirrored))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2)


def test_the_encoder_is_that_of_the_detector(ground):
    """The network answers as without the taps, and they have the sizes that the pooling counts on."""
    tapped, plain = (ukis.open_network(inner)[0] for inner in (features.LAYERS, ()))
    image = {"input": np.random.default_rng(0).normal(0, 1, (1, 4, *SHAPE)).astype(np.float32)}
    answer, *inner = tapped.run(["output", *features.LAYERS], image)
    np.testing.assert_array_equal(answer, plain.run(None, image)[0])
    assert [layer.shape[2] for layer in inner] == [128, 64, 32, 16, 8]


def test_tiles_cover_an_image_once():
    image = np.arange(300 * 520).reshape(300, 520)
    assert sum(int(tile.sum()) for tile in features.tiles(image, "constant")) == image.sum()


def test_another_network_is_said_in_one_line():
    with pytest.raises(OptionError, match=r"has another network .*: pip install ukis-csmask==1\.0\.0"):
        ukis.open_network(("nowhere",))


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(OptionError, match="the images have swir1, nir: drop it"):
        Encoder(("swir1", "nir"))
    monkeypatch.setattr(ukis, "installed_version", lambda: None)
    with pytest.raises(OptionError, match="--perceptual needs ukis-csmask: pip install"):
        Encoder(BANDS)


def test_the_frechet_distance_of_normal_sets_is_known():
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, (4000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one + np.array([2, 0, 0]), one) == pytest.approx(4)
    assert frechet_distance(one * 3, one) == pytest.approx(3 * (3 - 1) ** 2, rel=0.05)


def test_a_set_is_told_by_crops_and_regions(ground, monkeypatch):
    monkeypatch.setattr(perception, "LEAST_CROPS", 8)
    half = np.zeros(SHAPE, bool)
    half[:128] = True
    none = np.zeros(SHAPE, bool)
    perceived = Perception(BANDS)
    answers = {"same": ground} | {
        name: gaussian_filter(ground, sigma, axes=(1, 2)) for name, sigma in (("soft", 0.7), ("blurred", 2))
    }
    row = perceived.compare(ground, ground, CloudClasses(half, none, none, ~half), answers)
    assert row["same/ukis_distance"] == 0
    assert row["blurred/ukis_distance_opaque"] > 0
    assert np.isnan(row["blurred/ukis_distance_shadow"])
    sets = perceived.frechet_distances()
    assert sets["same"]["ukis_frechet"] == pytest.approx(0, abs=1e-6)
    assert sets["blurred"]["ukis_frechet"] > sets["soft"]["ukis_frechet"] > 0
    assert sets["blurred"]["ukis_frechet_clear"] > 0
    assert np.isnan(sets["blurred"]["ukis_frechet_thin"])
