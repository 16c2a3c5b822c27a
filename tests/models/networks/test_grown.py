"""A noise network grown from a reference: what it begins as, what it sees, and how it is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    read_model_file,
    save_model_file,
)
from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.model import Model, load_model
from decr_scene.models.networks.grown import GrownConfig
from decr_scene.models.networks.noise_network import (
    AROUND,
    NetworkConfig,
    NoiseNetwork,
    _average_along,
    weight_of_change,
)
from decr_scene.models.networks.reference import PlainUNet, ReferenceConfig
from decr_scene.models.training.weights import TRUNK, adopt

REFERENCE = ReferenceConfig(
    bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1, contrast=True, context=True
)
CONFIG = NetworkConfig(
    bands=3,
    prediction="residual",
    guided=True,
    grown=GrownConfig(REFERENCE, local=8, blocks=1),
    covered=(0.1, 0.3),
)


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, 32, 32, generator=generator) - 0.5 for _ in range(count)]


@pytest.fixture
def reference() -> PlainUNet:
    torch.manual_seed(0)
    network = PlainUNet(REFERENCE)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.fixture
def grown(reference: PlainUNet, tmp_path: Path) -> NoiseNetwork:
    """A fresh network that has adopted the reference, as a training begins."""
    path = tmp_path / "reference.pt"
    torch.save({"ema": {f"reference.{n}": w for n, w in reference.state_dict().items()}}, path)
    modules = torch.nn.ModuleDict({"network": NoiseNetwork(CONFIG), "reference": PlainUNet(REFERENCE)})
    adopt(modules, path)
    network = modules["network"]
    assert isinstance(network, NoiseNetwork)
    return network.eval()


def answer(network: NoiseNetwork, x_t: Tensor, t: int, cloudy: Tensor, guess: Tensor | None) -> Tensor:
    with torch.no_grad():
        return Schedule().x0_from_eps(x_t, network.noise(x_t, t, cloudy, guess), t)


def test_under_noise_alone_it_begins_as_its_reference(grown: NoiseNetwork, reference: PlainUNet) -> None:
    cloudy, noise = images(2)
    with torch.no_grad():
        expected = reference(cloudy)
    torch.testing.assert_close(answer(grown, noise, 999, cloudy, None), expected, atol=1e-3, rtol=0)


def test_of_a_first_guess_it_begins_with_that_where_noise_hides_all(grown: NoiseNetwork) -> None:
    cloudy, noise, guess = images(3)
    torch.testing.assert_close(answer(grown, noise, 999, cloudy, guess), guess, atol=1e-3, rtol=0)


def test_a_clean_image_is_left_as_it_is(grown: NoiseNetwork) -> None:
    cloudy, noise, guess, x0 = images(4)
    x_t = Schedule().add_noise(x0, noise / 100, 0)
    assert (answer(grown, x_t, 0, cloudy, guess) - x0).abs().max() < 0.02


def test_the_noise_comes_back_from_what_it_is_to_predict(grown: NoiseNetwork) -> None:
    x0, noise, cloudy, guess = images(4)
    t = torch.tensor([20, 700])
    x_t = Schedule().add_noise(x0, noise, t)
    for given in (guess, None):
        target = grown.target(x0, noise, t, cloudy, given)
        torch.testing.assert_close(grown.eps_from(target, x_t, t, cloudy, given), noise, atol=1e-3, rtol=1e-3)


def test_once_trained_it_sees_noise_step_and_guess(grown: NoiseNetwork) -> None:
    x_t, cloudy, guess = images(3)
    for parameter in grown.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        base = grown.predict(x_t, 30, cloudy, guess)
        others = (
            grown.predict(x_t + 0.1, 30, cloudy, guess),
            grown.predict(x_t, 200, cloudy, guess),
            grown.predict(x_t, 30, cloudy, guess + 0.1),
            grown.predict(x_t, 30, cloudy),
        )
    assert all((other - base).abs().max() > 1e-3 for other in others)


def test_images_with_and_without_a_first_guess_may_be_in_one_batch(grown: NoiseNetwork) -> None:
    """Where all have one, what the network guesses by itself is not computed: it counts for none."""
    x_t, cloudy, guess = images(3)
    mixed = torch.cat([guess[:1], torch.zeros_like(guess[:1])])
    for parameter in grown.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    with torch.no_grad():
        both, given, mixed_found = (grown.predict(x_t, 30, cloudy, g) for g in (None, guess, mixed))
    torch.testing.assert_close(mixed_found[:1], given[:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed_found[1:], both[1:], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given[1:], both[1:], atol=1e-3)


def test_every_weight_is_trained(grown: NoiseNetwork) -> None:
    for parameter in grown.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x_t, cloudy, guess = images(3)
    guess = guess * torch.tensor([1.0, 0.0])[:, None, None, None]  # without one, its own counts
    torch.autograd.backward(grown.predict(x_t, 30, cloudy, guess).square().mean())
    assert [name for name, weight in grown.named_parameters() if weight.grad is None] == []


def test_its_weight_follows_how_much_the_cloud_hides() -> None:
    cloudy = torch.zeros(1, 3, 64, 64)
    guess = cloudy.clone()
    guess[..., 32:] = -0.4
    weight = weight_of_change(cloudy, guess, 0.1, 0.3)
    assert weight.shape == cloudy.shape
    assert bool((weight[..., :20] == 1).all())
    assert bool((weight[..., 44:] == 0).all())
    assert 0 < float(weight[0, 0, 10, 32]) < 1


@pytest.mark.parametrize("shape", [(2, 1, 20, 31), (1, 3, 7, 5), (1, 1, 1, 9)])
def test_changes_are_averaged_as_by_torch(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    for axis, kernel in ((2, (AROUND, 1)), (3, (1, AROUND))):
        reach = (kernel[0] // 2, kernel[1] // 2)
        expected = F.avg_pool2d(x, kernel, 1, reach, count_include_pad=False)
        assert torch.equal(_average_along(x, axis), expected)


def test_a_model_with_one_is_kept_and_sampled(
    grown: NoiseNetwork, reference: PlainUNet, tmp_path: Path
) -> None:
    config = ModelConfig(
        "grown",
        ("red", "green", "blue"),
        CONFIG,
        REFERENCE,
        sampling=SamplingConfig(3, 100, 0.0),
        packed=True,
    )
    tensors = {f"network.{n}": w for n, w in grown.state_dict().items()}
    tensors |= {f"reference.{n}": w for n, w in reference.state_dict().items()}
    assert not any(name.startswith("network.weight_net") for name in tensors)
    save_model_file(tmp_path / "grown.safetensors", config, tensors)
    read, _ = read_model_file(tmp_path / "grown.safetensors")
    assert read == config
    model = load_model(tmp_path / "grown.safetensors", "cpu", "fp32")
    cloudy, noise = images(2)
    sampled = model.sample(cloudy, noise=noise)
    assert torch.equal(sampled, model.sample(cloudy, noise=noise))
    assert torch.equal(model.sample(cloudy, noise=noise, weight_floor=1.0), model.reference(cloudy))
    in_bf16 = load_model(tmp_path / "grown.safetensors", "cpu", "bf16").sample(cloudy, noise=noise)
    assert 0 < (in_bf16 - sampled).abs().max() < 0.05
    unpacked = Model(replace(config, packed=False), tensors, "cpu", "fp32")
    assert (unpacked.sample(cloudy, noise=noise) - sampled).abs().max() < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": "v"}, "gives the 'residual'"),
        ({"bands": 4}, "the trunk has 3 bands, the network 4"),
        ({"covered": (0.3, 0.1)}, "two rising changes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]  # one of several fields


def test_a_published_network_does_not_grow() -> None:
    with pytest.raises(ValueError, match="kind 'unet' grows, got 'mn'"):
        GrownConfig(ReferenceConfig(kind="mn", bands=3, width=8))


def test_the_trunk_is_named_in_the_model_file() -> None:
    assert any(f"network.{name}".startswith(TRUNK) for name in NoiseNetwork(CONFIG).state_dict())
