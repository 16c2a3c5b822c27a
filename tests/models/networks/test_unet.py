import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.networks.layers import GroupNorm, SelfAttention
from decr_scene.models.networks.mdsa import MDSA
from decr_scene.models.networks.mprnet import MPRNet
from decr_scene.models.networks.noise_network import (
    PREDICTIONS,
    NetworkConfig,
    NoiseNetwork,
    Prediction,
)
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNet, UNetConfig

SMALL = NetworkConfig(
    bands=4,
    noise=UNetConfig(channels=24, multipliers=(1, 2), attention_factors=(2,), heads=2),
    weight=UNetConfig(channels=16, multipliers=(1, 2), attention_factors=(), heads=1, scale_shift=False),
)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """No branch silent: all parameters drawn, of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def images(count: int, bands: int = 4, size: int = 32, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, bands, size, size, generator=generator) for _ in range(count)]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("bands", "noise", "weight"), [(3, 32_142_147, 4_658_179), (4, 32_144_740, 4_660_484)]
)
def test_defaults_are_the_published_size(bands: int, noise: int, weight: int) -> None:
    with torch.device("meta"):
        network = NoiseNetwork(NetworkConfig(bands))
    assert (parameters(network.noise_net), parameters(network.weight_net)) == (noise, weight)
    assert network.multiple == 16


def test_references_have_the_published_size_without_what_is_never_used() -> None:
    with torch.device("meta"):
        assert parameters(MPRNet(3)) == 3_637_249
        assert parameters(MDSA(3)) == 3_907_714 - 1_004_249


def test_fresh_network_is_silent() -> None:
    x_t, cloudy, reference = images(3)
    eps, weight = NoiseNetwork(SMALL)(x_t, 5, cloudy, reference)
    assert not eps.any()
    assert not weight.any()


def test_parts_give_what_the_whole_gives() -> None:
    network, (x_t, cloudy, reference) = randomised(NoiseNetwork(SMALL)), images(3)
    assert isinstance(network, NoiseNetwork)
    with torch.inference_mode():
        eps, weight = network(x_t, 7, cloudy, reference)
        assert torch.equal(network.noise(x_t, torch.tensor([7, 7]), cloudy), eps)
        assert torch.equal(network.weight(x_t, 7, cloudy, reference), weight)


def test_an_image_does_not_see_its_batch() -> None:
    network, (x_t, cloudy, reference) = randomised(NoiseNetwork(SMALL)), images(3)
    with torch.inference_mode():
        together = network(x_t, torch.tensor([3, 900]), cloudy, reference)
        alone = network(x_t[1:], 900, cloudy[1:], reference[1:])
    for whole, part in zip(together, alone, strict=True):
        assert torch.allclose(whole[1:], part, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_patch_is_folded_and_unfolded(patch: int) -> None:
    config = replace(SMALL, noise=replace(SMALL.noise, patch=patch))
    network, (x_t, cloudy) = randomised(NoiseNetwork(config)), images(2)
    assert isinstance(network, NoiseNetwork)
    assert network.multiple == 2 * patch
    with torch.inference_mode():
        assert network.noise(x_t, 5, cloudy).shape == x_t.shape
    assert network.noise_net.stem.in_channels == 8 * patch**2


def test_a_v_network_gives_the_noise() -> None:
    network = randomised(NoiseNetwork(replace(SMALL, prediction="v")))
    assert isinstance(network, NoiseNetwork)
    schedule, (x_t, cloudy) = Schedule(), images(2)
    t = torch.tensor([10, 800])
    with torch.inference_mode():
        eps, v = network.noise(x_t, t, cloudy), network.predict(x_t, t, cloudy)
    x0 = schedule.x0_from_eps(x_t, eps, t)
    assert torch.allclose(schedule.add_noise(eps, -x0, t), v, atol=1e-4)  # sqrt(abar) eps - sqrt(1 - abar) x0
    assert torch.allclose(network.target(x0, eps, t, cloudy), v, atol=1e-4)


def test_tables_of_a_v_network_are_not_weights() -> None:
    assert not {name for name in NoiseNetwork(SMALL).state_dict() if "rate" in name}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_is_torchs_in_every_layout(layout: torch.memory_format) -> None:
    norm = randomised(GroupNorm(24))
    x = 5 + 3 * torch.randn(2, 24, 64, 64, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.randn(2, 24, 1, 1), torch.randn(2, 24, 1, 1)
    assert isinstance(norm, GroupNorm)
    expected = F.group_norm(x.double(), 8, norm.weight.double(), norm.bias.double())
    with torch.inference_mode():
        plain = norm(x.to(memory_format=layout))
        modulated = norm(x.to(memory_format=layout), (scale, shift))
    assert torch.allclose(plain.double(), expected, atol=3e-6)
    assert torch.allclose(modulated.double(), expected * (1 + scale) + shift, atol=1e-5)


def test_attention_splits_heads_first_then_queries_keys_and_values() -> None:
    channels, heads = 8, 2
    ch = channels // heads
    attention = randomised(SelfAttention(channels, heads))
    assert isinstance(attention, SelfAttention)
    x = torch.randn(1, channels, 3, 5, generator=torch.Generator().manual_seed(2))
    qkv = attention.qkv.weight @ attention.norm(x)[0].flatten(1) + attention.qkv.bias[:, None]
    mixed = []
    for head in qkv.chunk(heads, dim=0):
        q, k, v = head[:ch] * ch**-0.25, head[ch : 2 * ch] * ch**-0.25, head[2 * ch :]
        mixed.append(v @ torch.softmax(q.T @ k, dim=1).T)
    projected = attention.proj.weight @ torch.cat(mixed) + attention.proj.bias[:, None]
    assert torch.allclose(attention(x), x + projected.view(1, channels, 3, 5), atol=1e-5)


def test_channels_last_changes_nothing() -> None:
    network, inputs = randomised(NoiseNetwork(SMALL)), images(3)
    with torch.inference_mode():
        expected = network(inputs[0], 400, *inputs[1:])
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own idiom
        x_t, cloudy, reference = (i.to(memory_format=torch.channels_last) for i in inputs)
        found = network(x_t, 400, cloudy, reference)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_bf16_autocast_stays_close_and_returns_float32() -> None:
    network, (x_t, cloudy, reference) = randomised(NoiseNetwork(SMALL)), images(3)
    with torch.inference_mode():
        expected = network(x_t, 400, cloudy, reference)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x_t, 400, cloudy, reference)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).std() < 0.03 * b.std()


def test_gradients_reach_only_the_part_that_is_asked() -> None:
    network, (x_t, cloudy, reference) = NoiseNetwork(SMALL), images(3)
    torch.autograd.backward(network.weight(x_t, 5, cloudy, reference).sum())
    assert all(p.grad is None for p in network.noise_net.parameters())
    assert all(p.grad is not None for p in network.weight_net.parameters())


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 40), (0, 16)])
def test_sizes_that_do_not_fit_are_named(height: int, width: int) -> None:
    network = NoiseNetwork(replace(SMALL, noise=replace(SMALL.noise, patch=8)))
    image = torch.zeros(1, 4, height, width)
    with pytest.raises(ValueError, match=rf"image is {height} x {width} px, .* multiples of 16: pad or crop"):
        network.noise(image, 5, image)


def test_bands_and_shapes_that_do_not_fit_are_named() -> None:
    network, (x_t, cloudy) = NoiseNetwork(SMALL), images(2)
    with pytest.raises(ValueError, match=r"x_t has shape \(2, 3, 32, 32\), the network takes \(B, 4, H, W\)"):
        network.noise(x_t[:, :3], 5, cloudy)
    with pytest.raises(ValueError, match=r"cloudy has shape \(1, 4, 32, 32\), x_t \(2, 4, 32, 32\)"):
        network.noise(x_t, 5, cloudy[:1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": 33}, "even number"),
        ({"multipliers": ()}, "one positive number per level"),
        ({"heads": 5}, "heads must divide"),
        ({"patch": 0}, "patch must be in 1 to 64"),
        ({"num_res_blocks": 0}, "num_res_blocks must be in 1 to 64"),
    ],
)
def test_a_unet_that_cannot_be_built_is_refused(change: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(UNetConfig(), **change)  # type: ignore[arg-type]  # wrong on purpose


def test_a_network_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction must be one of \('eps', 'v', 'residual'\), got 'x0'"):
        NetworkConfig(prediction="x0")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="bands must be in 1 to 65536"):
        NetworkConfig(bands=0)


def test_widths_that_32_does_not_divide_get_fewer_groups() -> None:
    assert [GroupNorm(c).num_groups for c in (24, 48, 64, 6)] == [8, 16, 32, 2]


def test_published_weight_attends_in_its_smallest_level() -> None:
    with torch.device("meta"):
        net = UNet(PUBLISHED_WEIGHT, 9, 3)
    heads = {name for name, module in net.named_modules() if isinstance(module, SelfAttention)}
    assert len(heads) == 2 + 1 + 3
    assert math.gcd(*PUBLISHED_WEIGHT.widths) == 64


@pytest.mark.parametrize(("height", "width"), [(7, 13), (5, 1), (16, 16)])
def test_mdsa_takes_any_size(height: int, width: int) -> None:
    with torch.inference_mode():
        out = MDSA(3, width=8).eval()(torch.rand(1, 3, height, width))
    assert out.shape == (1, 3, height, width)


def test_references_name_a_size_they_cannot_take() -> None:
    with pytest.raises(ValueError, match="image is 12 x 16 px, mn takes multiples of 8: pad or crop it"):
        MPRNet(3, width=8)(torch.zeros(1, 3, 12, 16))
    with pytest.raises(ValueError, match="image is 4 x 4 px, mdsa takes more than 4"):
        MDSA(3, width=8)(torch.zeros(1, 3, 4, 4))


def test_mn_is_limited_only_at_its_end() -> None:
    net, image = randomised(MPRNet(3, width=8)), torch.rand(1, 3, 16, 16)
    assert isinstance(net, MPRNet)
    with torch.inference_mode():
        stages = net.stages(image)
        assert torch.equal(net(image), stages[0].clamp(0, 1))
    assert len(stages) == 3


def guided(prediction: Prediction) -> NoiseNetwork:
    network = randomised(NoiseNetwork(replace(SMALL, prediction=prediction, guided=True)))
    assert isinstance(network, NoiseNetwork)
    return network


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_noise_comes_back_from_what_a_network_is_to_predict(prediction: Prediction) -> None:
    network, schedule = guided(prediction), Schedule()
    x0, noise, cloudy, guess = images(4)
    t = torch.tensor([20, 700])
    x_t = schedule.add_noise(x0, noise, t)
    for reference in (guess, None):
        target = network.target(x0, noise, t, cloudy, reference)
        torch.testing.assert_close(
            network.eps_from(target, x_t, t, cloudy, reference), noise, atol=1e-4, rtol=1e-4
        )


def test_a_fresh_network_of_residuals_answers_with_the_first_guess_under_much_noise() -> None:
    network = NoiseNetwork(replace(SMALL, prediction="residual", guided=True))
    x0, noise, cloudy, guess = images(4)
    schedule = Schedule()
    x_t = schedule.add_noise(x0, noise, 990)
    for reference, expected in ((guess, guess), (None, cloudy), (torch.zeros_like(guess), cloudy)):
        answer = schedule.x0_from_eps(x_t, network.noise(x_t, 990, cloudy, reference), 990)
        reach = 2e-2 if reference is guess else 0.3
        assert (answer - expected).abs().max() < reach


def test_a_guided_network_sees_the_first_guess_and_others_do_not() -> None:
    x_t, cloudy, guess = images(3)
    network = guided("v")
    assert not torch.equal(network.noise(x_t, 5, cloudy, guess), network.noise(x_t, 5, cloudy))
    plain = randomised(NoiseNetwork(SMALL))
    assert isinstance(plain, NoiseNetwork)
    assert torch.equal(plain.noise(x_t, 5, cloudy, guess), plain.noise(x_t, 5, cloudy))
    with pytest.raises(ValueError, match="reference has shape"):
        network.noise(x_t, 5, cloudy, guess[:1])


def test_residuals_without_a_first_guess_are_refused() -> None:
    with pytest.raises(ValueError, match="that of the first guess: set guided"):
        NetworkConfig(4, prediction="residual")
