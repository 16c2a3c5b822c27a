"""Training of the paper's other systems, and what runs become."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_cases import read_png
from training_cases import RIVALS, run_of, train

from decr_scene.models.data.loading import load_source
from decr_scene.models.errors import TrainingError
from decr_scene.models.model import load_model
from decr_scene.models.release.export import doubts, export_model
from decr_scene.models.training.loop import CHECKPOINT, Trainer, validation_pairs
from decr_scene.models.training.weights import average_runs


@pytest.mark.parametrize(
    ("stage", "kind"), [("adversarial", "spagan"), ("variational", "cvae"), ("conditional", "diffcr")]
)
def test_another_system_that_was_stopped_ends_with_the_same_weights(stage, kind, root, tmp_path):
    config = run_of(stage, reference={**RIVALS[stage]["reference"], "kind": kind})
    train(config, root, tmp_path / "whole")
    train(config, root, tmp_path / "parts", steps=5)
    assert torch.load(tmp_path / "parts" / CHECKPOINT)["step"] == 3
    train(config, root, tmp_path / "parts")
    states = (torch.load(tmp_path / name / CHECKPOINT)["modules"] for name in ("whole", "parts"))
    whole, parts = states
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("stage", "kind", "loss", "rate"),
    [
        ("adversarial", "amgan", "l1", 5e-3),
        ("variational", "cvae", "smooth_l1", 2e-3),
        ("conditional", "diffcr", "x0", 1e-2),
    ],
)
def test_the_loss_of_another_system_falls(stage, kind, loss, rate, root, tmp_path):
    reference = {**RIVALS[stage]["reference"], "kind": kind}
    config = run_of(stage, reference=reference, steps=16, learning_rate=rate, checkpoint_every=16)
    trainer = Trainer.start(config, tmp_path / "run")
    told = []
    sources = [load_source(part, root, read_png) for part in config.data]
    trainer.run(sources, [], lambda step, figures: told.append(figures))
    first, last = (np.mean([row[loss] for row in rows]) for rows in (told[:3], told[-3:]))
    assert last < 0.9 * first
    if stage == "adversarial":
        assert {"fake", "real", "gan", "att"} <= told[0].keys()


def test_diffcr_is_validated_by_a_sampling_run_of_the_averaged_weights(root, tmp_path):
    trainer = train(run_of("conditional", steps=1), root, tmp_path / "run")
    network = trainer.ema["reference"].net
    asked = []
    network.register_forward_hook(lambda module, given, result: asked.append(float(given[1][0])))
    source = load_source(trainer.config.data[0], root, read_png)
    figures = trainer.validate(validation_pairs(source, 1))
    assert len(asked) == 6
    assert asked == sorted(asked, reverse=True)
    assert math.isfinite(figures["answer_db"])


def test_the_discriminator_has_its_turn_before_the_generator(root, tmp_path):
    config = run_of("adversarial", steps=1)
    begun = Trainer.start(config, tmp_path / "a").objective.modules
    trained = train(config, root, tmp_path / "b").objective.modules
    for part in ("reference", "discriminator"):
        pairs = zip(begun[part].parameters(), trained[part].parameters(), strict=True)
        assert all(not torch.equal(one, other) for one, other in pairs if one.ndim > 1)


def test_a_finished_run_of_another_system_becomes_a_model(root, tmp_path):
    config = run_of("adversarial")
    train(config, root, tmp_path / "run")
    (tmp_path / "card.toml").write_text('name = "gan"\n[sampling]\n[info]\nabout = "a toy"\n')
    written = export_model(config, tmp_path / "run", tmp_path / "card.toml", tmp_path / "gan.safetensors")
    assert written.network is None
    model = load_model(tmp_path / "gan.safetensors", device="cpu")
    assert not any(name.startswith("discriminator") for name in model.tensors())
    assert model.sample(torch.zeros(1, 3, 20, 20)).shape == (1, 3, 20, 20)


def test_a_run_of_other_bands_is_refused_and_one_under_way_is_known(root, tmp_path):
    config = run_of("adversarial")
    (tmp_path / "card.toml").write_text('name = "gan"\n[sampling]\n[info]\nabout = "a toy"\n')
    trainer = Trainer.start(config, tmp_path / "run")
    sources = [load_source(part, root, read_png) for part in config.data]
    trainer.run(sources, [], lambda step, figures: None, minutes=0)
    assert "is not finished" in doubts(config, tmp_path / "run")[0]
    average_runs([tmp_path / "run" / CHECKPOINT] * 2, tmp_path / "mean.pt")
    assert "is not finished" in doubts(config, tmp_path / "mean.pt")[0]
    train(config, root, tmp_path / "run")
    assert not doubts(config, tmp_path / "run")
    other = replace(config, bands=("blue", "green", "red"))
    told = "was trained on red, green, blue, the model has blue, green, red"
    for options in ({}, {"reference": tmp_path / "run"}):
        with pytest.raises(TrainingError, match=told):
            export_model(other, tmp_path / "run", tmp_path / "card.toml", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["mn", "mdsa"])
def test_a_finished_run_of_a_published_reference_is_a_model_alone(kind, root, tmp_path):
    config = run_of("reference", reference={"kind": kind, "width": 8}, steps=1, warmup=0)
    train(config, root, tmp_path / "run")
    (tmp_path / "card.toml").write_text('name = "one"\n[sampling]\n[info]\nabout = "a toy"\n')
    export_model(config, tmp_path / "run", tmp_path / "card.toml", tmp_path / "one.safetensors")
    model = load_model(tmp_path / "one.safetensors", device="cpu")
    assert model.config.network is None
    assert model.sample(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_a_run_of_our_own_reference_is_no_whole_model(tmp_path):
    with pytest.raises(TrainingError, match="a run of stage reference is no whole model"):
        export_model(run_of("reference"), tmp_path, tmp_path / "card.toml", tmp_path / "out")


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        ("adversarial", {"reference": {"kind": "mn", "width": 4}}, "kind spagan or amgan, found 'mn'"),
        ("variational", {"crop": 64}, "crop must be the reference's side, 32, got 64"),
        ("variational", {"signed": True}, "signed is of stage adversarial alone"),
        ("conditional", {"reference": {"kind": "cvae", "width": 4}}, "kind diffcr, found 'cvae'"),
        ("adversarial", {"schedule": "linear"}, "schedule 'linear' is unknown"),
        (
            "adversarial",
            {"crop": 31, "batch": 1},
            "patches of 16 px and needs two of them, got 1 x 1: set batch",
        ),
        (
            "variational",
            {"reference": {"kind": "cvae", "width": 3, "side": 32}},
            "cvae must be 4 at least, got 3",
        ),
        ("reference", {"reference": {"kind": "mn", "width": 3}}, "width of mn must be 4 at least, got 3"),
        (
            "reference",
            RIVALS["adversarial"],
            "'spagan' is trained by stage adversarial, found stage reference",
        ),
        ("reference", RIVALS["variational"], "'cvae' is trained by stage variational, found stage reference"),
        ("reference", RIVALS["conditional"], "'diffcr' is trained by stage conditional, found stage refer"),
        (
            "reference",
            {"reference": {"kind": "mn", "width": 8}, "crop": 36},
            "multiple of 8 for a reference of",
        ),
        (
            "reference",
            {"reference": {"kind": "mdsa", "width": 8}, "crop": 4},
            "above 4 for a reference of kind",
        ),
    ],
)
def test_a_run_of_another_system_that_makes_no_sense_is_refused(stage, changes, said):
    with pytest.raises(ValueError, match=said):
        run_of(stage, **changes)


@pytest.mark.parametrize("stage", ["weight", "joint"])
@pytest.mark.parametrize("own", RIVALS)
def test_another_system_may_be_the_first_guess_that_is_weighed(own, stage):
    assert run_of(stage, **RIVALS[own]).reference.kind == RIVALS[own]["reference"]["kind"]


def test_validation_images_of_another_size_are_refused_before_a_step(root, tmp_path):
    config = run_of("variational")
    trainer = Trainer.start(config, tmp_path / "run")
    sources = [load_source(part, root, read_png) for part in config.data]
    with pytest.raises(TrainingError, match=r"validation 0 is 64 x 64 px, the network takes 32 x 32 alone"):
        trainer.run(sources, list(sources[0].pairs[0]), lambda step, figures: pytest.fail("a step was taken"))
