"""Which values of the TOML of a run are refused, and how what is kept is described."""

import math
import re

import pytest
from training_cases import run_of

from decr_scene.models.descriptions import describe
from decr_scene.models.errors import TrainingError
from decr_scene.models.training.config import config_from_table, read_config


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("simulate", 1.5, "simulate must be a share of the crops"),
        ("share", -1.0, "share must be a weight from 0"),
        ("share", 0.0, r"share of all \[\[data\]\] is 0"),
        ("scales", [], "scales must be 1 / whole numbers"),
        ("bands", [-1, 0, 1], "bands must be positions in the file, counted from 0"),
        ("brightness", [1.1, 0.9], "brightness must be two rising gains above 0"),
        ("brightness", [-1.0, -0.5], "brightness must be two rising gains above 0"),
        ("tint", -0.5, "tint must be a power of e, from 0 to 2"),
        ("holdout", [["9", "0"]], "holdout must be names from-to, in their order, got '9' to '0'"),
        ("brightness", [1, 1e308], "brightness must be two rising gains above 0, to 100"),
        ("keep_clear", [0, 1e308], "keep_clear must be two rising numbers of DN, to 1000"),
        ("scales", [1e-320], "scales must be 1 / whole numbers"),
        ("resize", 1_000_000_000, "resize must be a width from 1 to 65536 px"),
        ("resize", 10**400, "resize has a number of 401 digits, expected one within 64 bits"),
        ("tint", 10**400, "tint has a number of 401 digits"),
        ("veils", {"scale": [0, 0]}, "scale must rise within"),
        ("veils", {"transmission": {"red": 1}}, "transmission is .*, expected a table, each a list of 2"),
        ("veils", {"transmission": {"red": [1]}}, "transmission is .*, expected a table, each a list of 2"),
        (
            "clouds",
            {"transmission": {"red": math.nan}},
            "transmission is .*, expected a table, each",
        ),
        ("clouds", {"transmission": {"red": "x"}}, "transmission is .*, expected a table, each"),
    ],
)
def test_values_that_draw_nothing_are_refused(key, value, told):
    with pytest.raises((TypeError, ValueError), match=told):
        run_of("reference", data=[{"cloudy": "cloudy", "clear": "clear", key: value}])


@pytest.mark.parametrize("part", ["data", "validation"])
@pytest.mark.parametrize("clear", ["cloudy", "cloudy/", "./clear/../cloudy"])
def test_images_are_not_their_own_truth(clear, part):
    table = {"cloudy": "cloudy", "clear": clear}
    with pytest.raises(ValueError, match=f"{part}: clear and cloudy are both '{re.escape(clear)}', expected"):
        run_of("reference", **{part: [table] if part == "data" else table})


def test_a_table_of_ranges_is_described_as_ever():
    """By the description a run that has begun is known."""
    config = run_of("reference", data=[{"folder": ".", "veils": {"transmission": {"red": [0.9, 1.0]}}}])
    assert "transmission={'red': [0.9, 1.0]}" in describe(config)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "dance"},
        {"optimiser": "sgd"},
        {"data": []},
        {"stage": "joint"},
        {"colour": 3},
        {"reference": {"bands": 4}},
        {"ema": -1.0},
        {"ema": 2.0},
        {"warmup": -5},
        {"weight_decay": -1.0},
        {"seed": 2**70},
        {"bands": ["r", "r", "b"]},
        {"bands": ["", "a", "b"]},
        {"learning_rate": 1e300},
        {"learning_rate": 10**400},
        {"weight_decay": 1e300},
        {"batch": 10**12},
        {"batch": 1 << 12, "accumulate": 1 << 12},
        {"crop": 1},
        {"reference": {"multipliers": [0]}},
    ],
)
def test_a_run_that_makes_no_sense_is_refused(change, tmp_path):
    table = {
        "stage": "reference",
        "bands": ["r", "g", "b"],
        "steps": 1,
        "data": [{"clear": "x", "cloudy": "y"}],
    }
    with pytest.raises(ValueError, match=r"."):
        config_from_table({**table, **change})
    (tmp_path / "run.toml").write_text("stage = 'dance'\nbands = ['r']\nsteps = 1\ndata = []\n")
    with pytest.raises(TrainingError, match=r"run\.toml: "):
        read_config(tmp_path / "run.toml")
