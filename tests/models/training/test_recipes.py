"""The recipes in docs: every run is one that can be trained."""

import pytest
from places import ROOT

from decr_scene.models.training.config import read_config

RECIPES = sorted(p for p in (ROOT / "docs" / "recipes").glob("*.toml") if not p.stem.endswith("-model"))
COMPARED = [path for path in RECIPES if path.stem.startswith("compare-")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run(recipe):
    assert read_config(recipe).stage


def test_systems_that_are_compared_learn_from_the_same_images():
    runs = [read_config(path) for path in COMPARED]
    assert {run.reference.kind for run in runs} == {"spagan", "amgan", "cvae", "diffcr", "unet"}
    assert all(run.data == runs[0].data for run in runs)
    assert {run.crop for run in runs} == {128, 256}
