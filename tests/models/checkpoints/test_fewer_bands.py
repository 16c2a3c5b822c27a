"""A smaller model gives what the larger one gives where the stand-in is in the place of the missing band."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from decr_scene.models import bundled
from decr_scene.models.checkpoints import model_file
from decr_scene.models.checkpoints.fewer_bands import without_band
from decr_scene.models.checkpoints.fold import Fold, Mix, mix_in_words, read_mix
from decr_scene.models.checkpoints.header import METADATA_KEY, read_summary
from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    build_modules,
    model_sha256,
    read_model_config,
    read_model_file,
    save_model_file,
)
from decr_scene.models.errors import CheckpointError
from decr_scene.models.model import load_model
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.grown import GrownConfig
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig

UNET = UNetConfig(channels=8, multipliers=(1, 2), num_res_blocks=1, attention_factors=(), heads=1, patch=2)
MODEL = ModelConfig(
    "four",
    ("blue", "green", "red", "nir"),
    NetworkConfig(bands=4, noise=UNET, weight=replace(UNET, patch=1)),
    ReferenceConfig(bands=4, width=8, multipliers=(1, 2), middle_blocks=1, contrast=True, context=True),
)
MIX = (("green", 0.3), ("red", 0.5))
TOLD = {"model": "four.safetensors", "band": "nir", "into": "red", "about": "no near infrared"}


GROWN = {"grown": GrownConfig(MODEL.reference, local=8, blocks=1), "covered": (0.1, 0.3)}


def drawn(model=MODEL):
    """Modules with weights that do something."""
    torch.manual_seed(0)
    modules = build_modules(model)
    for parameter in modules.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return modules.eval()


def folded(large, model=MODEL, mix=()):
    """The modules without near infrared."""
    config, tensors = without_band(model, large.state_dict(), "nir", "red", mix)
    small = build_modules(config)
    small.load_state_dict(tensors)
    return small.eval()


@pytest.fixture(params=["eps", "residual", "grown"])
def networks(request):
    """The larger modules, and the smaller ones."""
    assert MODEL.network is not None
    prediction = "residual" if request.param == "grown" else request.param
    more = GROWN if request.param == "grown" else {}
    noise = replace(MODEL.network, prediction=prediction, guided=prediction == "residual", **more)
    model = replace(MODEL, network=noise)
    large = drawn(model)
    return large, folded(large, model)


def stood_in(images):
    return torch.cat([images, images[:, 2:3]], dim=1)


def test_the_reference_answers_the_same(networks):
    large, small = (part["reference"] for part in networks)
    three, looks = torch.rand(2, 3, 32, 32) - 0.5, torch.rand(2, 3, 8, 8)
    anchor = torch.rand(2, 3, 8, 8) - 0.5
    expected = large(stood_in(three), torch.cat([stood_in(anchor), looks], dim=1))
    torch.testing.assert_close(
        small(three, torch.cat([anchor, looks], dim=1)), expected[:, :3], atol=1e-5, rtol=1e-4
    )


def test_the_noise_and_weight_networks_answer_the_same(networks):
    large, small = (part["network"] for part in networks)
    x_t, cloudy, guess = (torch.rand(2, 3, 32, 32) - 0.5 for _ in range(3))
    expected = large(*(stood_in(x) if isinstance(x, torch.Tensor) else x for x in (x_t, 7, cloudy, guess)))
    for found, wanted in zip(small(x_t, 7, cloudy, guess), expected, strict=True):
        torch.testing.assert_close(found, wanted[:, :3], atol=1e-5, rtol=1e-4)


def test_the_reference_may_see_a_mix_of_bands():
    large, three = drawn(), torch.rand(2, 3, 32, 32) - 0.5
    small = folded(large, mix=MIX)
    # beyond its border a network sees grey: of a mix that is less than whole, another grey
    cloudy = torch.cat([three, 0.3 * three[:, 1:2] + 0.5 * three[:, 2:3] - 0.2], dim=1)
    of_large, of_small = (
        part["reference"].enter(torch.nn.functional.pixel_unshuffle(image, 2))
        for part, image in ((large, cloudy), (small, three))
    )
    torch.testing.assert_close(of_large[..., 1:-1, 1:-1], of_small[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(of_large, of_small, atol=1e-5)


def test_of_a_whole_mix_the_reference_answers_the_same():
    large = drawn()
    small = folded(large, mix=(("green", 0.4), ("red", 0.6)))
    three, anchor, looks = (torch.rand(2, 3, side, side) - 0.5 for side in (32, 8, 8))
    image, known = (torch.cat([i, 0.4 * i[:, 1:2] + 0.6 * i[:, 2:3]], dim=1) for i in (three, anchor))
    expected = large["reference"](image, torch.cat([known, looks], dim=1))
    found = small["reference"](three, torch.cat([anchor, looks], dim=1))
    torch.testing.assert_close(found, expected[:, :3], atol=1e-5, rtol=1e-4)


def test_an_anchor_is_mixed_without_an_offset():
    large = drawn()
    anchor, looks = torch.rand(1, 3, 8, 8) - 0.5, torch.rand(1, 3, 8, 8)
    mixed = 0.3 * anchor[:, 1:2] + 0.5 * anchor[:, 2:]
    torch.testing.assert_close(
        folded(large, mix=MIX)["reference"].context(torch.cat([anchor, looks], dim=1)),
        large["reference"].context(torch.cat([anchor, mixed, looks], dim=1)),
    )


def test_a_mix_keeps_the_types_of_the_weights():
    tensors = build_modules(MODEL).half().state_dict()
    less = without_band(MODEL, tensors, "nir", "red", MIX)[1]
    assert {name: less[name].dtype for name in less} == {name: tensors[name].dtype for name in less}


@pytest.mark.parametrize("text", ["green 0.1234567890123, red-edge 0.5", "red 1", "swir 1 0.001", "red 5e-1"])
def test_a_mix_is_written_as_it_is_read(text):
    mix = read_mix(text)
    assert len(mix) == text.count(",") + 1
    assert read_mix(mix_in_words(mix)) == mix
    assert read_mix(" ") == ()


def test_what_is_no_reference_sees_the_stand_in():
    tensors = drawn().state_dict()
    plain, mixed = (without_band(MODEL, tensors, "nir", "red", mix)[1] for mix in ((), MIX))
    differ = {name for name in plain if not torch.equal(plain[name], mixed[name])}
    assert differ == {"reference.enter.weight", "reference.enter.bias", "reference.context.weight"}


def test_a_detector_is_folded_too():
    large = replace(MODEL, detector=DetectorConfig(bands=4, widths=(4, 8)))
    tensors = build_modules(large).state_dict()
    config, less = without_band(large, tensors, "nir", "red")
    modules = build_modules(config)
    modules.load_state_dict(less)
    whole = build_modules(large)
    whole.load_state_dict(tensors)
    image = torch.rand(1, 3, 16, 24) - 0.5
    expected = whole["detector"].eval()(stood_in(image))
    torch.testing.assert_close(modules["detector"].eval()(image), expected, atol=1e-5, rtol=1e-4)


def test_the_weights_of_the_larger_model_stay_as_they_are():
    tensors = build_modules(MODEL).state_dict()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    without_band(MODEL, tensors, "nir", "red")
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("config", "band", "stand_in", "message"),
    [
        (MODEL, "swir", "red", "no 'swir'"),
        (MODEL, "nir", "nir", "cannot stand in for itself"),
        (replace(MODEL, detector=DetectorConfig(bands=4, family="cloudnet")), "nir", "red", "not folded"),
    ],
)
def test_what_cannot_be_folded_is_refused(config, band, stand_in, message):
    with pytest.raises(CheckpointError, match=message):
        without_band(config, {}, band, stand_in)


def told(folder: Path, text: str | None = None, **change: object) -> Path:
    """A fold beside its model."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**TOLD, **change}.items()]
    path = folder / "three.toml"
    path.write_text("\n".join(lines) if text is None else text)
    return path


