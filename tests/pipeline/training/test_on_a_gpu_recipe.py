"""The recipe for a card, at the size of a toy and on a CPU."""

import runpy
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pair_cases import save_png, smooth_ground
from places import ROOT

from decr_scene.models.training.config import read_config

SCRIPT = ROOT / "docs" / "recipes" / "on_a_gpu.py"
RECIPE = SimpleNamespace(**runpy.run_path(str(SCRIPT)))

RUN = """
stage = "diffusion"
bands = ["red", "green", "blue"]
steps = 3
batch = 1
crop = 32
checkpoint_every = 100

[network]
prediction = "v"
noise = { channels = 8, multipliers = [1], num_res_blocks = 1, attention_factors = [], heads = 1 }
weight = { channels = 8, multipliers = [1], num_res_blocks = 1, attention_factors = [], heads = 1 }

[[data]]
clear = "chips"
simulate = 1.0
"""


@pytest.fixture
def chips(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        save_png(tmp_path / "images" / f"{number}.png", smooth_ground(rng, 8, 64, (40, 160)))
    return tmp_path / "images"


def test_images_are_packed_evenly_and_no_more_than_fit(chips, tmp_path):
    mean = sum(path.stat().st_size for path in chips.iterdir()) // 6
    out = tmp_path / "chips.zip"
    assert RECIPE.pack(chips, out, 100 * mean) == 6
    assert RECIPE.pack(chips, out, 4 * mean) == 3
    assert out.stat().st_size <= 4 * mean
    assert zipfile.ZipFile(out).namelist() == ["chips/0.png", "chips/2.png", "chips/4.png"]


def test_pieces_of_a_checkpoint_come_together_again(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    for content in (bytes(range(250)) * 5, b"shorter"):
        checkpoint.write_bytes(content)
        found = RECIPE.cut(checkpoint, tmp_path / "pieces", 500)
        assert max(path.stat().st_size for path in found) <= 500
        assert RECIPE.join(tmp_path / "pieces", tmp_path / "back" / "checkpoint.pt")
        assert (tmp_path / "back" / "checkpoint.pt").read_bytes() == content
    assert not RECIPE.join(tmp_path / "nothing", tmp_path / "none.pt")


def test_the_wide_network_is_one_that_can_be_trained():
    config = read_config(ROOT / "docs" / "recipes" / "default-diffusion-wide.toml")
    assert config.network is not None
    assert config.network.noise.channels == 64


@pytest.mark.slow
def test_stages_go_on_from_the_pieces_of_the_one_before(chips, tmp_path):
    packed, config, pieces = tmp_path / "chips.zip", tmp_path / "run.toml", tmp_path / "pieces"
    RECIPE.pack(chips, packed, 2**20)
    config.write_text(RUN)
    for number in range(3):  # each on a machine that knows nothing of the one before
        out = tmp_path / f"machine{number}"
        command = [sys.executable, str(SCRIPT), "train", str(packed), str(config), str(out)]
        options = ["--pieces", str(pieces), "--minutes", "0.0001", "--device", "cpu"]
        subprocess.run([*command, *options], check=True, timeout=300)
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        assert state["step"] == number + 1
