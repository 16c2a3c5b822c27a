"""Normalisation of an image, and by a square around each pixel: that of a tile, whatever else is seen."""

import pytest
import torch
import torch.nn.functional as F

from decr_scene.models.model import load_model
from decr_scene.models.networks.group_norm import group_norm
from decr_scene.models.networks.reference import ReferenceConfig, build_reference

CONFIG = ReferenceConfig(bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1)


def image(height, width, seed=0):
    return torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(seed))


def normed(x, side):
    weight, bias = torch.linspace(0.5, 2, 16), torch.linspace(-1, 1, 16)
    return group_norm(x, 4, weight, bias, 1e-5, side=side), F.group_norm(x, 4, weight, bias, 1e-5)


def test_of_an_image_of_that_side_it_is_group_normalisation():
    found, expected = normed(image(64, 64), 64)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_further_away_than_the_square_does_not_matter():
    x = image(160, 160)
    other = x.clone()
    other[..., 120:] = 10 * other[..., 120:] + 5
    (one, _), (two, _) = normed(x, 64), normed(other, 64)
    assert (one[..., :72] == two[..., :72]).all()
    assert (one[..., :120] != two[..., :120]).any()


def test_each_place_is_normalised_as_its_surroundings_are():
    ramp = torch.linspace(1, 4, 512)[:, None] * image(512, 64)
    found, _ = normed(ramp, 64)
    weight, bias = torch.linspace(0.5, 2, 16), torch.linspace(-1, 1, 16)
    own = F.group_norm(ramp[..., 224:288, :], 4, weight, bias, 1e-5)
    assert (found[..., 250:262, :] - own[..., 26:38, :]).abs().max() < 0.15
    assert found.std((1, 3)).std() < 0.1 * ramp.std((1, 3)).std()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = build_reference(CONFIG).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    return net


@torch.inference_mode()
def test_an_image_that_is_no_larger_is_normalised_as_a_whole(network):
    x = torch.rand(1, 3, 60, 96) * 2 - 1
    assert (network(x, None, 96) == network(x)).all()
    assert (network(x, None, 64) != network(x)).any()


@torch.inference_mode()
def test_bright_cloud_far_away_does_not_change_the_tone(network):
    ground = torch.rand(1, 3, 64, 512) * 0.4 - 0.8
    clouded = ground.clone()
    clouded[..., 256:] = 1
    apart = [
        (network(ground, None, side) - network(clouded, None, side))[..., :128].abs().max()
        for side in (96, None)
    ]
    assert apart[0] < 0.001
    assert apart[1] > 0.1


SIZES = [(2, 24, 128, 128), (2, 24, 250, 301), (3, 48, 40, 24), (1, 16, 1, 7)]
"""Of many runs of pixels, of a number that is no multiple of runs, and of few."""


