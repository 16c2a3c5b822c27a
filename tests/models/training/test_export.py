"""From a run to a model file: what is refused, and what a user is told of a run that may not fit."""

from dataclasses import replace

import pytest
import torch
from training_cases import run_of, train

from decr_scene.models.descriptions import describe, unlike
from decr_scene.models.errors import CheckpointError, TrainingError
from decr_scene.models.release.export import doubts, export_model
from decr_scene.models.training.loop import CHECKPOINT
from decr_scene.models.training.weights import average_runs

CARD = 'name = "one"\n[sampling]\nsteps = 5\n[info]\nabout = "a toy"\n'


@pytest.fixture
def config():
    return run_of("reference", reference={"kind": "mn", "width": 8}, steps=1, warmup=0)


@pytest.fixture
def run(config, root):
    train(config, root, root / "run")
    return root / "run"


@pytest.mark.parametrize(
    ("of", "by", "said"),
    [
        ('name = "one"', "name = 5", "name is 5, expected text"),
        ("steps = 5", "steps = 5.5", "steps is 5.5, expected a whole number"),
        ("steps = 5", 'steps = "5"', "steps is '5', expected a whole number"),
        ("steps = 5", "stepz = 5", r"unknown keys \['stepz'\] in sampling"),
        ("[sampling]\nsteps = 5", "sampling = 5", "sampling is 5, expected a table"),
        (CARD, 'name = "one"\ninfo = "x"\n[sampling]\n', "info is 'x', expected a table"),
        ('about = "a toy"', "about = 2026-01-01", "not JSON serializable"),
        ('name = "one"', 'name = "one"\nfoo = 1', "unknown keys foo, expected some of name, packed"),
    ],
)
def test_a_card_that_no_model_can_have_is_refused(of, by, said, config, run, tmp_path):
    (tmp_path / "card.toml").write_text(CARD.replace(of, by))
    with pytest.raises(TrainingError, match=said):
        export_model(config, run, tmp_path / "card.toml", tmp_path / "one.safetensors")
    assert not (tmp_path / "one.safetensors").exists()


def test_a_model_that_cannot_be_written_is_told_in_one_line(config, run, tmp_path):
    (tmp_path / "card.toml").write_text(CARD)
    with pytest.raises(CheckpointError, match=r"out\.safetensors cannot be written \("):
        export_model(config, run, tmp_path / "card.toml", tmp_path / "no folder" / "out.safetensors")


def test_a_configuration_that_the_run_was_not_trained_with_is_told_of(config, run, tmp_path):
    assert doubts(config, run) == []
    assert doubts(replace(config, learning_rate=1e-5), run) == []
    (told,) = doubts(replace(config, reference=replace(config.reference, smooth=True)), run)
    assert "other values than this configuration's reference.smooth=True:" in told
    average_runs([run / CHECKPOINT] * 2, tmp_path / "mean.pt")
    assert doubts(config, tmp_path / "mean.pt") == []


def test_a_key_is_compared_with_the_same_key_of_the_same_table():
    config = run_of("weight")
    described = describe(config)
    assert unlike(config, described, ("reference", "network")) == []
    named = replace(config, data=(replace(config.data[0], clear="it's (clear"),))
    assert unlike(named, describe(named), ("reference", "network")) == []
    other = replace(config, reference=replace(config.reference, blocks=2))  # as another table has it
    assert unlike(other, described, ("reference", "network")) == ["reference.blocks=2"]
    assert unlike(other, described, ("network",)) == []
    alone = describe(replace(config, network=None, stage="reference"))
    assert unlike(config, alone, ("reference",)) == []


def test_a_mean_is_no_model(run, tmp_path):
    with pytest.raises(TrainingError, match=r"a mean is a checkpoint: let it end with \.pt"):
        average_runs([run / CHECKPOINT] * 2, tmp_path / "mean.safetensors")
    assert torch.load(run / CHECKPOINT)["step"] == 1
