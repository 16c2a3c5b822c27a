"""Our own first-guess network: what it does before it has learned anything, and with what it may learn."""

from dataclasses import replace

import pytest
import torch

from decr_scene.models.networks import reference
from decr_scene.models.networks.reference import (
    CONTRAST_BLOCK,
    MOST_CONTRAST,
    ReferenceConfig,
    build_reference,
)

CONFIG = ReferenceConfig(bands=2, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1)


def image(height, width):
    return torch.rand((2, 2, height, width), generator=torch.Generator().manual_seed(3)) - 0.5


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (37, 50), (3, 5)])
def test_a_fresh_network_gives_its_input_back(contrast, size):
    network = build_reference(replace(CONFIG, contrast=contrast)).eval()
    torch.testing.assert_close(network(image(*size)), image(*size))


def test_contrast_grows_about_the_mean_of_its_surroundings():
    network = build_reference(replace(CONFIG, contrast=True))
    torch.nn.init.constant_(network.contrast.bias, 0.4055)  # e^0.4055 = 1.5
    block = torch.where(torch.arange(CONTRAST_BLOCK) % 2 == 0, 0.1, -0.1).repeat(
        1, 2, 64, 64 // CONTRAST_BLOCK
    )
    stripes, ground = network(block + 0.3) - 0.3, network(torch.full_like(block, 0.3))
    torch.testing.assert_close(stripes, 1.5 * block, atol=1e-4, rtol=0)
    torch.testing.assert_close(ground, torch.full_like(block, 0.3), atol=1e-6, rtol=0)


def test_contrast_grows_no_further_than_its_bound():
    network = build_reference(replace(CONFIG, contrast=True))
    torch.nn.init.constant_(network.contrast.bias, 50.0)
    stripes = torch.where(torch.arange(64) % 2 == 0, 0.01, -0.01).repeat(1, 2, 64, 1)
    assert network(stripes).abs().max().item() == pytest.approx(0.01 * torch.e**MOST_CONTRAST, rel=1e-3)


def test_contrast_is_learned_from_the_first_step_on():
    network = build_reference(replace(CONFIG, contrast=True))
    cloudy = image(64, 64)
    (network(cloudy) - 2 * cloudy).square().mean().backward()
    assert network.contrast.bias.grad.max() < 0  # downhill is more contrast
    assert network.leave.weight.grad.abs().max() > 0


def with_context():
    return build_reference(replace(CONFIG, context=True)).eval()


def context(cloud, near, anchor=-0.5, side=8):
    values = torch.tensor([anchor, anchor, cloud, 0.0, near])
    return values[None, :, None, None].expand(2, 5, side, side)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (3, 5)])
def test_without_a_context_a_fresh_network_gives_its_input_back(size):
    torch.testing.assert_close(with_context()(image(*size)), image(*size))


def test_an_anchor_that_nothing_clear_is_near_is_not_taken():
    cloudy = image(64, 64)
    torch.testing.assert_close(with_context()(cloudy, context(1.0, 0.0)), cloudy)


def test_the_gate_goes_over_to_the_anchor_under_cloud():
    network, cloudy = with_context(), image(64, 64)
    torch.nn.init.constant_(network.gate.bias, 4.0)
    torch.testing.assert_close(
        network(cloudy, context(1.0, 1.0)), torch.full_like(cloudy, -0.5), atol=0.03, rtol=0
    )
    clear = network(cloudy, context(0.0, 1.0))
    assert (clear - cloudy).abs().mean() < 0.7 * (cloudy + 0.5).abs().mean()


def test_a_context_of_any_resolution_will_do():
    network, cloudy = with_context(), image(64, 48)
    torch.nn.init.normal_(network.context.weight, std=0.1)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    torch.testing.assert_close(
        network(cloudy, context(0.5, 0.5)), network(cloudy, context(0.5, 0.5, side=32))
    )


def test_published_networks_take_no_context():
    with pytest.raises(ValueError, match="takes no context"):
        ReferenceConfig(kind="mdsa", context=True)


def grid_over_even_ground(smooth):
    """Spread of what a network with drawn weights paints on even ground, away from the borders."""
    torch.manual_seed(0)
    network = build_reference(replace(CONFIG, context=True, contrast=True, smooth=smooth)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        painted = network(torch.full((1, 2, 128, 128), 0.1))[..., 48:80, 48:80]
    assert painted.mean().item() != pytest.approx(0.1)
    return float((painted - painted.mean((-2, -1), keepdim=True)).abs().max())


def test_smoothed_up_sampling_leaves_no_grid():
    assert grid_over_even_ground(smooth=True) < 1e-4
    assert grid_over_even_ground(smooth=False) > 1e-2


@pytest.mark.parametrize("channels", [4, 24])
def test_smoothing_is_one_rule_however_it_is_computed(channels: int) -> None:
    """With gradients as two averages, without as sums of rows, in bf16 as a convolution."""
    x = torch.randn(2, channels, 9, 14, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    expected = reference._smoothed(x)
    with torch.no_grad():
        torch.testing.assert_close(reference._smoothed(x), expected)
        found = reference._smoothed(x.to(torch.bfloat16)).float()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(
        expected[..., 0, 0], (9 * x[..., 0, 0] + 3 * x[..., 0, 1] + 3 * x[..., 1, 0] + x[..., 1, 1]) / 16
    )


@pytest.mark.parametrize("smooth", [False, True])
def test_what_is_reused_at_inference_changes_neither_the_answer_nor_what_was_given(smooth: bool) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, context=True, contrast=True, smooth=smooth, blocks=2)
    network = build_reference(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    given = (image(64, 48), context(0.7, 0.5))
    kept = [tensor.clone() for tensor in given]
    expected = network(*given).detach()  # with gradients, so nothing is reused
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(network(*given), expected, atol=1e-5, rtol=1e-5)
    assert (expected - given[0]).abs().max() > 0.05
    for tensor, before in zip(given, kept, strict=True):
        torch.testing.assert_close(tensor, before, atol=0, rtol=0)
