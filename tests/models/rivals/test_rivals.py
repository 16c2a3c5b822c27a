"""The other systems without their published weights: names, shapes, toy runs, files that are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decr_scene.models.checkpoints.keymap import export_state
from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    build_modules,
    read_model_file,
    save_model_file,
)
from decr_scene.models.checkpoints.rivals import STEMS, read_rival, rival_keys, rival_model, with_cloudnet
from decr_scene.models.errors import CheckpointError
from decr_scene.models.model import Model
from decr_scene.models.networks.detector import CloudNetDetector
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.rivals.amgan import AMGAN
from decr_scene.models.rivals.cloudnet import CloudNet
from decr_scene.models.rivals.cvae import CVAE
from decr_scene.models.rivals.diffcr import DiffCR
from decr_scene.models.rivals.discriminator import Discriminator
from decr_scene.models.rivals.dpm_solver import DPMSolver, noise_at, sigmoid_abar
from decr_scene.models.rivals.spagan import Neighbours, SpAGAN

SMALL: dict[str, Any] = {
    "spagan": lambda: SpAGAN(3, 4),
    "amgan": lambda: AMGAN(3, 4),
    "cvae": lambda: CVAE(3, 4, 32),
    "diffcr": lambda: DiffCR(3, 4),
    "cloudnet": lambda: CloudNet(4, 2),
    "gandis": lambda: Discriminator(3, 2),
}
PARAMETERS = {
    "spagan": (SpAGAN, 219_300, 16_228),
    "amgan": (AMGAN, 238_273, 11_264),
    "cvae": (CVAE, 15_418_847, 0),
    "diffcr": (DiffCR, 22_937_731, 0),
    "gandis": (Discriminator, 2_762_945, 0),
}


def published(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """A small network's weights under their published names."""
    torch.manual_seed(seed)
    network = SMALL[kind]()
    state: dict[str, Tensor] = export_state(network.state_dict(), rival_keys(network))
    return state


def model(kind: str) -> Model:
    return Model(*rival_model(published(kind), kind), device="cpu")


@pytest.mark.parametrize("kind", PARAMETERS)
def test_sizes_are_the_published_ones(kind: str) -> None:
    build, count, unused = PARAMETERS[kind]
    with torch.device("meta"):
        network = build(3)
    entries = rival_keys(network).values()
    dead = sum(int(torch.Size(e.shape).numel()) for e in entries if e.ours is None)
    assert sum(p.numel() for p in network.parameters()) == count - unused
    assert dead == unused


def test_cloudnet_has_its_published_size() -> None:
    with torch.device("meta"):
        network = CloudNet()
    assert sum(p.numel() for p in network.parameters()) == 36_448_673
    assert {name for name in rival_keys(network)} >= {"conv2d_33.bias", "batch_normalization_31.running_var"}


@pytest.mark.parametrize("kind", SMALL)
def test_published_names_lead_to_our_tensors_and_back(kind: str) -> None:
    state = published(kind)
    network, tensors = read_rival(state, kind)
    assert tensors.keys() == network.state_dict().keys()
    again = export_state(tensors, rival_keys(network))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name].float()) for name in state)


@pytest.mark.parametrize("kind", ["spagan", "amgan", "cvae", "diffcr"])
def test_a_model_file_of_published_weights_answers_the_same(kind: str, tmp_path: Path) -> None:
    config, tensors = rival_model(published(kind), kind)
    save_model_file(tmp_path / "rival.safetensors", config, tensors)
    cloudy = torch.rand(1, 3, 32, 32) * 2 - 1
    before, after = (
        Model(c, t, device="cpu").sample(cloudy, steps=2)
        for c, t in ((config, tensors), read_model_file(tmp_path / "rival.safetensors"))
    )
    assert torch.equal(before, after)
    assert before.shape == cloudy.shape
    assert float(before.abs().max()) <= 1
    assert config.network is None


