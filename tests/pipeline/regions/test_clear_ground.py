"""Which changes are believed to be of cloud where a detector sees clear ground."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from decr_scene.pipeline.evaluation.answers import _share
from decr_scene.pipeline.evaluation.cloud_detection import Look
from decr_scene.pipeline.look.ground import Ground
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.source import ArraySource
from decr_scene.pipeline.regions.clear_ground import around, believed_share
from decr_scene.pipeline.regions.fields import ArrayField
from decr_scene.pipeline.regions.masks import BARE_SIGMA, CLOSE_RIM, DetectedMask
from decr_scene.pipeline.restoration.blending import blend_tiles
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.tiling.grid import Span, TileGrid

SHAPE = (256, 256)
WHOLE = Span(0, 0, *SHAPE)
BANDS = ("blue", "green", "red", "nir")


def ground(mean=-0.4, contrast=0.1):
    """Ground with detail, on the [-1, 1] scale."""
    texture = gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 1)
    return (mean + contrast * texture / texture.std()).astype(np.float32)


ALL = np.ones(SHAPE, bool)


def believed(light, answer, valid=ALL):
    return believed_share(answer - light, valid, WHOLE, WHOLE)


def flat(mean):
    return np.full(SHAPE, mean, np.float32)


@pytest.mark.parametrize("mean", [-0.45, -0.4, -0.2])
def test_a_change_that_darkens_little_is_not_believed(mean):
    assert not believed(ground(), flat(mean)).any()
    assert not believed(ground(), ground(mean)).any(), "although all of its detail is kept"


def test_bright_cloud_may_hide_what_was_there():
    assert believed(ground(0.6), flat(-0.4)).min() == 1


def test_a_dense_veil_may_lie_over_what_is_seen():
    assert believed(0.5 + 0.5 * ground(), ground()).min() == 1


def test_belief_grows_with_the_darkening():
    light = ground()
    shares = [believed(light, light - np.float32(2 * by / 255)).mean() for by in (12, 16, 20, 25, 30)]
    assert shares[0] < 1e-6
    assert shares[-1] > 1 - 1e-6
    assert (np.diff(shares) > 0.05).all()


def test_missing_values_have_no_say_along_any_edge():
    valid = np.tri(*SHAPE, k=-20, dtype=bool)
    light = np.where(valid, ground(), np.float32(np.nan))
    for beyond in (-1, 1):
        answer = np.where(valid, flat(-0.45), np.float32(beyond))
        assert not believed(light, answer, valid)[valid].any()
    veiled, brought_out = np.where(valid, 0.5 + 0.5 * ground(), -1), np.where(valid, ground(), 0)
    assert believed(veiled, brought_out, valid)[valid].min() == 1


def test_it_does_not_depend_on_the_window():
    change = np.random.default_rng(1).normal(0, 0.05, SHAPE).astype(np.float32)
    change[90:150, 60:160] -= 0.3
    valid = np.tri(*SHAPE, k=150, dtype=bool)
    share = believed_share(change, valid, WHOLE, WHOLE)
    assert share.min() < 0.1 < 0.9 < share.max()
    for span in (Span(0, 0, 64, 64), Span(77, 93, 100, 130), Span(200, 196, 56, 60)):
        seen = around(span, SHAPE)
        part = seen.inside(WHOLE)
        found = believed_share(change[part], valid[part], seen, span)
        np.testing.assert_array_equal(found, share[span.inside(WHOLE)])


class Nowhere:
    """A mask of clear ground alone."""

    def soft(self, span):
        return np.zeros((span.height, span.width), np.float32)


class Left:
    """A mask of the left 80 columns, without a rim."""

    def soft(self, span):
        return np.where(np.arange(span.col, span.right) < 80, np.ones((span.height, 1), np.float32), 0)


PLAN = Plan(
    TileGrid(SHAPE),
    tuple(range(4)),
    Radiometry((0.0,) * 4, (10000.0,) * 4),
    RestorerSpec("a model", bands=BANDS),
    mask=Nowhere(),
    veils=True,
    fills=True,
)


VISIBLE_AND_INFRARED = ([-0.3, -0.3, -0.3, 0.6], [0, 0, 0, -0.5])
"""Changes of bands: the visible ones darken, though not the mean of all; the infrared alone does."""


def numbers(image):
    """Digital numbers of an image on the [-1, 1] scale, as `PLAN` has it."""
    return (image + 1) / 2 * 10000


def blended(answer, plan, image):
    """Blend a scene of one tile with the answer of a model for it."""
    pixels = np.rint(numbers(image)).astype(np.uint16)
    found = blend_tiles(plan, ArraySource(WHOLE, pixels), WHOLE, {0: answer - image})
    return pixels, found.pixels


def test_ground_that_a_model_erases_stays_where_the_detector_is_at_home():
    image = np.stack([ground()] * 4)
    for mean in (-0.44, -0.2):
        erased = np.stack([flat(mean)] * 4)
        before, after = blended(erased, PLAN, image)
        np.testing.assert_array_equal(after, before)
    before, after = blended(erased, replace(PLAN, fills=False), image)
    assert after[:, 64:-64, 64:-64].std() < 0.1 * before.std(), "another detector overlooks veils"
    veiled = 0.5 + 0.5 * image
    before, after = blended(image, PLAN, veiled)
    np.testing.assert_allclose(after, np.rint(numbers(image)), atol=2)


def test_cloud_that_is_seen_has_no_say_beside_it():
    image = np.stack([ground()] * 4)
    image[..., :80] = 0.8
    answer = np.stack([ground() + np.float32(0.05)] * 4)
    before, after = blended(answer, replace(PLAN, mask=Left()), image)
    np.testing.assert_array_equal(after[..., 80:], before[..., 80:])
    assert (after[..., :80] < before[..., :80]).all()


def test_the_infrared_has_no_say():
    image = np.stack([ground()] * 4)
    visible, infrared = (np.array(by, np.float32)[:, None, None] for by in VISIBLE_AND_INFRARED)
    before, after = blended(image + infrared, PLAN, image)
    np.testing.assert_array_equal(after, before)
    before, after = blended(image + visible, PLAN, image)
    assert (after != before).all()


def test_missing_values_have_no_say():
    image = np.stack([ground()] * 4)
    erased = np.stack([flat(-0.2)] * 4)
    erased[:, 100:130, 100:130] = -1.9
    pixels = np.rint(numbers(image)).astype(np.float32)
    pixels[:, 100:130, 100:130] = np.nan
    found = blend_tiles(PLAN, ArraySource(WHOLE, pixels), WHOLE, {0: erased - image})
    np.testing.assert_array_equal(found.pixels, pixels)
    veiled = numbers(0.5 + 0.5 * image).astype(np.float32)
    veiled[:, 100:110, 100:110] = np.nan
    found = blend_tiles(PLAN, ArraySource(WHOLE, veiled), WHOLE, {0: -0.5 + 0.5 * image})
    expected = np.where(np.isnan(veiled), np.nan, numbers(image))
    np.testing.assert_allclose(found.pixels, expected, atol=2)


def test_a_part_of_the_scene_is_enough_to_blend_a_part_of_it():
    image = np.stack([ground()] * 4)
    pixels = np.rint(numbers(image)).astype(np.uint16)
    change = {0: np.where(np.arange(256) < 128, np.stack([flat(-0.2)] * 4), image - 0.3) - image}
    whole = blend_tiles(PLAN, ArraySource(WHOLE, pixels), WHOLE, change).pixels
    assert (whole != pixels).any()
    for span in (Span(0, 0, 64, 64), Span(64, 128, 64, 128), Span(192, 64, 64, 64)):
        seen = PLAN.sight(span)
        source = ArraySource(seen, pixels[(slice(None), *seen.inside(WHOLE))])
        found = blend_tiles(PLAN, source, span, change).pixels
        np.testing.assert_array_equal(found, whole[(slice(None), *span.inside(WHOLE))])


def bare_mask(cloud=0, factor=4):
    """A mask of bare ground in the right half, with cloud in some columns of blocks at the border."""
    side = SHAPE[0] // factor
    values = np.zeros((4, side, side), np.uint8)
    values[3], values[3, :, side // 2 - cloud :] = 1, 255
    values[0, :, side // 2 - cloud : side // 2 + cloud] = 255  # as white as snow
    return DetectedMask(ArrayField(values), SHAPE, factor, 128, CLOSE_RIM)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_ground_is_bare_as_most_around_is(factor):
    bare = bare_mask(factor=factor).bare(WHOLE)
    assert bare[:, :78].max() == 0
    assert bare[:, 178:].min() == 1
    places = (np.arange(256) + 0.5 - 128) / BARE_SIGMA
    np.testing.assert_allclose(bare[100], ndtr(places), atol=0.02)
    assert BARE_SIGMA == 16


def test_cloud_says_nothing_of_the_ground_beside_it():
    beside = bare_mask(cloud=4).bare(WHOLE)[:, :110]
    assert (beside <= bare_mask().bare(WHOLE)[:, :110] + 1e-6).all()
    covered = np.full((4, 64, 64), 255, np.uint8)
    assert not DetectedMask(ArrayField(covered), SHAPE, 4, 128).bare(WHOLE).any()


def test_missing_values_say_nothing_of_the_ground_beside_them():
    values = np.zeros((4, 64, 64), np.uint8)
    values[3, :, 20:] = 255
    bare = DetectedMask(ArrayField(values), SHAPE, 4, 128).bare(WHOLE)
    assert bare[:, 82:].min() > 1 - 1e-6


@pytest.mark.parametrize("factor", [1, 2, 40])
def test_how_bare_ground_is_does_not_depend_on_the_window(factor):
    side = -(-256 // factor)
    values = np.random.default_rng(0).integers(0, 256, (4, side, side)).astype(np.uint8)
    mask = DetectedMask(ArrayField(values), SHAPE, factor, 128)
    whole = mask.bare(WHOLE)
    assert whole.std() > 0.005
    for span in (Span(0, 0, 64, 64), Span(77, 93, 100, 130), Span(201, 126, 55, 7)):
        np.testing.assert_array_equal(mask.bare(span), whole[span.inside(WHOLE)])


def test_a_detector_that_does_not_tell_sees_no_bare_ground():
    mask = DetectedMask(ArrayField(np.zeros((3, 64, 64), np.uint8)), SHAPE, 4, 128)
    assert not mask.bare(WHOLE).any()


def test_bare_ground_that_darkens_is_no_cloud():
    image = np.stack([0.5 + 0.5 * ground()] * 4)
    answer = np.stack([ground()] * 4)
    plan = replace(PLAN, mask=bare_mask())
    before, after = blended(answer, plan, image)
    np.testing.assert_array_equal(after[..., 178:], before[..., 178:])
    np.testing.assert_allclose(after[..., :78], np.rint(numbers(answer))[..., :78], atol=2)
    look = Look(bare_mask(), Ground(ArrayField(np.zeros((5, 4, 4), np.float32)), 64), True, doubts_veils=True)
    share = _share(answer - image, look, BANDS)
    assert (share[:, :78].min(), share[:, 178:].max()) == (1, 0), "so it is in evaluation"


def test_bands_without_a_name_count_as_visible():
    assert PLAN.visible == [0, 1, 2]
    assert replace(PLAN, spec=RestorerSpec("a model")).visible == [0, 1, 2, 3]


def test_evaluation_believes_the_same():
    image = np.stack([ground()] * 4)
    mask = DetectedMask(ArrayField(np.zeros((3, 64, 64), np.uint8)), SHAPE, 4, 128)
    look = Look(mask, Ground(ArrayField(np.zeros((5, 4, 4), np.float32)), 64), veils=True, doubts_veils=True)
    erasure = np.stack([flat(-0.2)] * 4) - image
    assert not _share(erasure, look, BANDS).any()
    assert _share(erasure, replace(look, doubts_veils=False), BANDS).min() > 0.9
    assert not _share(erasure, replace(look, veils=False), BANDS).any()
    visible, infrared = (np.array(by, np.float32)[:, None, None] + 0 * image for by in VISIBLE_AND_INFRARED)
    assert _share(visible, look, BANDS).min() == 1
    assert not _share(infrared, look, BANDS).any()
    values = np.zeros((3, 64, 64), np.uint8)
    values[0, :, :20] = 255
    seen = replace(look, mask=replace(mask, field=ArrayField(values), rim=CLOSE_RIM))
    beside = np.where(np.arange(256) < 80, -1.2, 0.05).astype(np.float32) + 0 * image
    assert not _share(beside, seen, BANDS)[:, 80 + seen.mask.reach :].any()