@pytest.fixture(params=[False, True], ids=["as they are", "packed"])
def four(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_model_file(
        tmp_path / "four.safetensors", replace(MODEL, packed=request.param), drawn().half().state_dict()
    )
    return tmp_path


@pytest.mark.parametrize(
    ("mix", "change", "words"),
    [
        ((), {}, "nir into red"),
        (MIX, {"mix": "green .3 ,red 0.50"}, "nir into red, seen as green 0.3, red 0.5"),
    ],
)
def test_a_fold_is_read_as_the_file_that_it_stands_for(
    mix: Mix, change: dict[str, object], words: str, four: Path
) -> None:
    larger, tensors = read_model_file(four / "four.safetensors")
    fold = Fold(four / "four.safetensors", "nir", "red", "three", "no near infrared", mix)
    save_model_file(
        four / "file.safetensors", fold.config(larger), without_band(larger, tensors, "nir", "red", mix)[1]
    )
    (config, found), (expected, wanted) = (
        read_model_file(path) for path in (told(four, **change), four / "file.safetensors")
    )
    assert config == expected == read_model_config(four / "three.toml")
    assert (config.name, config.bands, config.info["folded"]) == (
        "three",
        ("blue", "green", "red"),
        words,
    )
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
    )
    assert model_sha256(four / "three.toml") == model_sha256(four / "file.safetensors")


