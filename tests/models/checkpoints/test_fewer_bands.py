"""A smaller model gives what the larger one gives where the stand-in is in the place of the missing band."""

from dataclasses import replace

import pytest
import torch

from decr_scene.models.checkpoints.fewer_bands import without_band
from decr_scene.models.checkpoints.model_file import ModelConfig, build_modules
from decr_scene.models.errors import CheckpointError
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import NetworkConfig, UNetConfig

UNET = UNetConfig(channels=8, multipliers=(1, 2), num_res_blocks=1, attention_factors=(), heads=1, patch=2)
MODEL = ModelConfig(
    "four",
    ("blue", "green", "red", "nir"),
    NetworkConfig(bands=4, noise=UNET, weight=replace(UNET, patch=1)),
    ReferenceConfig(bands=4, width=8, multipliers=(1, 2), middle_blocks=1, contrast=True, context=True),
)


@pytest.fixture
def networks():
    """The larger modules with weights that do something, and the smaller ones."""
    torch.manual_seed(0)
    large = build_modules(MODEL)
    for parameter in large.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    config, tensors = without_band(MODEL, large.state_dict(), "nir", "red")
    small = build_modules(config)
    small.load_state_dict(tensors)
    return large.eval(), small.eval()


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
        (replace(MODEL, detector=DetectorConfig(bands=4)), "nir", "red", "not folded"),
    ],
)
def test_what_cannot_be_folded_is_refused(config, band, stand_in, message):
    with pytest.raises(CheckpointError, match=message):
        without_band(config, {}, band, stand_in)
