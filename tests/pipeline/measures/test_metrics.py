import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

from decr_scene.pipeline.measures.metrics import (
    BEST_PSNR,
    detail,
    paper_psnr,
    paper_ssim,
    psnr,
    shift,
    ssim,
    texture,
    to_uint8,
    truncate_to_uint8,
    vif,
)

PSNR_DB, SSIM = 1e-4, 1e-5
FIGURES = [psnr, paper_psnr, ssim, paper_ssim]


def image(bands=3, side=16, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (bands, side, side)).astype(np.float32)


def from_dn(dn):
    """Onto [-1, 1], half a DN up, so that truncating and rounding down agree on the DN."""
    return ((np.asarray(dn) + 0.25) / 127.5 - 1).astype(np.float32)


@pytest.mark.parametrize("bands", ["rgb", "4band"])
def test_published_figures_are_reproduced(bands):
    with np.load(GOLDEN / f"metrics_{bands}.npz") as golden:
        for k, (pred, label) in enumerate(zip(golden["pred"], golden["label"], strict=True)):
            assert paper_psnr(pred, label) == pytest.approx(golden["psnr"][k], abs=PSNR_DB, rel=0)
            assert paper_ssim(pred, label) == pytest.approx(golden["ssim"][k], abs=SSIM, rel=0)


@pytest.mark.parametrize("figure", [psnr, paper_psnr])
@pytest.mark.parametrize("error", [1, 5, 40])
@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 50)])
def test_psnr_of_a_known_error(figure, error, shape):
    dn = np.random.default_rng(0).integers(0, 200, shape)
    assert figure(from_dn(dn + error), from_dn(dn)) == pytest.approx(20 * np.log10(255 / error))


def test_psnr_takes_all_bands_together():
    truth = from_dn(np.full((4, 8, 8), 100))
    one_band_off = truth.copy()
    one_band_off[2] = from_dn(110)
    assert psnr(one_band_off, truth) == pytest.approx(10 * np.log10(255**2 / (10**2 / 4)))


@pytest.mark.parametrize("figure", [psnr, paper_psnr])
def test_no_error_is_never_beaten(figure):
    truth = from_dn(np.full((3, 256, 256), 100))
    nearly = truth.copy()
    nearly[0, 0, 0] = from_dn(101)
    assert figure(truth, truth) == BEST_PSNR
    assert figure(nearly, truth) <= BEST_PSNR


@pytest.mark.parametrize("figure", [ssim, paper_ssim])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_ssim_of_equal_images_is_one(figure, bands):
    assert figure(image(bands), image(bands)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("bands", [1, 4])
def test_ssim_of_two_constants_is_its_luminance_term(bands):
    a, b, c1 = 100, 150, (0.01 * 255) ** 2
    dark, bright = (from_dn(np.full((bands, 16, 16), dn)) for dn in (a, b))
    wanted = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert ssim(dark, bright) == pytest.approx(wanted)
    assert paper_ssim(dark, bright) == pytest.approx(wanted, abs=1e-5)


def test_the_papers_ssim_of_rgb_sees_grey_only():
    truth = from_dn(np.random.default_rng(0).integers(0, 255, (1, 16, 16)).repeat(3, axis=0))
    swapped = truth.copy()
    swapped[2] = image(1, seed=5)[0]
    assert paper_ssim(swapped, truth) > ssim(swapped, truth) + 0.2  # blue counts for a ninth, not a third


def test_the_papers_ssim_of_four_bands_is_their_mean():
    a, b = image(4), image(4, seed=1)
    each = [paper_ssim(a[k : k + 1], b[k : k + 1]) for k in range(4)]
    assert paper_ssim(a, b) == pytest.approx(np.mean(each))


@given(seed=st.integers(0, 999), noise=st.floats(0.01, 1))
@pytest.mark.parametrize("figure", FIGURES)
@settings(deadline=None)
def test_figures_do_not_care_which_image_is_the_truth(figure, seed, noise):
    truth = image(seed=seed)
    other = truth + np.float32(noise) * image(seed=seed + 1000)
    assert figure(other, truth) == pytest.approx(figure(truth, other))


@pytest.mark.parametrize("figure", FIGURES)
def test_images_of_different_size_are_refused(figure):
    with pytest.raises(ValueError, match="same dimensions"):
        figure(image(side=16), image(side=17))


def test_plain_figures_round_and_the_papers_truncate():
    values = ((np.array([-9, 0, 99.4, 99.6, 255, 300]) / 127.5) - 1).astype(np.float32)
    assert to_uint8(values).tolist() == [0, 0, 99, 100, 255, 255]
    assert truncate_to_uint8(values).tolist() == [0, 0, 99, 99, 255, 255]


@given(st.integers(0, 255))
def test_rounding_brings_every_dn_back(dn):
    assert to_uint8(np.float32([dn / 127.5 - 1])) == [dn]


def test_truncating_loses_a_dn_only_to_float32():
    dn = np.arange(256)
    lost = dn - truncate_to_uint8((dn / 127.5 - 1).astype(np.float32))
    assert set(lost.tolist()) == {0, 1}


def test_texture_of_a_ramp_is_zero_and_of_a_chessboard_is_its_step():
    rows, columns = np.indices((9, 9))
    ramp = (0.1 * rows - 0.05 * columns)[None].astype(np.float32)
    board = np.where((np.indices((10, 10)).sum(axis=0)) % 2, 0.25, -0.25)[None].astype(np.float32)
    assert texture(ramp) == pytest.approx(0, abs=1e-6)
    assert texture(board) == pytest.approx(0.5)


@pytest.mark.parametrize("figure", [detail, vif])
def test_detail_counts_where_it_lies_and_not_how_much_of_it_there_is(figure):
    rng = np.random.default_rng(0)
    truth, other = rng.uniform(-0.5, 0.5, (2, 3, 64, 64)).astype(np.float32)
    assert figure(truth, truth) == pytest.approx(1, abs=1e-3)
    assert texture(other) == pytest.approx(texture(truth), rel=0.02)
    unlike, mixed, paler = (figure(seen, truth) for seen in (other, (truth + other) / 2, truth * 0.8))
    assert abs(unlike) < 0.1
    assert unlike + 0.05 < mixed < paler - 0.05


def test_visual_information_of_what_is_bright_and_even_is_not_lost_in_rounding():
    rng = np.random.default_rng(0)
    truth = (0.98 + rng.normal(0, 0.004, (3, 64, 64))).astype(np.float32)
    seen = (truth + rng.normal(0, 0.004, truth.shape)).astype(np.float32)
    darker = vif(seen - np.float32(200 / 127.5), truth - np.float32(200 / 127.5))  # the same steps of 8 bits
    assert vif(seen, truth) == pytest.approx(darker, rel=1e-6)


def test_an_image_too_small_for_visual_information_has_none():
    assert np.isnan(vif(image(side=40), image(side=40)))


def test_shift_is_the_largest_move_of_a_band_where_asked():
    where = np.zeros((16, 16), bool)
    where[:4] = True
    moved = image()
    moved[1, where] -= np.float32(10 / 127.5)
    moved[0, where] += np.float32(4 / 127.5)
    moved[2, ~where] += 1
    assert shift(moved, image(), where) == pytest.approx(10, abs=1e-3)


def test_flat_images_have_no_detail_to_be_right_or_wrong():
    flat = from_dn(np.full((3, 32, 32), 90))
    assert np.isnan(detail(flat, flat))
    assert detail(flat, image(side=32)) == pytest.approx(0, abs=0.05)
