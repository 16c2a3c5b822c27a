"""A noise network that learns to paint against a critic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pair_cases import read_png
from training_cases import run_of, train

from decr_scene.models.data.loading import load_source
from decr_scene.models.errors import TrainingError
from decr_scene.models.release.export import export_model
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.logs import RunLog
from decr_scene.models.training.loop import Trainer
from decr_scene.models.training.objectives import Draws
from decr_scene.models.training.painting import PaintingObjective, roughness_loss
from decr_scene.models.training.turns import turns_of
from decr_scene.models.training.weights import averaged_weights

TRUNK = {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1}
NETWORK = {
    "prediction": "residual",
    "guided": True,
    "covered": [0.05, 0.2],
    "grown": {"local": 8, "blocks": 1, "trunk": TRUNK},
}
WEIGHED = {"weight": {"channels": 8, "multipliers": [1], "attention_factors": [], "num_res_blocks": 1}}
CRITIC = {"width": 4, "texture": 2.0}


def painting_run(**changes):
    return run_of(
        "diffusion", **{"network": NETWORK, "part": 16, "latest_start": 100, "critic": CRITIC, **changes}
    )


def batch(gap=0.6):
    clear = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 0.6 - 0.3
    return clear + gap, clear


def draws():
    return Draws(torch.Generator().manual_seed(3))


def objective_with_guess(guess, **changes):
    torch.manual_seed(0)
    objective = PaintingObjective(painting_run(**changes))
    objective.modules["reference"].forward = lambda cloudy, context=None: guess
    return objective


def test_the_critic_is_shown_the_guess_with_other_detail_where_cloud_hid_the_ground():
    cloudy, clear = batch()
    guess = torch.zeros_like(clear)
    painted = objective_with_guess(guess)._painted(cloudy, clear, draws(), None)
    assert (painted.cover > 0.9).all()
    assert painted.truth.std() > 0.1
    assert painted.truth.mean((2, 3)).abs().max() < 0.05, "what is coarse is the guess's"


def test_where_little_changes_nothing_is_painted_and_nothing_is_learned():
    cloudy, clear = batch(gap=0.0)
    objective = objective_with_guess(cloudy, critic=CRITIC | {"features": 1.0, "distance": 1.0})
    losses = objective.losses(cloudy, clear, draws())
    assert losses["opinion"] == losses["features"] == losses["distance"] == losses["roughness"] == 0
    opponent = objective.opponent_losses(cloudy, clear, draws())
    assert opponent["fake"] == opponent["real"] == opponent["calm"] == 0


def test_each_turn_changes_its_own_network_alone():
    cloudy, clear = batch()
    objective = objective_with_guess(torch.zeros_like(clear))
    critic, own = turns_of(objective)
    assert (critic.optimiser, critic.pace) == ("adam", 2.0)
    torch.stack(list(critic.losses(cloudy, clear, draws(), None).values())).sum().backward()
    assert all(p.grad is not None for p in critic.trained)
    assert all(p.grad is None for p in own.trained)
    torch.stack(list(own.losses(cloudy, clear, draws(), None).values())).sum().backward()
    assert all(p.grad is not None for p in own.trained)
    assert all(p.grad is None for p in objective.modules["reference"].parameters())


def test_what_the_critic_says_weighs_what_the_run_says():
    cloudy, clear = batch()
    critic = CRITIC | {"opinion": 1.0, "features": 1.0, "distance": 1.0, "roughness": 1.0}

    def losses(**changes):
        objective = objective_with_guess(torch.zeros_like(clear), critic=critic | changes)
        return objective.losses(cloudy, clear, draws())

    plain, heavy = losses(), losses(opinion=2.0, features=2.0, distance=0.1, roughness=3.0)
    factors = {"opinion": 2, "features": 2, "distance": 0.1, "roughness": 3, "noise": 1}
    for name, factor in factors.items():
        torch.testing.assert_close(heavy[name], factor * plain[name], msg=name)


def test_roughness_is_told_by_strength_in_each_octave_wherever_detail_lies():
    generator = torch.Generator().manual_seed(0)
    ground, other = torch.randn(2, 1, 3, 128, 128, generator=generator)
    cover = torch.ones(1, 1, 16, 16)
    none = roughness_loss(torch.zeros_like(ground), ground, cover)
    torch.testing.assert_close(none, torch.tensor(1.0), atol=0.01, rtol=0)
    elsewhere = roughness_loss(other, ground, cover)
    assert elsewhere < 0.15
    half = roughness_loss(ground / 2, ground, cover)
    torch.testing.assert_close(half, torch.tensor(0.25), atol=0.01, rtol=0)
    coarse = F.interpolate(F.avg_pool2d(other, 4), scale_factor=4)
    assert roughness_loss(coarse * other.std() / coarse.std(), ground, cover) > 3 * elsewhere


def test_where_cloud_hid_nothing_roughness_does_not_count():
    ground = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cover = torch.zeros(1, 1, 8, 8)
    cover[..., :4] = 1
    half = torch.cat([ground[..., :32], torch.zeros(1, 3, 64, 32)], dim=3)
    assert roughness_loss(half, ground, cover) < 0.01 < roughness_loss(half, ground, 1 - cover)


def test_a_critic_learns_to_tell_a_smooth_guess_from_ground():
    cloudy, clear = batch()
    objective = objective_with_guess(torch.zeros_like(clear))
    optimiser = torch.optim.Adam(objective.opponent(), 1e-3, (0.5, 0.999))
    first = None
    for _ in range(25):
        loss = torch.stack(list(objective.opponent_losses(cloudy, clear, draws()).values())).sum()
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.85 * first


def test_a_run_is_gone_on_with_and_its_model_has_no_critic(root, tmp_path):
    whole = train(painting_run(), root, tmp_path / "whole")
    train(painting_run(), root, tmp_path / "cut", steps=4)
    again = train(painting_run(), root, tmp_path / "cut")
    for name, weight in whole.ema.state_dict().items():
        torch.testing.assert_close(weight, again.ema.state_dict()[name], msg=name)
    card = tmp_path / "card.toml"
    card.write_text('name = "painted"\n[sampling]\nsteps = 2\nstart = 50\ntexture = 2.0\n[info]\n')
    out = tmp_path / "painted.safetensors"
    export_model(painting_run(), tmp_path / "whole", card, out)
    exported = averaged_weights(out)
    assert {name.split(".")[0] for name in exported} == {"network", "reference"}
    other = train(run_of("reference", seed=9), root, tmp_path / "other").ema.state_dict()
    noise = {name: weight for name, weight in exported.items() if name.startswith("network.")}
    torch.save({"ema": noise}, tmp_path / "noise.pt")
    export_model(
        painting_run(),
        tmp_path / "noise.pt",
        card,
        out := tmp_path / "both.safetensors",
        reference=tmp_path / "other",
    )
    both = averaged_weights(out)
    assert both.keys() == exported.keys()
    for name, weight in both.items():
        expected = other[name].half().float() if name.startswith("reference.") else exported[name]
        torch.testing.assert_close(weight, expected, msg=name)


@pytest.mark.parametrize("latest_start", [3, 100])
def test_validation_samples_as_the_critic_sees_it(latest_start):
    cloudy, clear = batch()
    guess = torch.zeros_like(clear)
    objective = objective_with_guess(guess, latest_start=latest_start)
    answer = objective.answer(objective.modules.eval(), cloudy, torch.Generator().manual_seed(0))
    assert (answer - guess).std() > 0.005, "it adds nothing"
    assert (answer - guess).mean((2, 3)).abs().max() < 0.05, "what is coarse is the guess's"


def test_the_logged_learning_rate_is_the_runs_and_not_the_critics(root, tmp_path):
    class Rates(RunLog):
        def curve(self, step, figures):
            rates.append(figures["learning_rate"])

    rates = []
    config = painting_run(steps=3, learning_rate=1e-3, warmup=2)
    sources = [load_source(part, root, read_png) for part in config.data]
    Trainer.start(config, tmp_path / "run").run(sources, [], lambda *_: None, Rates(tmp_path / "run"))
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"part": 0}, "part = 0"),
        ({"part": 4, "crop": 32}, "part = 4"),
        ({"network": {key: NETWORK[key] for key in NETWORK if key != "covered"} | WEIGHED}, "'covered'"),
        ({"critic": {"width": 0}}, "width"),
        ({"critic": {"opinion": -1.0}}, "weights from 0"),
    ],
)
def test_a_critic_that_cannot_judge_is_refused(changes, what):
    with pytest.raises((ValueError, TrainingError), match=what):
        painting_run(**changes)


def test_a_critic_is_of_the_diffusion_stage_alone():
    with pytest.raises(ValueError, match="stage diffusion"):
        config_from_table(
            {
                "stage": "reference",
                "bands": ["red"],
                "steps": 1,
                "data": [{"clear": "clear", "simulate": 1.0}],
                "critic": CRITIC,
            }
        )
