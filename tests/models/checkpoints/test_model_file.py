import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from decr_scene.models.checkpoints import header
from decr_scene.models.checkpoints.model_file import (
    METADATA_KEY,
    ModelConfig,
    SamplingConfig,
    build_modules,
    expected_shapes,
    read_model_config,
    read_model_file,
    save_model_file,
)
from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig

NETWORK = NetworkConfig(
    bands=3,
    noise=UNetConfig(channels=8, multipliers=(1, 2), attention_factors=(2,), heads=1, patch=2),
    weight=UNetConfig(channels=8, multipliers=(1,), attention_factors=(), heads=1, scale_shift=False),
    prediction="v",
)
CONFIG = ModelConfig(
    name="tiny",
    bands=("nir", "red", "green"),
    network=NETWORK,
    reference=ReferenceConfig(bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1),
    scaling={"kind": "fixed", "low": 0, "high": 255},
    sampling=SamplingConfig(steps=4, start=400, weight_floor=0.2),
    info={"licence": "CC-BY-4.0", "metrics": {"psnr": 30.5}},
)


def tensors(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    return build_modules(config).state_dict()


def raw_file(path: Path, change: dict[str, Any] | None = None, **metadata: str) -> Path:
    """A model file as it is on disk, with parts of its configuration changed."""
    text = json.dumps({"format": 1, **asdict(CONFIG), **(change or {})})
    save_file(tensors(), path, metadata=metadata or {METADATA_KEY: text})
    return path


REFERENCE = asdict(CONFIG.reference)


def with_noise(**values: Any) -> dict[str, Any]:
    """The networks of `CONFIG`, as they are in a file, with other values of the noise predictor."""
    return asdict(NETWORK) | {"noise": asdict(NETWORK.noise) | values}


def test_a_model_file_gives_back_configuration_and_tensors(tmp_path: Path) -> None:
    own = tensors()
    save_model_file(tmp_path / "tiny.safetensors", CONFIG, own)
    config, found = read_model_file(tmp_path / "tiny.safetensors")
    assert config == CONFIG
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in own.items())
    assert read_model_config(tmp_path / "tiny.safetensors") == CONFIG
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_half_precision_is_kept_on_disk(tmp_path: Path) -> None:
    save_model_file(tmp_path / "m", CONFIG, {name: tensor.half() for name, tensor in tensors().items()})
    assert {tensor.dtype for tensor in read_model_file(tmp_path / "m")[1].values()} == {torch.float16}


def test_packed_networks_take_eight_bits_and_come_back_within_half_a_step(tmp_path: Path) -> None:
    own, config = tensors(), replace(CONFIG, packed=True)
    for name, tensor in own.items():
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))))
    save_model_file(tmp_path / "m", config, own)
    read, found = read_model_file(tmp_path / "m")
    assert read == config
    assert found.keys() == own.keys()
    for name, tensor in own.items():
        if tensor.ndim < 2 or name.startswith("reference."):
            assert torch.equal(found[name], tensor)
        else:
            step = tensor.flatten(1).abs().amax(dim=1) / 127
            assert ((found[name] - tensor).flatten(1).abs().amax(dim=1) <= 0.501 * step).all()
            assert not torch.equal(found[name], tensor)
    with safe_open(tmp_path / "m", framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in own if own[name].ndim > 1 and "network" in name}
    assert kinds == {torch.int8}
    save_model_file(tmp_path / "again", read, found)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_packed_kernels_without_their_scales_are_refused(tmp_path: Path) -> None:
    save_model_file(tmp_path / "m", replace(CONFIG, packed=True), tensors())
    with safe_open(tmp_path / "m", framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.endswith(".scale")}  # noqa: SIM118  # not a mapping
        metadata = file.metadata()
    save_file(kept, tmp_path / "m", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"the scales of network\..* are missing"):
        read_model_file(tmp_path / "m")


def test_tensors_in_any_memory_order_can_be_saved(tmp_path: Path) -> None:
    own = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in tensors().items()}
    save_model_file(tmp_path / "m", CONFIG, own)
    assert all(torch.equal(tensor, own[name]) for name, tensor in read_model_file(tmp_path / "m")[1].items())


def test_expected_shapes_are_those_of_the_networks() -> None:
    assert expected_shapes(CONFIG) == {name: tuple(tensor.shape) for name, tensor in tensors().items()}


def test_a_detector_comes_with_its_configuration_or_not_at_all(tmp_path: Path) -> None:
    detector = DetectorConfig(bands=3, widths=(2, 3), factor=2, threshold=0.25)
    with_one = replace(CONFIG, detector=detector)
    both = tensors(with_one)
    save_model_file(tmp_path / "m", with_one, both)
    config, found = read_model_file(tmp_path / "m")
    assert config == with_one
    assert found.keys() == both.keys() > tensors().keys()
    with pytest.raises(CheckpointError, match="a detector without a configuration"):
        save_model_file(tmp_path / "m", CONFIG, both)
    with pytest.raises(CheckpointError, match="its tensors are missing"):
        save_model_file(tmp_path / "m", with_one, tensors())
    with pytest.raises(CheckpointError, match=r"of another shape: .*detector\.enter"):
        save_model_file(tmp_path / "m", replace(CONFIG, detector=replace(detector, widths=(4, 3))), both)
    with pytest.raises(CheckpointError, match="a detector of 4 bands"):
        replace(CONFIG, detector=DetectorConfig(bands=4))


