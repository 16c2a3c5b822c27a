"""What the tests of this room share: a folder of pairs, a tiny model, and its figures there."""

import pytest
from evaluation_cases import rice
from model_cases import tiny_model

from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return rice(tmp_path_factory.mktemp("RICE"))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="session")
def measured(folder, model):
    """The model on the pairs, as `evaluate` measures it by default."""
    return evaluate_pairs(str(model), folder)
