"""Published weights of other systems, from a checkpoint to a scene."""

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from raster_cases import plain

from decr_scene.models.checkpoints.keymap import export_state
from decr_scene.models.checkpoints.model_file import ModelConfig, build_modules, save_model_file
from decr_scene.models.checkpoints.rivals import rival_keys
from decr_scene.models.model import load_model
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.rivals.amgan import AMGAN
from decr_scene.models.rivals.cloudnet import CloudNet
from decr_scene.models.rivals.cvae import CVAE
from decr_scene.models.rivals.diffcr import DiffCR
from decr_scene.models.rivals.spagan import SpAGAN
from decr_scene.pipeline import open_scene, process_scene, restore
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import place_noise

SMALL = {
    "spagan": lambda: SpAGAN(3, 4),
    "amgan": lambda: AMGAN(3, 4),
    "cvae": lambda: CVAE(3, 4),
    "diffcr": lambda: DiffCR(3, 4),
    "cloudnet": lambda: CloudNet(4, 2),
}


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Checkpoints of small networks as published, by their kind."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("rivals")
    for kind, build in SMALL.items():
        network = build()
        torch.save(export_state(network.state_dict(), rival_keys(network)), folder / f"{kind}.pth")
    return folder


def imported(checkpoints, kind, out):
    result = call("models", "import", checkpoints / f"{kind}.pth", "--kind", kind, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("kind", ["spagan", "amgan", "cvae", "diffcr"])
def test_an_imported_system_restores_a_scene(kind, checkpoints, tmp_path):
    file = imported(checkpoints, kind, tmp_path / "rival.safetensors")
    scene = plain(tmp_path / "scene.tif", (256, 256), 3, "uint8", photometric="RGB")
    options = {"model": file, "mask": "none", "steps": 2, "device": "cpu"}
    restored = np.asarray(restore(open_scene(scene), **options))
    own = load_model(file, device="cpu")
    with rasterio.open(scene) as dataset:
        pixels = dataset.read()[::-1].copy() if kind == "spagan" else dataset.read()
    noise = torch.from_numpy(place_noise(0, 0, 3, Span(0, 0, 256, 256))[None])
    expected = own.sample(torch.from_numpy(pixels[None] / np.float32(127.5) - 1), steps=2, noise=noise)[0]
    expected = (expected.numpy()[::-1] if kind == "spagan" else expected.numpy()) * 127.5 + 127.5
    assert np.abs(restored - np.clip(np.rint(expected), 0, 255)).max() <= 1


def test_answers_of_cvae_tell_the_uncertainty(checkpoints, tmp_path):
    file = imported(checkpoints, "cvae", tmp_path / "rival.safetensors")
    scene = plain(tmp_path / "scene.tif", (256, 300), 3, "uint8", photometric="RGB")
    process_scene(scene, tmp_path / "clean.tif", model=str(file), mask="none", samples=2, workers=1)
    with rasterio.open(tmp_path / "clean_uncertainty.tif") as dataset:
        assert dataset.read().max() > 0


def test_a_system_of_another_size_than_tiles_is_refused_before_the_work(tmp_path):
    config = ModelConfig("cvae", ("red", "green", "blue"), None, ReferenceConfig("cvae", 3, 4, side=64))
    save_model_file(tmp_path / "cvae.safetensors", config, build_modules(config).state_dict())
    scene = plain(tmp_path / "scene.tif", (256, 300), 3, "uint8", photometric="RGB")
    result = call("process", scene, "--out", tmp_path / "out.tif", "--model", tmp_path / "cvae.safetensors")
    assert result.exit_code == 2
    assert "takes images of 64 x 64 px alone, tiles are 256 x 256: train one of that side" in result.stderr
    assert not (tmp_path / "out.tif").exists()


def test_a_system_without_steps_cannot_share_them(checkpoints, tmp_path):
    file = imported(checkpoints, "spagan", tmp_path / "rival.safetensors")
    scene = plain(tmp_path / "scene.tif", (256, 256), 3, "uint8", photometric="RGB")
    with pytest.raises(OptionError, match="has none of: take blend feather"):
        process_scene(scene, tmp_path / "clean.tif", model=str(file), blend="joint")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spagan.pth", "--kind", "cvae"], "cvae checkpoint expected, found spagan"),
        (["spagan.pth"], "--kind de needs --reference: name it"),
        (["cloudnet.pth", "--kind", "cloudnet"], "--kind cloudnet needs --into: name it"),
        (["spagan.pth", "--kind", "spagan", "--into", "default"], "--into is of --kind cloudnet"),
        (["spagan.pth", "--kind", "spagan", "--bands", "red,green"], "has 3 bands, 2 names were given"),
    ],
)
def test_wrong_ways_in_are_one_line(arguments, message, checkpoints, tmp_path):
    out = tmp_path / "rival.safetensors"
    result = call("models", "import", checkpoints / arguments[0], *arguments[1:], "--out", out)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not out.exists()


def test_cloudnet_becomes_the_detector_of_a_model(checkpoints, tmp_path):
    out = tmp_path / "seen.safetensors"
    arguments = [checkpoints / "cloudnet.pth", "--kind", "cloudnet", "--into", "default", "--out", out]
    result = call("models", "import", *arguments)
    assert result.exit_code == 0, result.output
    assert "detector cloudnet" in result.output
    detector = load_model(out, device="cpu").detector
    assert detector.config.family == "cloudnet"
    assert detector.config.threshold == pytest.approx(12 / 255)
