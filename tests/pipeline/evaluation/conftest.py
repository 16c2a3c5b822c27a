"""What the tests of this room share: a folder of pairs and a tiny model."""

import pytest
from evaluation_cases import rice
from model_cases import tiny_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return rice(tmp_path_factory.mktemp("RICE"))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")
