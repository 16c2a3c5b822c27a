import math
import re
from contextlib import suppress

import numpy as np
import pytest
import torch
from pair_cases import read_png, save_png
from training_cases import run_of, train

from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.crops import area_reduced
from decr_scene.models.data.loading import load_source
from decr_scene.models.data.tone import fit_tone, regions
from decr_scene.models.errors import TrainingError
from decr_scene.models.model import load_model
from decr_scene.models.release.export import export_model
from decr_scene.models.training import loop
from decr_scene.models.training.logs import METRICS, RunLog
from decr_scene.models.training.loop import CHECKPOINT, Trainer, validation_pairs
from decr_scene.models.training.weights import TRUNK, averaged_weights


def test_tone_is_found_under_a_cloud():
    rng = np.random.default_rng(0)
    clear = rng.uniform(-0.8, 0.2, (3, 64, 64)).astype(np.float32)
    gain, offset = np.array([0.7, 1.2, 1.0]), np.array([0.1, -0.2, 0.0])
    cloudy = (gain[:, None, None] * clear + offset[:, None, None]).astype(np.float32)
    cloudy[:, :30, :40] = 0.9
    tone = fit_tone(cloudy, clear)
    np.testing.assert_allclose(tone.gain.ravel(), gain, atol=0.02)
    np.testing.assert_allclose(tone.offset.ravel(), offset, atol=0.02)
    area = regions(cloudy, tone.apply(clear), cloud_share=0.25)
    assert area.cloud[:30, :40].mean() > 0.8
    assert not area.clear[:30, :40].any()


def test_area_reduction_is_the_mean_of_blocks():
    image = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    np.testing.assert_allclose(area_reduced(image, 2)[0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])


