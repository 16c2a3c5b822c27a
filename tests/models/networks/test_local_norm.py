"""Normalisation by a square around each pixel: that of a tile, whatever else is seen."""

import pytest
import torch
import torch.nn.functional as F

from decr_scene.models.networks.local_norm import local_group_norm
from decr_scene.models.networks.reference import ReferenceConfig, build_reference

CONFIG = ReferenceConfig(bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1)


def image(height, width, seed=0):
    return torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(seed))


def normed(x, side):
    weight, bias = torch.linspace(0.5, 2, 16), torch.linspace(-1, 1, 16)
    return local_group_norm(x, side, 4, weight, bias, 1e-5), F.group_norm(x, 4, weight, bias, 1e-5)


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
