"""The network of `ukis-csmask` itself, which the other tests of a look do without."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import look_in_memory
from decr_scene.pipeline.look.detectors import UkisLookout, bareness, saturated_cloud
from decr_scene.pipeline.look.reflectance import Reflectance, sample_of
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import sample_spans
from decr_scene.pipeline.raster.source import ArraySource
from decr_scene.pipeline.tiling.grid import Span

GROUND = np.array([900, 1000, 1100, 2500])[:, None, None]
CLOUD = np.array([6500, 6300, 6400, 6600])[:, None, None]


def land(shape=(256, 256), seed=0):
    """Fields under broken cloud, reflectance x 10000, blue, green, red, nir."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.normal(1, 0.15, [-(-side // 20) for side in shape]), np.ones((20, 20)))
    image = GROUND * fields[: shape[0], : shape[1]] + rng.normal(0, 30, (4, *shape))
    large, small = (gaussian_filter(rng.normal(0, 1, shape), sigma) for sigma in (12, 3))
    thick = np.clip(1.2 * (large / large.std() + 0.4 * small / small.std() - 0.3), 0, 1)
    return np.rint(image * (1 - thick) + CLOUD * thick).clip(1, 60000).astype(np.uint16)


def look(image, bands=(0, 1, 2, 3)):
    shape = image.shape[1:]
    source = ArraySource(Span(0, 0, *shape), image)
    spans = sample_spans(shape)
    sample = sample_of([source] * len(spans), spans, bands, 1)
    lookout = UkisLookout(Reflectance.of(bands, [1] * 4, [0] * 4, sample))
    reader = CoarseReader(shape, source, (0, 1, 2, 3), Radiometry((0,) * 4, (10000,) * 4), 1, lookout.sight)
    return look_in_memory(lookout, reader, 0.5).cloud.values


def test_digital_numbers_in_another_unit_give_the_same_mask():
    image = land()
    one = look(image)[0] >= 128
    assert 0.05 < one.mean() < 0.5
    for gain in (0.5, 2.0):
        assert (one != (look((image * gain).astype(np.uint16))[0] >= 128)).mean() < 0.03


def test_ground_without_plants_is_bare():
    names = {
        "snow": [9000, 8900, 9000, 8700],
        "sand": [1200, 1900, 2600, 3100],
        "water": [700, 500, 300, 100],
    }
    names |= {"fields": GROUND.ravel(), "fields under a veil": GROUND.ravel() + 1200, "nothing": [0, 0, 0, 0]}
    names |= {"between": [1000, 1000, 1000, 1350], "black": [-50, -50, -50, 20]}
    reflectance = np.array(list(names.values()), np.float32).T[:, None] / 10000
    found = dict(zip(names, bareness(reflectance, 1.0)[0].tolist(), strict=True))
    assert [found[name] for name in ("snow", "sand", "water")] == [1, 1, 1]
    assert [found[name] for name in ("fields", "fields under a veil", "nothing", "black")] == [0, 0, 0, 0]
    assert found["between"] == pytest.approx(0.5, abs=0.01)
    fallen = dict(zip(names, bareness(reflectance, 0.08)[0].tolist(), strict=True))
    assert fallen["snow"] == 0, "which is far lighter than the ground around"
    assert fallen["sand"] == pytest.approx((0.24 - 0.19) / 0.08, abs=0.01)
    assert fallen["water"] == 1
    assert not bareness(reflectance, 0.0)[0].any(), "where the ground of the scene is not known"


def test_what_is_bare_stands_beside_the_probabilities():
    image = land()
    image[:, :, :128] = np.array([2000, 2000, 2000, 2000])[:, None, None]
    found = look(image)
    assert found.shape == (4, 256, 256)
    assert found[3, :, :128].min() == 255
    green = found[0, :, 128:] < 20
    assert np.median(found[3, :, 128:][green]) == 1, "0 is for what is not valid"


def test_as_much_cloud_is_found_with_red_in_the_place_of_near_infrared():
    image = land()
    cloud, without = look(image)[1] >= 128, look(image, (0, 1, 2, 2))
    found = without[1] >= 128
    assert (found & cloud).sum() > 0.9 * cloud.sum()
    assert (found & ~cloud).mean() < 0.1
    assert without[3].max() == 1, "nobody tells where ground is bare"


@pytest.mark.parametrize("bands", [(0, 1, 2, 3), (0, 1, 2, 2)])
def test_cloud_in_which_a_picture_is_saturated_is_cloud_all_over(bands):
    image = land().astype(np.float32)
    down, across = np.mgrid[:256, :256] - 128
    inside = np.hypot(down, across) < 80
    image[:, inside] = 60000
    picture = np.clip(image / 3500 * 255, 1, 255).astype(np.uint8)
    assert (look(picture, bands)[0][inside] >= 128).mean() > 0.95
    rng = np.random.default_rng(0)
    packed = picture - rng.integers(0, 5, picture.shape, np.uint8) * (picture == 255)
    packed[3] = np.minimum(packed[3], 210)  # near infrared is often shown darker
    assert (look(packed, bands)[0][inside] >= 128).mean() > 0.95