def test_what_does_not_fit_is_named_before_anything_is_written(tmp_path: Path) -> None:
    wrong = tensors() | {"network.noise_net.stem.bias": torch.zeros(5), "odd": torch.zeros(1)}
    del wrong["reference.enter.bias"]
    expected = r"1 missing: reference.enter.bias; 1 not expected: odd; 1 of another shape: .*stem.bias \(5,\)"
    with pytest.raises(CheckpointError, match=expected):
        save_model_file(tmp_path / "m", CONFIG, wrong)
    assert not list(tmp_path.iterdir())


def test_long_lists_of_faults_are_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"0 tensors found, \d+ expected; \d+ missing: ") as refusal:
        save_model_file(tmp_path / "m", CONFIG, {})
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no model file, or a damaged one"):
        read_model_file(tmp_path / "m")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = raw_file(tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is no model file, or a damaged one"):
        read_model_file(tmp_path / "m")


def test_no_file_and_no_configuration_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_model_file(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not a model of this program"):
        read_model_file(raw_file(tmp_path / "m", other="x"))
    with pytest.raises(CheckpointError, match="is no model file"):
        read_model_file(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 3}, "of format 3, and this program reads up to 2: update the program"),
        ({"format": None}, "format None"),
        ({"format": True}, "format True"),
        ({"surprise": 1}, "surprise is nothing that this program knows: update the program"),
        ({"bands": ["red", "red", "nir"]}, "each under a name of its own"),
        ({"sampling": {"steps": 0}}, "m: steps must be in 1 to 1000, got 0"),
        ({"network": with_noise(num_res_blocks=10**6)}, "num_res_blocks must be in 1 to 64"),
        ({"network": with_noise(channels=10**9)}, "channels of a level must be in 1 to 65536"),
        ({"network": with_noise(multipliers=[1] * 65)}, "levels must be in 1 to 64"),
        ({"reference": REFERENCE | {"blocks": 10**7}}, "blocks must be in 0 to 64"),
        ({"reference": REFERENCE | {"width": 10**9}}, "width must be in 1 to 65536"),
        ({"detector": {"bands": 3, "widths": [10**9]}}, "channels of a level must be in 1 to 65536"),
        ({"network": 5}, "unreadable configuration"),
        ({"network": None}, r"276 not expected: network\."),
        ({"bands": ["red"]}, "1 band names, a network of 3 bands, a reference of 3"),
        ({"sampling": {"speed": 1}}, "speed"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=reason) as refusal:
        read_model_file(raw_file(tmp_path / "m", change))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "null"])
def test_a_configuration_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unreadable configuration"):
        read_model_file(raw_file(tmp_path / "m", decr_scene=text))


def test_a_file_that_may_not_be_read_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise FileNotFoundError  # as safetensors tells it

    monkeypatch.setattr(header, "safe_open", refused)
    (tmp_path / "m").touch()
    with pytest.raises(CheckpointError, match="change its permissions"):
        read_model_config(tmp_path / "m")


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    wider = asdict(NETWORK) | {"noise": asdict(NETWORK.noise) | {"channels": 16}}
    with pytest.raises(CheckpointError, match="of another shape: "):
        read_model_file(raw_file(tmp_path / "m", {"network": wider}))


def test_what_is_given_goes_before_the_models_own_and_the_last_step_is_noise_alone() -> None:
    own = SamplingConfig(steps=10, start=400, weight_floor=0.2, halo=64)
    assert own.replaced() == own
    assert own.replaced(steps=5, weight_floor=0.0) == SamplingConfig(5, 400, 0.0, 64)
    assert own.replaced(start=300).first_step == 300
    assert own.replaced(start=1000).first_step is None
    assert SamplingConfig().first_step is None
    gained = replace(own, gain=2.0)
    assert gained.replaced(steps=10, start=400, halo=0) == replace(gained, halo=0)
    assert gained.replaced(steps=5).gain == 1
    assert gained.replaced(steps=5, gain=3).gain == gained.replaced(gain=3).gain == 3
    assert replace(own, turns=2).replaced(steps=5).turns == 2
    for turns in (3, 2.0):
        with pytest.raises(CheckpointError, match=f"turns must be 1, 2 or 4, got {turns}"):
            replace(own, turns=turns)  # type: ignore[arg-type]  # a float is no number of turns
    with pytest.raises(CheckpointError, match="start must be in 1 to 1000, got 1001"):
        own.replaced(start=1001)