def test_spagan_takes_blue_green_red() -> None:
    assert rival_model(published("spagan"), "spagan")[0].bands == ("blue", "green", "red")
    assert rival_model(published("amgan"), "amgan")[0].bands == ("red", "green", "blue")


@pytest.mark.parametrize("size", [(33, 20), (8, 61), (1, 7), (7, 1)])
@pytest.mark.parametrize("kind", ["spagan", "amgan"])
def test_generators_take_any_size(kind: str, size: tuple[int, int]) -> None:
    assert model(kind).reference(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


def test_each_direction_of_spagan_looks_at_one_neighbour() -> None:
    look, x = Neighbours(1), torch.tensor([[[[1.0, -2.0, 4.0], [-8.0, 16.0, -32.0]]]])
    for part in look.parameters():
        nn.init.constant_(part, 0.5)
    expected = {
        "up": [[1, -2, 4], [0, 15.5, 0]],
        "right": [[0.5, 0.5, 4], [0.5, 0.5, -32]],
        "down": [[0, 6.5, 0], [-8, 16, -32]],
        "left": [[1, 0, 3.5], [-8, 12.5, 0]],
    }
    found = look(x)[0]
    assert all(
        torch.equal(map_, torch.tensor(rows)) for map_, rows in zip(found, expected.values(), strict=True)
    )


def test_the_discriminator_always_has_the_statistics_of_its_batch() -> None:
    torch.manual_seed(0)
    judge, one = Discriminator(3, 2), [torch.rand(1, 3, 64, 64) for _ in range(2)]
    trained = judge(*one)
    assert torch.equal(nn.ModuleDict({"judge": judge}).eval()["judge"](*one), trained)


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    noise = torch.randn(2, 3, 32, 32)
    for kind in ("cvae", "diffcr"):
        own = model(kind)
        both = own.sample(images, steps=2, noise=noise)
        alone = own.sample(images[1:], steps=2, noise=noise[1:])
        assert torch.allclose(both[1:], alone, atol=1e-5)


def test_the_noise_chooses_among_the_answers_of_cvae() -> None:
    own, cloudy = model("cvae"), torch.rand(1, 3, 32, 32) * 2 - 1
    noises = [torch.full((1, 3, 32, 32), value) for value in (0.0, 9.0, 9.0)]
    middle, one, same = (own.sample(cloudy, noise=noise) for noise in noises)
    assert torch.equal(one, same)
    assert not torch.equal(middle, one)
    assert torch.allclose(middle, own.reference(cloudy).clamp(-1, 1), atol=1e-6)
    assert torch.equal(
        own.sample(cloudy, noise=noises[1], weight_floor=1), own.reference(cloudy).clamp(-1, 1)
    )


def test_cvae_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="image is 48 x 32 px, CVAE takes 32 x 32: cut or resize it"):
        model("cvae").reference(torch.zeros(1, 3, 48, 32))


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_the_solver_arrives_at_an_estimate_that_never_changes(steps: int) -> None:
    truth = torch.rand(1, 3, 8, 8) * 2 - 1
    calls: list[float] = []

    def estimate(x: Tensor, label: float) -> Tensor:
        calls.append(label)
        return truth

    assert torch.allclose(DPMSolver(steps)(torch.randn(1, 3, 8, 8), estimate), truth)
    assert len(calls) == steps + 1
    assert calls[-1] == 0


def test_training_sees_under_each_label_the_noise_that_sampling_has_there() -> None:
    solver = DPMSolver(20)
    labels = torch.tensor(solver.labels)
    abar, again = noise_at((labels * 0.999 + 1) / 1000)
    assert torch.allclose(again, labels, atol=1e-3)
    assert torch.allclose(abar, torch.tensor(solver.log_alpha).mul(2).exp().float(), atol=1e-4)


