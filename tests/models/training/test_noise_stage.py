"""The diffusion stage about a first guess: parts of crops, degraded guesses, steps where sampling goes."""

from __future__ import annotations

import pytest
import torch

from decr_scene.models.diffusion.smoothing import smoothed
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.objectives import Draws, EnhancementObjective, degraded, parts_of

UNET = {"channels": 8, "multipliers": [1], "attention_factors": [], "heads": 1, "num_res_blocks": 1}
RUN = {
    "stage": "diffusion",
    "bands": ["red", "green", "blue"],
    "steps": 6,
    "crop": 32,
    "part": 16,
    "early": 1.0,
    "latest_start": 50,
    "reference": {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1},
    "network": {"prediction": "residual", "guided": True, "noise": UNET, "weight": UNET},
    "data": [{"clear": "clear", "simulate": 1.0}],
}


def draws(first=0, batch=None):
    return Draws(torch.Generator().manual_seed(3), first, batch)


def pictures(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_parts_are_cut_image_by_image():
    images = pictures()
    parts = parts_of(images, 16)
    assert parts.shape == (16, 3, 16, 16)
    torch.testing.assert_close(parts[5], images[1, :, :16, 16:])


def test_a_blur_of_nothing_is_nothing_and_more_takes_more_detail():
    images = pictures()
    found = smoothed(images, torch.tensor([0.0, 0.5, 1.0, 1.5]), 1.5)
    torch.testing.assert_close(found[0], images[0], atol=1e-6, rtol=0)
    left = found.std((1, 2, 3)) / images.std((1, 2, 3))
    assert (left[:-1] > left[1:] + 0.1).all()
    torch.testing.assert_close(found.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.02, rtol=0)


def test_some_first_guesses_are_blurred_and_some_are_not_seen():
    images = torch.ones(400, 1, 4, 4) * torch.tensor([1.0, -1.0]).repeat(2)
    found = degraded(images, draws())
    assert 0.05 < (found == 0).all(3).all(2).float().mean() < 0.15
    assert 0.6 < (found == images).all(3).all(2).float().mean() < 0.8


def test_shares_of_a_batch_draw_what_the_whole_does():
    objective = EnhancementObjective(config_from_table(RUN))
    cloudy, clear = pictures(), pictures().flip(0)
    whole = objective.losses(cloudy, clear, draws(0, 4))["noise"]
    halves = [
        objective.losses(cloudy[part], clear[part], draws(part.start, 4))["noise"]
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def test_steps_are_drawn_where_sampling_goes(monkeypatch):
    objective, seen = EnhancementObjective(config_from_table(RUN)), []
    predict = objective.network.predict
    monkeypatch.setattr(
        objective.network, "predict", lambda x, t, *images: seen.append(t) or predict(x, t, *images)
    )
    objective.losses(pictures(), pictures(), draws())
    assert seen[0].shape == (16,), "each part has a step of its own"
    assert seen[0].max() < 50


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"part": 24}, "part must be 0 or divide crop"),
        ({"early": 1.5}, "early must be in"),
        ({"stage": "joint"}, "of stage diffusion alone"),
    ],
)
def test_what_makes_no_sense_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        config_from_table({**RUN, **change})