def features(shape, seed=0):
    """Draw channels of unlike means and spreads, laid out as networks have them."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(shape[1], 1, 1, generator=generator) * 3 + 0.1
    x = torch.randn(shape, generator=generator) * spread + 2 * torch.randn(
        shape[1], 1, 1, generator=generator
    )
    return x.to(torch.bfloat16, memory_format=torch.channels_last)


def in_doubles(x, weight, bias, step=None):
    normed = F.group_norm(x.double(), 8, weight.double(), bias.double())
    return normed if step is None else normed * (1 + step[0]) + step[1]


@pytest.mark.parametrize("shape", SIZES)
@torch.inference_mode()
def test_in_bf16_it_is_that_of_doubles_rounded(shape):
    x, weight, bias = features(shape), torch.linspace(0.5, 2, shape[1]), torch.linspace(-1, 1, shape[1])
    step = torch.randn(shape[0], shape[1], 1, 1) / 2, torch.randn(shape[0], shape[1], 1, 1)
    for given in (None, step):
        found, expected = group_norm(x, 8, weight, bias, 1e-5, given), in_doubles(x, weight, bias, given)
        assert found.dtype == torch.bfloat16
        # the result alone is rounded, to 8 bits
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0.004)
        assert x.numel() < 1e4 or abs((found.double() - expected).mean()) < 1e-3


@pytest.mark.parametrize("shape", SIZES)
@torch.inference_mode()
def test_in_bf16_neither_threads_nor_the_batch_change_a_bit(shape):
    x, weight, bias = features(shape), torch.linspace(0.5, 2, shape[1]), torch.linspace(-1, 1, shape[1])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.append(
                [
                    group_norm(x, 8, weight, bias, 1e-5),
                    group_norm(x, 8, weight, bias, 1e-5, side=32),
                    group_norm(x[-1:], 8, weight, bias, 1e-5),
                    group_norm(x[-1:], 8, weight, bias, 1e-5, side=32),
                ]
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for other in found for one, two in zip(found[0], other, strict=True))
    assert torch.equal(found[0][0][-1:], found[0][2])
    assert torch.equal(found[0][1][-1:], found[0][3])


@torch.inference_mode()
def test_in_bf16_what_is_flat_is_told_from_its_rounding():
    """Sums of squares lose a variance that is small beside them; an image beside it keeps its bits."""
    weight, bias, textured = torch.ones(24), torch.zeros(24), features((1, 24, 128, 128))
    faint = (32 + torch.randn(1, 24, 128, 128)).to(torch.bfloat16, memory_format=torch.channels_last)
    even = torch.full((1, 24, 128, 128), 3.7).to(torch.bfloat16, memory_format=torch.channels_last)
    found = group_norm(torch.cat([textured, faint, even]), 8, weight, bias, 1e-5)
    assert torch.equal(found[:1], group_norm(textured, 8, weight, bias, 1e-5))
    expected = in_doubles(faint, weight, bias)
    assert (found[1:2].double() - expected).square().mean().sqrt() < 0.1  # 32 itself is rounded to .06 of it
    assert found[2].abs().max() < 0.05
    for side in (32, 64):
        assert group_norm(even, 8, weight, bias, 1e-5, side=side).abs().max() < 0.5


@torch.inference_mode()
def test_in_bf16_lies_between_blocks_what_lies_there_in_floats():
    ramp = (torch.linspace(1, 4, 256)[:, None] * image(256, 64)).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.linspace(0.5, 2, 16), torch.linspace(-1, 1, 16)
    x = ramp.to(torch.bfloat16)
    expected = group_norm(x.float(), 4, weight, bias, 1e-5, side=64)
    found = group_norm(x, 4, weight, bias, 1e-5, side=64).float()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.015)


def test_an_empty_batch_is_none():
    with torch.inference_mode():
        assert group_norm(features((0, 24, 8, 8)), 8, torch.ones(24), torch.zeros(24), 1e-5).shape[0] == 0


@torch.inference_mode()
def test_in_bf16_the_square_around_a_pixel_is_that_of_floats():
    x, weight, bias = features((1, 24, 160, 130)), torch.linspace(0.5, 2, 24), torch.linspace(-1, 1, 24)
    step = torch.randn(1, 24, 1, 1) / 2, torch.randn(1, 24, 1, 1)
    found = group_norm(x, 8, weight, bias, 1e-5, step, side=64)
    expected = group_norm(x.float(), 8, weight, bias, 1e-5, step, side=64)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.04, rtol=0.015)


def test_a_step_scales_and_shifts_where_gradients_are_taken():
    x = image(16, 16).requires_grad_()
    weight, bias, step = (
        torch.rand(16),
        torch.rand(16),
        (torch.full((1, 16, 1, 1), 0.5), torch.ones(1, 16, 1, 1)),
    )
    plain = group_norm(x, 4, weight, bias, 1e-5)
    torch.testing.assert_close(group_norm(x, 4, weight, bias, 1e-5, step), plain * 1.5 + 1)
    near = group_norm(x, 4, weight, bias, 1e-5, side=16)
    torch.testing.assert_close(group_norm(x, 4, weight, bias, 1e-5, step, side=16), near * 1.5 + 1)


@torch.inference_mode()
def test_threads_change_no_bit_of_a_first_guess_whose_size_is_no_multiple_of_256():
    """torch computes SiLU of the last values of each thread's share in another way."""
    model, before, found = load_model("default", device="cpu", precision="fp32"), torch.get_num_threads(), []
    x = torch.rand(1, 4, 272, 352, generator=torch.Generator().manual_seed(0)) * 2 - 1
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(model.reference(x, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