def test_training_goes_from_the_clear_image_to_noise() -> None:
    abar, labels = noise_at(torch.tensor([0.0, 0.00025, 0.5, 1.0]))
    assert abar[0] == 1
    assert abar[1] == pytest.approx((1 + sigmoid_abar(2000)[1]) / 2, abs=1e-6)
    assert abar[2] == pytest.approx(0.5, abs=1e-6)
    assert abar[3] == pytest.approx(0, abs=1e-6)
    assert labels[0] == 0


def test_the_detector_of_cloudnet_sees_the_bands_in_its_own_order(tmp_path: Path) -> None:
    weights = published("cloudnet")
    reference = ReferenceConfig("spagan", 4, 4)
    bands = ("blue", "green", "red", "nir")
    config = ModelConfig("m", bands, None, reference, sampling=SamplingConfig(weight_floor=0))
    tensors = build_modules(config).state_dict()
    save_model_file(tmp_path / "m.safetensors", *with_cloudnet(config, tensors, weights))
    seen = Model(*read_model_file(tmp_path / "m.safetensors"), device="cpu")
    assert isinstance(seen.detector, CloudNetDetector)
    image = torch.rand(1, 4, 40, 70) * 2 - 1
    found = seen.detect(image)
    assert found.shape == (1, 2, 40, 70)
    network, own = read_rival(weights, "cloudnet")
    network = network.to_empty(device="cpu").eval()
    network.load_state_dict(own)
    padded = nn.functional.pad(image[:, [2, 1, 0, 3]], (0, 26, 0, 24), mode="replicate")
    assert torch.allclose(found[:, 1:], network((padded + 1) / 2)[..., :40, :70], atol=1e-6)


def test_weights_of_another_system_are_named() -> None:
    with pytest.raises(CheckpointError, match="cvae checkpoint expected, found amgan: give the"):
        read_rival(published("amgan"), "cvae")
    with pytest.raises(CheckpointError, match=r"something else \(no gen\.gen\.SAM1\.conv1.weight; its first"):
        read_rival({"a.b": torch.zeros(1)}, "spagan")


def test_what_is_missing_is_named() -> None:
    state = published("spagan")
    del state["gen.gen.SAM1.conv2.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: gen\.gen\.SAM1\.conv2\.bias"):
        read_rival(state, "spagan")


@pytest.mark.parametrize("kind", STEMS)
def test_what_tells_bands_and_widths_is_named_where_it_is_missing_or_misshapen(kind: str) -> None:
    state = published(kind)
    for name in STEMS[kind]:
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)} has shape \(7,\), expected one of"):
            read_rival(state | {name: torch.zeros(7)}, kind)
        lacking = {key: tensor for key, tensor in state.items() if key != name}
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)}( is missing|; its first)"):
            read_rival(lacking, kind)


def test_weights_that_are_not_finite_are_refused() -> None:
    state = published("amgan")
    state["gen.gen.conv_f.0.weight"] = torch.full_like(state["gen.gen.conv_f.0.weight"], torch.nan)
    with pytest.raises(CheckpointError, match=r"gen\.gen\.conv_f\.0\.weight has values that are not finite"):
        read_rival(state, "amgan")


def test_bands_must_be_as_many_as_the_weights_have() -> None:
    with pytest.raises(CheckpointError, match="has 3 bands, 4 names were given"):
        rival_model(published("amgan"), "amgan", ("red", "green", "blue", "nir"))


def test_cloudnet_needs_a_model_of_its_four_bands() -> None:
    config = ModelConfig("three", ("red", "green", "blue"), None, ReferenceConfig("spagan", 3, 4))
    with pytest.raises(CheckpointError, match="model three has red, green, blue: take a model of those four"):
        with_cloudnet(config, {}, published("cloudnet"))


def test_weights_of_a_whole_diffcr_checkpoint_are_taken_out_of_it() -> None:
    state = {f"denoise_fn.{name}": tensor for name, tensor in published("diffcr").items()}
    _, tensors = read_rival({**state, "gammas": torch.zeros(3)}, "diffcr")
    assert tensors.keys() == SMALL["diffcr"]().state_dict().keys()