def test_a_run_whose_time_is_over_goes_on_with_the_next_call(root, tmp_path):
    config, ends = run_of("reference", checkpoint_every=100), []
    for minutes in (math.inf, 0):
        folder = tmp_path / f"{minutes}"
        for _ in range(20):
            trainer = Trainer.start(config, folder)
            sources = [load_source(part, root, read_png) for part in config.data]
            trainer.run(sources, [], lambda step, figures: None, minutes=minutes)
            ends.append(trainer.step)
            if trainer.step == config.steps:
                break
    assert ends == [6, 1, 2, 3, 4, 5, 6]
    whole, parts = (averaged_weights(tmp_path / name / CHECKPOINT) for name in ("inf", "0"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_processor_time_is_counted_over_all_calls_and_ends_the_run(root, tmp_path, monkeypatch):
    config = run_of("reference", checkpoint_every=1)
    sources = [load_source(part, root, read_png) for part in config.data]
    ends = []
    for minutes in (1.5, 1.5, 2.5):
        trainer = Trainer.start(config, tmp_path)
        clock = iter(range(0, 6000, 60))  # a minute a step
        monkeypatch.setattr(loop.time, "process_time", lambda clock=clock: next(clock))
        trainer.run(sources, [], lambda step, figures: None, cpu_minutes=minutes)
        ends.append((trainer.step, trainer.cpu_seconds))
    assert ends == [(2, 120), (2, 120), (3, 180)]


def test_a_run_that_processor_time_ends_is_validated_and_a_pause_is_not(root, tmp_path, monkeypatch):
    source = load_source(DataConfig("clear", "cloudy"), root, read_png)
    pairs, ends = validation_pairs(source, 1), []
    for limit in ({"cpu_minutes": 1.5}, {"minutes": 0}):
        trainer = Trainer.start(run_of("reference"), tmp_path / next(iter(limit)))
        clock = iter(range(0, 6000, 60))  # a minute a step
        monkeypatch.setattr(loop.time, "process_time", lambda clock=clock: next(clock))
        figures = trainer.run([source], pairs, lambda step, figures: None, **limit)
        ends.append((trainer.step, bool(figures)))
    assert ends == [(2, True), (1, False)]


def test_a_pair_without_cloud_has_no_say_in_what_is_under_it(root, tmp_path):
    pairs = validation_pairs(load_source(DataConfig("clear", "cloudy"), root, read_png), 1)
    trainer = Trainer.start(run_of("reference"), tmp_path)
    alone = trainer.validate(pairs[:1])
    equal = pairs[0]._replace(cloudy=pairs[0].clear, tone=None)
    both = trainer.validate([pairs[0], equal])
    assert both["input_cloud_db"] == alone["input_cloud_db"]
    assert math.isfinite(both["answer_db"])
    assert math.isnan(trainer.validate([equal])["answer_cloud_db"])


def test_a_run_that_ends_during_a_validation_has_its_steps_and_validates_when_it_goes_on(
    root, tmp_path, monkeypatch
):
    source = load_source(DataConfig("clear", "cloudy"), root, read_png)
    pairs, config = validation_pairs(source, 1), run_of("reference", checkpoint_every=4, validate_every=3)
    for name, fails_at in (("whole", ()), ("cut", (3, 6))):
        for ends in (*fails_at, None):
            trainer = Trainer.start(config, tmp_path / name)
            judge = trainer._judge

            def failing(pair, trainer=trainer, judge=judge, ends=ends):
                if trainer.step == ends:
                    raise KeyboardInterrupt
                return judge(pair)

            monkeypatch.setattr(trainer, "_judge", failing)
            with suppress(KeyboardInterrupt):
                trainer.run([source], pairs, lambda step, figures: None)
            assert Trainer.start(config, tmp_path / name).step == (ends or 6)
    assert (tmp_path / "cut" / METRICS).read_text() == (tmp_path / "whole" / METRICS).read_text()
    assert len((tmp_path / "cut" / METRICS).read_text().splitlines()) == 3


def test_a_run_that_ends_before_a_picture_writes_it_when_it_goes_on(root, tmp_path, monkeypatch):
    source = load_source(DataConfig("clear", "cloudy"), root, read_png)
    config = run_of("reference", checkpoint_every=4, validate_every=3)
    for ends in (True, False):
        trainer = Trainer.start(config, tmp_path)
        if ends:
            monkeypatch.setattr(trainer, "_samples", raising(KeyboardInterrupt))
        with suppress(KeyboardInterrupt):
            log = RunLog(tmp_path, trainer.step, config.bands, pictures=True)
            trainer.run([source], [], lambda step, figures: None, log=log)
        assert trainer.step == (3 if ends else 6)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000003.png", "000006.png"]
    assert len((tmp_path / METRICS).read_text().splitlines()) == 3


def raising(error):
    def call(*arguments):
        raise error

    return call


def test_a_damaged_checkpoint_is_refused(root, tmp_path):
    config = run_of("reference", steps=1)
    source = load_source(DataConfig("clear", "cloudy"), root, read_png)
    Trainer.start(config, tmp_path).run([source], [], lambda step, figures: None)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    middle = len(whole) // 2
    torch.save({"a": 1}, tmp_path / "foreign")
    cases = {
        "is damaged, in .*; remove it to begin the run anew": whole[:middle]
        + bytes(400)
        + whole[middle + 400 :],
        "no checkpoint of this program, or cut short": whole[: len(whole) // 2],
        "or cut short": b"",
        "but no checkpoint of this program": (tmp_path / "foreign").read_bytes(),
    }
    for told, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=told):
            Trainer.start(config, tmp_path)
    path.write_bytes(whole)
    assert Trainer.start(config, tmp_path).step == 1


def test_processor_time_of_loaders_is_not_known(root, tmp_path):
    trainer = Trainer.start(run_of("reference"), tmp_path)
    with pytest.raises(TrainingError, match="cpu-minutes are of one process, loaders are others"):
        trainer.run([], [], lambda step, figures: None, cpu_minutes=1, loaders=1)


def test_held_out_images_are_kept_from_the_reference_and_given_to_the_judge(root):
    config = DataConfig("clear", "cloudy", holdout=(("1", "2"), ("5", "5")))
    kept = load_source(config, root, read_png, held_out="without").pairs[0]
    judged = load_source(config, root, read_png, held_out="only").pairs[0]
    assert [p.name for p in kept] == ["0", "3", "4"]
    assert [p.name for p in judged] == ["1", "2", "5"]
    assert len(load_source(config, root, read_png).pairs[0]) == 6


def test_what_a_stage_draws_of_the_held_out_images_can_be_said():
    stages = {"reference": "without", "diffusion": "without", "joint": "with", "weight": "with"}
    assert {stage: run_of(stage).takes_held_out for stage in stages} == stages
    assert run_of("joint", held_out="without").takes_held_out == "without"
    with pytest.raises(ValueError, match="held_out 'some' is unknown"):
        run_of("joint", held_out="some")


def test_bad_images_are_named_all_at_once(root):
    save_png(root / "clear" / "1.png", np.zeros((64, 32, 3)))
    (root / "cloudy" / "4.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=re.compile(r"2 of 6 .*1\.png.*4\.png")):
        load_source(DataConfig("clear", "cloudy"), root, read_png)


def test_images_without_a_twin_are_named(root):
    (root / "clear" / "3.png").unlink()
    with pytest.raises(TrainingError, match=r"3 has no twin in .*clear"):
        load_source(DataConfig("clear", "cloudy"), root, read_png)


@pytest.mark.parametrize(
    ("stage", "optimiser"),
    [
        ("reference", "adamw"),
        ("diffusion", "adamw"),
        ("weight", "adamw"),
        ("joint", "adamw"),
        ("reference", "muon"),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_weights(stage, optimiser, root, tmp_path):
    wide = {"width": 24, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1}
    config = run_of(stage, optimiser=optimiser, reference=wide)
    train(config, root, tmp_path / "whole")
    train(config, root, tmp_path / "parts", steps=5)
    assert torch.load(tmp_path / "parts" / CHECKPOINT)["step"] == 3
    train(config, root, tmp_path / "parts")
    whole, parts = (averaged_weights(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_of_an_earlier_version_goes_on(root, tmp_path):
    config = run_of("reference")
    train(config, root, tmp_path / "whole")
    train(config, root, tmp_path / "parts", steps=5)
    checkpoint = tmp_path / "parts" / CHECKPOINT
    state = torch.load(checkpoint)
    state["config"] = state["config"].replace(", optimiser='adamw'", "")
    (state["optimiser"],) = state["optimiser"]  # it had one, and wrote it by itself
    torch.save(state, checkpoint)
    train(config, root, tmp_path / "parts")
    whole, parts = (averaged_weights(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("stage", "moves"),
    [("diffusion", "network.noise_net."), ("weight", "network.weight_net."), ("reference", "reference.")],
)
def test_a_stage_moves_only_its_own_weights(stage, moves, root, tmp_path):
    config = run_of(stage)
    before = {
        n: t.clone() for n, t in Trainer.start(config, tmp_path / "a").objective.modules.state_dict().items()
    }
    after = train(config, root, tmp_path / "b").objective.modules.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(moves) for name in changed)


def test_a_stage_starts_from_the_ones_before(root, tmp_path):
    train(run_of("reference"), root, tmp_path / "reference")
    train(run_of("diffusion"), root, tmp_path / "diffusion")
    before = [tmp_path / name / CHECKPOINT for name in ("reference", "diffusion")]
    joint = Trainer.start(run_of("joint"), tmp_path / "joint", before).objective.modules.state_dict()
    reference, diffusion = (averaged_weights(path) for path in before)
    assert all(torch.equal(joint[n], reference[n]) for n in joint if n.startswith("reference."))
    assert all(torch.equal(joint[n], diffusion[n]) for n in joint if n.startswith("network.noise_net."))


GROWN = {
    "prediction": "residual",
    "guided": True,
    "covered": [0.1, 0.3],
    "grown": {
        "local": 8,
        "blocks": 1,
        "trunk": {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1},
    },
}


def test_a_grown_noise_network_is_trained_and_becomes_a_model(root, tmp_path):
    before = train(run_of("reference"), root, tmp_path / "reference")
    config = run_of("diffusion", network=GROWN)
    first = Trainer.start(config, tmp_path / "a", [tmp_path / "reference" / CHECKPOINT])
    begun = {n: w.clone() for n, w in first.objective.modules.state_dict().items()}
    for name, weight in before.ema.state_dict().items():
        assert torch.equal(begun[TRUNK + name.removeprefix("reference.")], weight)
    after = train(config, root, tmp_path / "b", [tmp_path / "reference" / CHECKPOINT])
    moved = {n for n, w in after.objective.modules.state_dict().items() if not torch.equal(w, begun[n])}
    assert any(name.startswith(TRUNK) for name in moved)
    assert all(name.startswith("network.noise_net.") for name in moved)
    card = tmp_path / "card.toml"
    card.write_text('name = "grown"\n[sampling]\nsteps = 2\nstart = 100\nweight_floor = 0.0\n[info]\n')
    export_model(config, tmp_path / "b", card, tmp_path / "grown.safetensors")
    model = load_model(tmp_path / "grown.safetensors", "cpu")
    assert model.sample(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_network_without_weight_network_has_no_stage_for_it():
    with pytest.raises(ValueError, match="'covered' has no weight network for stage weight"):
        run_of("weight", network=GROWN)


def test_a_deeper_reference_begins_as_the_one_before(root, tmp_path):
    before = train(run_of("reference"), root, tmp_path / "a")
    deeper = {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 3, "contrast": True}
    after = Trainer.start(
        run_of("reference", reference=deeper), tmp_path / "b", [tmp_path / "a" / CHECKPOINT]
    )
    cloudy = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        answers = [modules["reference"].eval()(cloudy) for modules in (before.ema, after.objective.modules)]
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"middle_blocks": 0}, "expected none"),
        ({"width": 16}, r"has shape \(8,.*expected \(16,"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes, said, root, tmp_path):
    train(run_of("reference"), root, tmp_path / "a")
    other = {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1, **changes}
    with pytest.raises(TrainingError, match=said):
        Trainer.start(run_of("reference", reference=other), tmp_path / "b", [tmp_path / "a" / CHECKPOINT])


def test_a_folder_with_another_run_is_refused(root, tmp_path):
    train(run_of("reference"), root, tmp_path / "run")
    with pytest.raises(TrainingError, match="another configuration"):
        Trainer.start(run_of("reference", seed=1), tmp_path / "run")


def test_nothing_is_begun_that_needs_a_compiler_which_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match=r"needs a compiler of C.*no no-such-compiler: install one"):
        Trainer.start(run_of("reference", compiled=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("which", ["weights", "average"])
def test_what_is_not_finite_is_not_saved(which, root, tmp_path):
    config = run_of("reference", steps=1)
    train(config, root, tmp_path / "run")
    trainer, before = Trainer.start(config, tmp_path / "run"), (tmp_path / "run" / CHECKPOINT).read_bytes()
    modules = trainer.objective.modules if which == "weights" else trainer.ema
    next(iter(modules.parameters())).data[0] = math.nan
    with pytest.raises(TrainingError, match=r"is not finite after step 1: lower learning_rate .* folder"):
        trainer.save()
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_training_the_reference_beats_its_input(root, tmp_path):
    config = run_of(
        "reference", steps=150, batch=8, learning_rate=3e-3, data=[{"cloudy": "cloudy", "clear": "clear"}]
    )
    source = load_source(config.data[0], root, read_png)
    trainer = Trainer.start(config, tmp_path / "run")
    figures = trainer.run([source], validation_pairs(source), lambda step, figures: None)
    assert figures["answer_db"] > figures["input_db"] + 3


class Perfect(torch.nn.Module):
    """A first guess that is its input."""

    def forward(self, cloudy: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return cloudy


def test_a_weight_network_trained_on_the_path_learns_to_trust_a_perfect_first_guess(root, tmp_path):
    """With a first guess that is the truth, and a noise network that knows nothing, W rises towards 1."""
    config = run_of("weight", on_path=True, steps=60, batch=4, learning_rate=3e-3)
    trainer = Trainer.start(config, tmp_path / "run")
    trainer.objective.modules["reference"] = trainer.ema["reference"] = Perfect()
    sources = [load_source(DataConfig("clear", "clear", tone=False), root, read_png)]
    trainer.run(sources, [], lambda step, figures: None)
    cloudy = torch.rand(2, 3, 32, 32) - 0.5
    x_t = trainer.objective.schedule.add_noise(cloudy, torch.randn_like(cloudy), 300)
    with torch.no_grad():
        weight = trainer.objective.modules["network"].weight(x_t, 300, cloudy, cloudy)
    assert weight.mean() > 0.7


@pytest.mark.parametrize(
    ("said", "expected", "told"),
    [
        (
            "Read error [127.0.0.1]:5: Connection reset by peer. GLHF!",
            TrainingError,
            "same call goes on from",
        ),
        ("Connection closed by peer [127.0.0.1]:5", TrainingError, "another process of this run has ended"),
        ("Timed out waiting 1800000ms for recv operation to complete", RuntimeError, "Timed out"),
    ],
)
def test_a_process_whose_neighbour_has_ended_says_so(said, expected, told, monkeypatch):
    monkeypatch.setattr(loop, "_processes", lambda: 2)
    monkeypatch.setattr(
        loop.dist, "all_reduce", raising(RuntimeError(f"[gloo/transport/tcp/pair.cc:5] {said}"))
    )
    with pytest.raises(expected, match=told):
        loop._average_over_processes([torch.zeros(2)])
