"""`decr-scene doctor` says what is there, and fails where a scene cannot be cleaned."""

import json

import pytest
from command_cases import call

from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.inspection import health


def test_what_is_there_and_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr("decr_scene.pipeline.terminal.console.EXTRAS", {"no_such_module": "stac"})
    result = call("doctor", "--no-trial")
    assert result.exit_code == 0, result.stderr
    for words in ("torch 2", "rasterio 1", "cpu", "default", "pip install 'decr-scene[stac]'"):
        assert words in result.stdout


def test_the_trial_cleans_a_made_scene(monkeypatch):
    given = {}

    def process(src, dst, model):
        given["model"] = model
        return health_run(src, dst, model="fill")

    health_run = health.process_scene
    monkeypatch.setattr(health, "process_scene", process)
    result = call("doctor", "--json")
    assert given["model"] == "default"
    assert json.loads(result.stdout)["trial"]["ok"], result.stdout


def fails(*_, **__):
    raise SceneError("no luck")


def changes_nothing(src, dst, model):
    return REAL(src, dst, model="identity")


REAL = health.process_scene


@pytest.mark.parametrize(("process", "words"), [(fails, "no luck"), (changes_nothing, "nothing was changed")])
def test_a_trial_that_fails_ends_with_exit_code_1(process, words, monkeypatch):
    monkeypatch.setattr(health, "process_scene", process)
    result = call("doctor")
    assert result.exit_code == 1
    assert words in result.stderr