@pytest.mark.parametrize("scales", [[0] * 4, [2e-5, 0, 2e-5, 2e-5], [1e308] * 4, [np.inf] * 4, [-1e-4] * 4])
@pytest.mark.filterwarnings("error")
def test_a_scale_that_gives_no_reflectance_is_none(scales):
    sample = np.random.default_rng(0).uniform(5000, 30000, (4, 500)).astype(np.float32)
    assert Reflectance.of(range(4), scales, [0.5] * 4, sample) == Reflectance.of(
        range(4), [1] * 4, [0] * 4, sample
    )


@pytest.mark.parametrize(
    ("peaks", "least"),
    [
        ((65535, 65535, 65535), (65535, 65535, 65535)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((255, 255, 255), (249.5, 249.5, 249.5)),
        ((253, 250, 255), (249.5, 249.5, 249.5)),
        ((253, 249, 255), None),
        ((65535, 65534, 65535), None),
        ((4090, 4090, 4090), None),
        ((0.99, 0.99, 0.99), None),
    ],
)
def test_what_is_saturated_is_told_by_the_greatest_number(peaks, least):
    sample = np.random.default_rng(0).uniform(0, 0.5, (4, 999)) * np.array([*peaks, 1])[:, None]
    sample[:3, 0] = peaks
    fitted = Reflectance.of(range(4), [1] * 4, [0] * 4, sample.astype(np.float32))
    known = Reflectance.of(range(4), [2e-5] * 4, [-0.1] * 4, sample.astype(np.float32))
    for found in (fitted, known) if max(peaks) > 10000 else (fitted,):
        expected = () if least is None else [found.gain[0] * dn + found.offset[0] for dn in least]
        assert found.full == pytest.approx(expected, rel=2e-4)


def test_what_is_not_saturated_is_shown_as_it_is():
    image = land()
    image[:3, :9, :9] = 65535
    found = Reflectance.of(range(4), [1] * 4, [0] * 4, image.reshape(4, -1).astype(np.float32))
    reflectance, lookout = found(image), UkisLookout(found)
    saturated = lookout._saturated(reflectance)
    assert saturated.sum() == 81
    assert saturated[:9, :9].all()
    changed = lookout._with_texture(reflectance, saturated) != reflectance
    assert changed[:, :9, :9].all()
    assert not changed[:, 9:].any()


def test_all_of_a_saturated_cloud_is_cloud_if_a_part_looks_like_some_and_a_roof_is_none():
    saturated = np.zeros((64, 64), bool)
    saturated[4:24, 4:24] = saturated[40:60, 40:60] = saturated[4:8, 50:54] = True
    plain, textured = (np.zeros((3, 64, 64), np.float32) for _ in range(2))
    plain[ukis.CLEAR], textured[ukis.SHADOW] = 1, 1
    plain[:, 0, 0] = 0.3, 0.7, 0
    plain[:, 4:7, 4:7] = np.array([0.1, 0.9, 0])[:, None, None]
    textured[:, 40:43, 40:43] = np.array([0.2, 0.8, 0])[:, None, None]
    found = saturated_cloud(plain, textured, saturated)
    cloud = np.zeros((64, 64), bool)
    cloud[4:24, 4:24] = cloud[40:60, 40:60] = True
    np.testing.assert_array_equal(found[ukis.CLOUD][1:], cloud[1:])
    np.testing.assert_array_equal(found[ukis.SHADOW][1:], ~cloud[1:], "as the textured image says elsewhere")
    np.testing.assert_array_equal(found[:, 0, 0], plain[:, 0, 0], "which is surer")


def test_windows_of_the_detector_join_without_a_line():
    found = look(land((220, 600)))[1].astype(int)
    steps = np.abs(np.diff(found, axis=1)).mean(axis=0)
    lines = np.arange(ukis.SIDE - 2 * ukis.REACH, 600, ukis.SIDE - 2 * ukis.REACH)
    near = np.concatenate([steps[line - 20 : line + 20] for line in lines])
    assert steps[lines - 1].mean() < 2.5 * near.mean()


def test_probabilities_are_those_of_the_package():
    from ukis_csmask.mask import CSmask

    reflectance = (land() / 10000).astype(np.float32)
    (mine,) = ukis.probabilities([reflectance])
    theirs = CSmask(np.moveaxis(reflectance, 0, -1).copy(), list(ukis.BANDS), intra_op_num_threads=1).csm
    assert mine.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert (mine.argmax(axis=0) == theirs[..., 0]).mean() > 0.9  # they tile, and blend what they get


def test_a_window_gets_the_same_answer_alone_and_among_others():
    windows = [(land((200, 180), seed) / 10000).astype(np.float32) for seed in range(3)]
    together = ukis.probabilities(windows)
    for window, answer in zip(windows, together, strict=True):
        np.testing.assert_array_equal(ukis.probabilities([window])[0], answer)
