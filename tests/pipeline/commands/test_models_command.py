"""Published checkpoints go in by the command line and come out as a model that the pipeline runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from raster_cases import plain
from torch import nn

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import ModelConfig, model_sha256, read_model_config
from decr_scene.models.model import Model, load_model, to_published
from decr_scene.models.networks.noise_network import NetworkConfig, NoiseNetwork
from decr_scene.models.networks.reference import ReferenceConfig, build_reference
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNetConfig
from decr_scene.pipeline.commands.main import main


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of the published classes at reduced width, and its two checkpoints as published."""
    torch.manual_seed(0)
    network = NetworkConfig(3, UNetConfig(channels=32), replace(PUBLISHED_WEIGHT, channels=32))
    config = ModelConfig("small", ("red", "green", "blue"), network, ReferenceConfig("mdsa", 3, 16))
    parts = {"network": NoiseNetwork(network), "reference": build_reference(config.reference)}
    model = Model(config, nn.ModuleDict(parts).state_dict(), device="cpu", precision="fp32")
    folder = tmp_path_factory.mktemp("published")
    for name, state in zip(("de.pt", "mdsa.pth"), to_published(model), strict=True):
        torch.save({key: nn.Parameter(value) for key, value in state.items()}, folder / name)
    return model, folder


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_an_imported_model_samples_as_before(published, tmp_path):
    model, folder = published
    out = tmp_path / "mine.safetensors"
    result = call("models", "import", folder / "de.pt", "--reference", folder / "mdsa.pth", "--out", out)
    assert result.exit_code == 0, result.output
    imported = load_model(out, device="cpu", precision="fp32")
    cloudy = torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(imported.sample(cloudy, steps=2), model.sample(cloudy, steps=2))
    shown = json.loads(call("models", "show", out).stdout)
    assert shown["bands"] == ["red", "green", "blue"]
    assert shown["reference"]["kind"] == "mdsa"


@pytest.mark.parametrize(
    ("option", "bands"),
    [("swir,nir,green", ["swir", "nir", "green"]), ("n, R,green", ["nir", "red", "green"])],
)
def test_bands_are_renamed_on_the_way_in(option, bands, published, tmp_path):
    _, folder = published
    out = tmp_path / "mine.safetensors"
    options = ["--reference", folder / "mdsa.pth", "--out", out, "--bands", option]
    assert call("models", "import", folder / "de.pt", *options).exit_code == 0
    assert json.loads(call("models", "show", out).stdout)["bands"] == bands


def test_checkpoints_in_the_wrong_order_are_refused(published, tmp_path):
    _, folder = published
    out = tmp_path / "mine.safetensors"
    result = call("models", "import", folder / "mdsa.pth", "--reference", folder / "de.pt", "--out", out)
    assert result.exit_code == 1
    assert "give the checkpoint of DE first" in result.stderr
    assert not out.exists()


@pytest.mark.slow
def test_an_imported_model_runs_a_scene(published, tmp_path):
    _, folder = published
    out = tmp_path / "mine.safetensors"
    call("models", "import", folder / "de.pt", "--reference", folder / "mdsa.pth", "--out", out)
    scene = plain(tmp_path / "scene.tif", (120, 200), 3, "uint8", photometric="RGB")
    options = ["--model", out, "--steps", "1", "--start", "200", "--quiet"]
    result = call("process", scene, "--out", tmp_path / "clean.tif", *options)
    assert result.exit_code == 0, result.output
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "clean.tif") as after:
        assert not np.array_equal(before.read(), after.read())


def folded(out, *more):
    """`default` without near infrared, under the name and with the line of `rgb`."""
    about = read_model_config(find_model("rgb")).info["about"]
    call_of = ["models", "fold", "default", "--band", "nir", "--into", "red", "--name", "rgb"]
    result = call(*call_of, "--out", out, "--about", about, *more)
    assert result.exit_code == 0, result.output
    return out


def test_a_folded_model_answers_as_if_the_band_were_a_copy(tmp_path):
    out = folded(tmp_path / "rgb.safetensors")
    four, three = (load_model(model, device="cpu", precision="fp32") for model in ("default", out))
    assert three.config.bands == ("blue", "green", "red")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 1.5 - 1
    expected = four.reference(torch.cat([image, image[:, 2:]], dim=1))[:, :3]
    torch.testing.assert_close(three.reference(image), expected, atol=2e-3, rtol=0)  # half precision


def test_the_bundled_fold_is_what_the_command_makes(tmp_path):
    out = folded(tmp_path / "rgb.safetensors", "--mix", "green 0.32, red 0.63")
    four, three = (load_model(model, device="cpu", precision="fp32") for model in ("default", out))
    assert three.config == load_model("rgb", device="cpu").config
    assert model_sha256(out) == model_sha256(find_model("rgb"))
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 1.5 - 1
    seen = 0.32 * image[:, 1:2] + 0.63 * image[:, 2:] - 0.05
    expected = four.reference(torch.cat([image, seen], dim=1))[:, :3]
    apart = (three.reference(image) - expected).abs()
    # beyond its border a network sees grey, and through its norms a little of that is seen everywhere
    assert apart.mean() < 0.002
    copied = four.reference(torch.cat([image, image[:, 2:]], dim=1))[:, :3]
    assert (copied - expected).abs().mean() > 10 * apart.mean()


def test_a_mix_that_is_none_is_refused(tmp_path):
    result = call(
        *("models", "fold", "default", "--band", "nir", "--into", "red", "--name", "x"),
        *("--out", tmp_path / "x.safetensors", "--mix", "green"),
    )
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "--mix is 'green', expected bands, each once, and their shares" in result.stderr


def test_a_bundled_fold_is_listed_with_what_it_is_made_of():
    result = call("models", "list")
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("rgb "))
    assert "blue, green, red; made of default; " in line
    assert json.loads(call("models", "show", "rgb").stdout)["info"]["folded"] == (
        "nir into red, seen as green 0.32, red 0.63"
    )


def test_a_band_that_the_model_lacks_cannot_be_folded(tmp_path):
    out = tmp_path / "less.safetensors"
    result = call("models", "fold", "default", "--band", "swir", "--into", "red", "--name", "x", "--out", out)
    assert result.exit_code == 1
    assert "no 'swir'" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("name", ["identity", "fill"])
def test_what_is_built_in_is_listed_and_shown(name):
    assert name in call("models", "list").stdout
    shown = call("models", "show", name)
    assert shown.exit_code == 0
    assert "built in" in shown.stdout