def test_the_digest_of_a_fold_follows_what_it_is_made_of(four: Path) -> None:
    digests = [model_sha256(told(four)), model_sha256(told(four, into="green"))]
    digests.append(model_sha256(told(four, mix="red 0.9")))
    config, tensors = read_model_file(four / "four.safetensors")
    tensors["reference.enter.bias"] += 1
    save_model_file(four / "four.safetensors", config, tensors)
    digests.append(model_sha256(told(four)))
    assert len(set(digests)) == 4


def test_the_digest_of_a_fold_is_taken_once(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = model_sha256(told(four))
    with monkeypatch.context() as patch:
        patch.setattr(model_file, "save", lambda *_, **__: pytest.fail("it is known already"))
        assert model_sha256(told(four)) == digest
    (four / "four.safetensors").touch()
    assert model_sha256(told(four)) == digest


@pytest.mark.parametrize("about", ["no near infrared", ""])
def test_a_summary_says_what_the_configuration_says(about: str, four: Path) -> None:
    for path in (four / "four.safetensors", told(four, about=about)):
        summary, config = read_summary(path), read_model_config(path)
        assert (summary.bands, summary.about) == (config.bands, config.info.get("about", ""))
        assert (summary.fold is None) == (path.suffix == ".safetensors")


@pytest.mark.parametrize("text", ["[]", '{"name": "x"}', "{"])
def test_a_summary_of_an_unreadable_configuration_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={METADATA_KEY: text})
    with pytest.raises(CheckpointError, match="unreadable configuration"):
        read_summary(path)


def test_a_bundled_fold_is_found_by_name(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "WEIGHTS", four)
    told(four)
    assert bundled.bundled_models() == ["four", "three"]
    assert load_model("three", device="cpu").config.bands == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        ("model = ", {}, "is no model file"),
        ("", {}, "has nothing: a model in TOML has model, band, into, about"),
        (None, {"band": 3}, "each a text"),
        (None, {"more": "x"}, "has model, band, into, about, more"),
        (None, {"model": "../four.safetensors"}, "name a file with weights in the same folder"),
        (None, {"model": "three.toml"}, "name a file with weights in the same folder"),
        (None, {"model": "none.safetensors"}, "none.safetensors: no such file"),
        (None, {"band": "swir"}, "no 'swir'"),
        (None, {"mix": "green"}, "three.toml: mix is 'green', expected bands, each once, and their shares"),
        (None, {"mix": "red 0.5, red 0.5"}, "expected bands, each once"),
        (None, {"mix": "red 0"}, "of 0.001 to 1 together"),
        (None, {"mix": "red 0.5, green 0.6"}, "of 0.001 to 1 together"),
        (None, {"mix": "red -0.5"}, "of 0.001 to 1 together"),
        (None, {"mix": "red nan"}, "of 0.001 to 1 together"),
        (None, {"mix": "green 0.3 red 0.5"}, "has bands .* no 'green 0.3 red'"),
        (None, {"mix": "green 0.3,"}, "expected bands, each once"),
        (None, {"mix": "swir 1"}, "no 'swir'"),
        (None, {"mix": "nir 1"}, "cannot stand in for itself"),
    ],
)
def test_what_tells_no_model_is_refused(
    text: str | None, change: dict[str, object], message: str, four: Path
) -> None:
    path = told(four, text, **change)
    for read in (read_model_file, read_model_config, model_sha256):
        with pytest.raises(CheckpointError, match=message):
            read(path)


def test_a_damaged_model_is_named(four: Path) -> None:
    with safe_open(four / "four.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        metadata = file.metadata()
    del tensors["reference.enter.weight"]
    save_file(tensors, four / "four.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"four\.safetensors has other tensors than its configuration"):
        read_model_file(told(four))
