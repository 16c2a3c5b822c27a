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

from decr_scene.models.data.loading import load_source
from decr_scene.models.training.config import read_config
from decr_scene.pipeline.raster.images import read_image

SCRIPT = ROOT / "docs" / "recipes" / "on_a_gpu.py"
RECIPE = SimpleNamespace(**runpy.run_path(str(SCRIPT)))

DATA = """
[[data]]
cloudy = "cloudy"
clear = "clear"
simulate = 0.5
scales = [1.0, 0.5]

[[data]]
clear = "clear"
simulate = 1.0
"""

HEAD = """
bands = ["red", "green", "blue"]
steps = 1000
batch = 2
crop = 32
"""

REFERENCE = """
[reference]
kind = "unet"
width = 8
multipliers = [1, 2]
blocks = 1
middle_blocks = 1
context = true
"""

NETWORK = """
[network]
prediction = "residual"
guided = true
noise = { channels = 8, multipliers = [1], num_res_blocks = 1, attention_factors = [], heads = 1 }
weight = { channels = 8, multipliers = [1], num_res_blocks = 1, attention_factors = [], heads = 1 }
"""


@pytest.fixture
def runs(tmp_path):
    """Images, and two runs over them: a reference, and a noise network about it."""
    rng = np.random.default_rng(0)
    for number in range(4):
        for kind in ("cloudy", "clear"):
            image = smooth_ground(rng, 8, 64, (40, 160))
            save_png(tmp_path / "data" / kind / f"{number}.png", image)
    texts = {
        "first": 'stage = "reference"\n' + HEAD + REFERENCE + DATA,
        "second": 'stage = "diffusion"\npart = 16\nearly = 0.5\n' + HEAD + REFERENCE + NETWORK + DATA,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return [tmp_path / f"{name}.toml" for name in texts]


def test_sources_come_out_as_they_went_in_and_no_band_is_packed_twice(runs, tmp_path):
    RECIPE.pack(tmp_path / "data", tmp_path / "images.zip", runs, 100)
    config = read_config(runs[0])
    unpacked = RECIPE.unpack(tmp_path / "images.zip", [config, read_config(runs[1])])
    assert [len(sources) for sources in unpacked] == [2, 2]
    for part, source in zip(config.data, unpacked[0], strict=True):
        expected = load_source(part, tmp_path / "data", read_image)
        assert source.config == part
        for pairs, others in zip(source.pairs, expected.pairs, strict=True):
            for pair, other in zip(pairs, others, strict=True):
                assert (pair.name, pair.tone is None) == (other.name, other.tone is None)
                assert np.abs(pair.cloudy - other.cloudy).mean() < 1 / 127.5
                assert np.abs(pair.clear - other.clear).mean() < 1 / 127.5
    pictures = [name for name in zipfile.ZipFile(tmp_path / "images.zip").namelist() if name != "sources"]
    assert len(pictures) == 8, "four images, cloudy and clear"


def test_weights_come_in_files_of_a_size():
    weights = {str(number): torch.full((100,), float(number)) for number in range(5)}
    parts = RECIPE.cut(weights, most=450)
    assert [list(part) for part in parts] == [["0", "1"], ["2", "3"], ["4"]]
    assert all(weight.dtype == torch.float16 for part in parts for weight in part.values())


def test_processes_draw_crops_until_they_are_ahead_and_end_when_told(runs, tmp_path):
    config = read_config(runs[0])
    sources = [load_source(part, tmp_path / "data", read_image) for part in config.data]
    crops = RECIPE.Crops(sources, config, drawers=2, slots=3)
    try:
        taken = []
        while len(taken) < 8:
            taken += crops.take()
        assert {part.shape for part in taken[0]} == {(3, 32, 32), (6, 4, 4)}
        assert len({crop[0].tobytes() for crop in taken}) == len(taken), "each is another"
    finally:
        crops.close()
    assert crops.processes == []


@pytest.mark.slow
def test_a_run_begins_with_what_the_one_before_has_reached(runs, tmp_path):
    RECIPE.pack(tmp_path / "data", tmp_path / "images.zip", runs, 90)
    given = [f"{run}:0.02" for run in runs]
    command = [sys.executable, str(SCRIPT), "train", str(tmp_path / "images.zip"), str(tmp_path / "out")]
    options = ["--device", "cpu", "--drawers", "1", "--held", "8"]
    subprocess.run([*command, *given, *options], check=True, timeout=300)
    reference, noise = (
        torch.load(tmp_path / "out" / f"{run.stem}-1.pt", weights_only=True)["ema"] for run in runs
    )
    assert {name.split(".")[0] for name in reference} == {"reference"}
    assert {name.split(".")[0] for name in noise} == {"network"}
    assert noise["network.noise_net.stem.weight"].shape[1] == 9, "noisy, cloudy and first guess"
