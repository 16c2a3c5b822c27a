"""What is said of options of sampling that do not do what one would think."""

import numpy as np
import pytest
from model_cases import idle_model, tiny_model
from raster_cases import write

from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.restorer import SAMPLING
from decr_scene.pipeline.raster.scene import RasterioScene

VALUES = {"steps": 2, "start": 100, "weight_floor": 0.5, "gain": 2.0}


@pytest.fixture
def scene(tmp_path):
    with RasterioScene.open(write(tmp_path / "scene.tif", np.ones((3, 64, 64), np.uint8))) as scene:
        yield scene


def warnings_of(scene, **options):
    planned = plan_scene(scene, Options(bands="red,green,blue", **options))
    return [text for text in planned.warnings if text.startswith((*SAMPLING, "weight-floor", "uncertainty"))]


@pytest.mark.parametrize("name", SAMPLING)
def test_options_of_sampling_are_without_effect_where_nothing_samples(name, scene, tmp_path):
    alone = str(idle_model(tmp_path / "alone.safetensors"))
    for restorer in ({"model": "identity"}, {"model": alone}, {"restorer": lambda tiles, noise: tiles}):
        (told,) = warnings_of(scene, **restorer, **{name: VALUES[name]})
        assert told.startswith(f"{name.replace('_', '-')}: without effect")
        assert not warnings_of(scene, **restorer)
    sampling = str(tiny_model(tmp_path / "tiny.safetensors"))
    assert not warnings_of(scene, model=sampling, **{name: VALUES[name]})


def test_several_are_told_in_one_line(scene):
    (told,) = warnings_of(scene, model="identity", **VALUES)
    assert told.startswith("steps, start, weight-floor, gain: without effect, as identity has")


def test_the_error_to_be_expected_is_that_of_the_own_sampling(scene):
    (told,) = warnings_of(scene, model="rgb", uncertainty=True, gain=2.0)
    assert told.endswith("fitted on the model's own sampling, not on this gain")
    assert not warnings_of(scene, model="rgb", uncertainty=True)
    assert not warnings_of(scene, model="rgb", gain=2.0)
