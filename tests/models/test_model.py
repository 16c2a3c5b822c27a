from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from decr_scene.models import model as module
from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    build_modules,
    save_model_file,
)
from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.errors import CheckpointError, UnknownModelError
from decr_scene.models.model import Model, load_model, pick_device, pick_precision, to_published
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import NetworkConfig, NoiseNetwork, UNetConfig

CONFIG = ModelConfig(
    name="tiny",
    bands=("red", "green", "blue"),
    network=NetworkConfig(
        bands=3,
        noise=UNetConfig(channels=16, multipliers=(1, 2), attention_factors=(2,), heads=2),
        weight=UNetConfig(channels=8, multipliers=(1,), attention_factors=(), heads=1, scale_shift=False),
    ),
    reference=ReferenceConfig(bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1),
    sampling=SamplingConfig(steps=3, start=300, weight_floor=0.25),
)


def weights(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    """All parameters drawn, so that no branch is silent."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = build_modules(config).state_dict()
    for tensor in tensors.values():
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2
        tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    return tensors


def tiny(config: ModelConfig = CONFIG, precision: str = "fp32") -> Model:
    return Model(config, weights(config), device="cpu", precision=precision)


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_model_file_samples_as_what_was_saved(tmp_path: Path) -> None:
    save_model_file(tmp_path / "tiny.safetensors", CONFIG, weights())
    loaded = load_model(tmp_path / "tiny.safetensors", device="cpu", precision="fp32")
    assert loaded.config == CONFIG
    assert torch.equal(loaded.sample(images()), tiny().sample(images()))


def test_tensors_of_a_model_make_the_same_model() -> None:
    config = replace(CONFIG, detector=DetectorConfig(bands=3, widths=(2,)))
    first = Model(config, weights(config), device="cpu")
    second = Model(config, first.tensors(), device="cpu")
    assert all(torch.equal(second.tensors()[name], tensor) for name, tensor in first.tensors().items())
    assert "detector.leave.weight" in second.tensors()


def test_a_model_keeps_its_own_copy_of_the_weights() -> None:
    tensors = weights()
    own = Model(CONFIG, tensors, device="cpu")
    before = own.sample(images())
    for tensor in tensors.values():
        tensor.zero_()
    assert torch.equal(own.sample(images()), before)


def test_building_a_model_leaves_the_random_numbers_alone() -> None:
    tensors = weights()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Model(CONFIG, tensors, device="cpu").sample(images(), seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_defaults_are_those_of_the_configuration() -> None:
    own, seen = tiny(), []
    default = own.sample(
        images(), on_step=lambda t, x0, weight: seen.append((t, weight.min().item() >= 0.25))
    )
    assert seen == [(300, True), (200, True), (100, True)]
    assert torch.equal(own.sample(images(), steps=3, start=300, weight_floor=0.25, seed=0), default)


def test_a_start_at_the_very_end_is_pure_noise() -> None:
    own, seen = tiny(), []
    own.sample(images(), steps=5, start=1000, on_step=lambda t, x0, weight: seen.append(t))
    assert seen == [800, 600, 400, 200, 0]


def test_full_weight_returns_the_reference() -> None:
    own = tiny()
    assert torch.allclose(own.sample(images(), weight_floor=1), own.reference(images()), atol=1e-6)


def test_a_given_reference_takes_the_networks_place() -> None:
    own, other = tiny(), images(seed=9)
    assert torch.allclose(own.sample(images(), weight_floor=1, reference=other), other, atol=1e-6)


def test_a_result_does_not_depend_on_the_batch() -> None:
    own = tiny()
    together = own.sample(images())
    assert torch.allclose(own.sample(images()[:1]), together[:1], atol=1e-4)
    assert torch.allclose(own.sample(images()[1:], seed=1), together[1:], atol=1e-4)


def test_seed_and_noise_decide() -> None:
    own = tiny()
    assert not torch.equal(own.sample(images(), seed=0), own.sample(images(), seed=10))
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    assert torch.equal(own.sample(images(), noise=noise, seed=0), own.sample(images(), noise=noise, seed=10))


def test_samples_are_images() -> None:
    found = tiny().sample(images(), start=1000, steps=5)
    assert found.shape == (2, 3, 16, 16)
    assert found.dtype == torch.float32
    assert found.abs().max() <= 1 + 1e-5


def test_steps_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="take 59 or 63"):
        tiny().sample(images(), steps=60, start=1000)


def test_network_is_that_of_the_sampler() -> None:
    own, x_t = tiny(), images(seed=5)
    eps, raw = own.network(x_t, 500, images(), own.reference(images()))
    seen: list[Tensor] = []
    own.sample(images(), steps=1, start=500, noise=x_t, on_step=lambda t, x0, weight: seen.append(weight))
    noised = Schedule().add_noise(own.reference(images()), x_t, 500)
    _, expected = own.network(noised, 500, images(), own.reference(images()))
    assert torch.equal(seen[0], expected.clamp(0.25, 1))
    assert eps.shape == raw.shape == x_t.shape


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_network_of_a_model_is_the_network_itself(prediction: Literal["eps", "v"]) -> None:
    config = replace(CONFIG, network=replace(CONFIG.network, prediction=prediction))
    plain = NoiseNetwork(config.network).eval()
    names = {n.removeprefix("network."): t for n, t in weights(config).items() if n.startswith("network.")}
    plain.load_state_dict(names)
    x_t, cloudy, reference = (images(seed=seed) for seed in (1, 2, 3))
    found = tiny(config).network(x_t, 900, cloudy, reference)
    for a, b in zip(found, plain(x_t, 900, cloudy, reference), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_bf16_stays_close_and_gives_float32() -> None:
    exact, fast = tiny(), tiny(precision="bf16")
    a, b = exact.sample(images()), fast.sample(images())
    assert b.dtype == torch.float32
    assert 0 < (a - b).abs().mean() < 0.02


def test_published_references_stay_in_fp32() -> None:
    config = replace(CONFIG, reference=ReferenceConfig(kind="mdsa", bands=3, width=8))
    assert torch.equal(tiny(config).reference(images()), tiny(config, "bf16").reference(images()))


def test_a_network_of_ours_has_no_published_form() -> None:
    with pytest.raises(CheckpointError, match="has no published form: its network is built otherwise"):
        to_published(tiny())
    config = replace(CONFIG, network=NetworkConfig(noise=UNetConfig(channels=8), weight=narrow()))
    with pytest.raises(CheckpointError, match="a reference of kind 'unet' has no published form"):
        to_published(tiny(config))


def narrow() -> UNetConfig:
    return UNetConfig(channels=8, multipliers=(1, 1, 2), attention_factors=(4,), heads=1, scale_shift=False)


def test_bundled_models_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    save_model_file(tmp_path / "tiny.safetensors", CONFIG, weights())
    assert module.bundled_models() == ["tiny"]
    assert load_model("tiny", device="cpu").config == CONFIG


def test_an_unknown_model_is_answered_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    with pytest.raises(UnknownModelError, match=r"no model and no file 'nothing': bundled models are none"):
        load_model("nothing")
    for name in ("b", "a"):
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(UnknownModelError, match=r"bundled models are a, b$"):
        load_model("nothing")


def test_precision_is_what_the_device_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for feature in features:
        monkeypatch.setattr(torch.cpu, feature, lambda: False)
    assert pick_precision("auto", cpu, steady=False) == "fp32"
    assert pick_precision("bf16", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, features[1], lambda: True)
    assert pick_precision("auto", cpu, steady=False) == "bf16"
    assert pick_precision("auto", cpu) == "fp32"
    assert tiny(precision="auto").precision == "fp32"
    assert tiny(precision="bf16").precision == "bf16"
    for feature in features:
        monkeypatch.delattr(torch.cpu, feature)
    assert pick_precision("auto", cpu, steady=False) == "fp32"
    with pytest.raises(ValueError, match="precision must be auto, fp32 or bf16, got 'fp16'"):
        pick_precision("fp16", cpu)


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="no GPU found"):
        pick_device("cuda")
    with pytest.raises(ValueError, match="device 'warp' is unknown"):
        pick_device("warp")
