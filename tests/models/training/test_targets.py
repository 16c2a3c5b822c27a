"""What the networks are asked to learn from a pair: its truth, its tint, and the images of a sampling run."""

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.source import Pair, PairSource, keep_clear
from decr_scene.models.descriptions import describe, is_same
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.objectives import Draws, dissimilarity, log_mse, shift_of_clear
from decr_scene.models.training.turns import build_objective

UNET = {"channels": 8, "multipliers": [1, 2], "attention_factors": [2], "heads": 1, "num_res_blocks": 1}


@pytest.fixture
def pair():
    """Ground of two dates a few DN apart, and a cloud over a corner of one of them."""
    rng = np.random.default_rng(0)
    clear = rng.uniform(-0.5, 0.3, (3, 64, 64)).astype(np.float32)
    cloudy = clear + np.float32(2 / 127.5)
    cloudy[:, :20, :20] = 0.95
    return Pair("a", cloudy, clear, None)


def test_clear_ground_of_a_pair_is_its_own_truth_and_cloud_is_not(pair):
    truth = keep_clear(pair.cloudy, pair.clear, (4, 10))
    np.testing.assert_array_equal(truth[:, 40:, 40:], pair.cloudy[:, 40:, 40:])
    np.testing.assert_allclose(truth[:, :15, :15], pair.clear[:, :15, :15], atol=1e-6)


def test_the_truth_changes_over_without_a_step():
    cloudy = np.zeros((1, 64, 256), np.float32)
    veil = np.broadcast_to(np.linspace(0, 20 / 127.5, 256, dtype=np.float32), cloudy.shape)
    kept = (keep_clear(cloudy + veil, cloudy, (4, 10))[0, 32] * 127.5).round(3)
    assert kept[:40] == pytest.approx(veil[0, 32, :40] * 127.5, abs=1e-2)
    assert kept[160:] == pytest.approx(0, abs=1e-2)
    assert np.abs(np.diff(kept)).max() < 0.2


def test_limits_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="rising"):
        DataConfig(clear="clear", cloudy="cloudy", keep_clear=(9, 3))


def test_a_tint_moves_the_bands_apart_and_both_images_together(pair):
    config = DataConfig(clear="clear", cloudy="cloudy", brightness=(1, 1), tint=0.2)
    flat = pair._replace(clear=np.zeros_like(pair.clear), cloudy=np.zeros_like(pair.clear))
    cloudy, clear, _ = PairSource(config, ((flat,),)).crop(
        np.random.default_rng(1), 32, ("red", "green", "blue")
    )
    np.testing.assert_array_equal(cloudy, clear)
    gains = clear[:, 0, 0] + 1
    assert len(set(gains.tolist())) == 3
    assert np.all(np.abs(np.log(gains)) <= 0.2 + 1e-6)


def test_the_haze_of_a_date_is_in_the_truth_as_well(pair):
    table = {"brightness": (1, 1), "haze": 0.3}
    flat = pair._replace(clear=np.full_like(pair.clear, -0.8), cloudy=np.full_like(pair.clear, -0.8))
    for config in (
        DataConfig(clear="clear", cloudy="cloudy", **table),
        DataConfig(clear="clear", simulate=1.0, clouds=CloudRecipe(clear=1.0, aside=0.0), **table),
    ):
        source, seen = PairSource(config, ((flat,),)), []
        for seed in range(40):
            cloudy, clear, _ = source.crop(np.random.default_rng(seed), 32, ("red", "green", "blue"))
            np.testing.assert_array_equal(cloudy, clear)
            seen.append((clear[:, 0, 0] + 0.8) / 1.8)  # the part of white
        haze = np.array(seen)
        assert haze.min() == pytest.approx(0, abs=1e-6)
        assert 0.2 < haze.max() <= 0.3 + 1e-6
        assert 8 < (haze.max(axis=1) > 1e-6).sum() < 32  # about half of the images
        assert np.ptp(haze, axis=1).max() > 0.02  # of another colour than white
    with pytest.raises(ValueError, match="haze must be a part of white"):
        DataConfig(clear="clear", cloudy="cloudy", haze=1.0)


def test_a_tone_curve_bends_both_images_alike_and_keeps_black_and_white(pair):
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32), (3, 64, 64))
    flat = pair._replace(clear=ramp, cloudy=ramp)
    config = DataConfig(clear="clear", cloudy="cloudy", brightness=(1, 1), gamma=0.5)
    powers = []
    for seed in range(30):
        source = PairSource(config, ((flat,),))
        cloudy, clear, _ = source.crop(np.random.default_rng(seed), 64, ("red", "green", "blue"))
        np.testing.assert_array_equal(cloudy, clear)
        light = np.sort((clear.ravel() + 1) / 2)
        assert light[[0, -1]].tolist() == [0, 1]
        powers.append(np.log(np.median(light)) / np.log(0.5))
    assert np.exp(-0.5) - 0.01 < min(powers) < 0.8
    assert 1.25 < max(powers) < np.exp(0.5) + 0.01
    with pytest.raises(ValueError, match="gamma must be a power of e"):
        DataConfig(clear="clear", cloudy="cloudy", gamma=-0.1)


def test_crops_are_enlarged_alike_by_any_factor_up_to_the_greatest(pair):
    ramp = np.broadcast_to(np.linspace(-0.9, 0.9, 64, dtype=np.float32), (3, 64, 64))
    source = PairSource(
        DataConfig(clear="clear", cloudy="cloudy", brightness=(1, 1), enlarge=2),
        ((pair._replace(clear=ramp, cloudy=ramp),),),
    )
    steps = []
    for seed in range(30):
        cloudy, clear, _ = source.crop(np.random.default_rng(seed), 48, ("red", "green", "blue"))
        np.testing.assert_array_equal(cloudy, clear)
        assert clear.shape == (3, 48, 48)
        gradient = np.gradient(clear[0, 8:-8, 8:-8])
        steps.append(max(abs(part).mean() for part in gradient) / (1.8 / 63))
    assert 0.5 - 0.01 < min(steps) < 0.6
    assert 0.9 < max(steps) < 1 + 0.01
    with pytest.raises(ValueError, match="enlarge must be a factor"):
        DataConfig(clear="clear", cloudy="cloudy", enlarge=0.5)


RUN = {
    "stage": "reference",
    "bands": ["red", "green", "blue"],
    "steps": 1,
    "reference": {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1},
    "data": [{"cloudy": "cloudy", "clear": "clear"}],
}


def test_a_logarithm_weighs_an_easy_image_as_much_as_a_hard_one():
    error = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.02)]).requires_grad_()
    loss = log_mse(error)
    assert loss.item() == pytest.approx(np.mean(np.log([0.04 + 1e-4, 4e-4 + 1e-4])), rel=1e-5)
    loss.backward()
    hard, easy = (error.grad * error.detach()).sum((1, 2, 3)).tolist()
    assert easy == pytest.approx(hard * 0.8, rel=0.01)  # 0.8: the floor takes a fifth of an error of 0.02


def test_the_loss_of_the_reference_is_the_one_asked_for():
    cloudy, clear = torch.rand((2, 2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) - 0.5
    losses = {}
    for name in ("charbonnier", "log_mse"):
        objective = build_objective(config_from_table({**RUN, "loss": name}))
        losses |= objective.losses(cloudy, clear, Draws(torch.Generator()))
    error = (cloudy - clear).numpy()  # a fresh network gives its input back
    assert losses["charbonnier"].item() == pytest.approx(np.abs(error).mean(), rel=1e-3)
    expected = np.log(np.square(error).mean((1, 2, 3)) + 1e-4).mean()
    assert losses["log_mse"].item() == pytest.approx(expected, rel=1e-4)


def test_the_shift_counts_clear_ground_alone_and_its_mean_alone():
    cloudy = torch.zeros(1, 2, 40, 40)
    clear, answer = cloudy.clone(), cloudy.clone()
    clear[..., :10] = -0.5  # under cloud, where any change is welcome
    answer[..., :10] = -0.7
    answer[:, 0, :, 10:] = 0.02
    answer[:, 1, ::2, 10:], answer[:, 1, 1::2, 10:] = 0.3, -0.3  # grain that leaves the mean
    assert shift_of_clear(answer, cloudy, clear).item() == pytest.approx(0.01, rel=1e-4)
    assert shift_of_clear(answer, cloudy, torch.ones_like(cloudy)).item() == 0
    objective = build_objective(config_from_table({**RUN, "loss": "log_mse", "steady": 3.0}))
    losses = objective.losses(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), Draws(torch.Generator()))
    assert set(losses) == {"log_mse", "shift"}


def test_the_dissimilarity_is_that_of_another_implementation():
    rng = np.random.default_rng(4)
    clear = ndimage.gaussian_filter(rng.normal(0, 3, (2, 3, 40, 48)), (0, 0, 1, 1)).clip(-1, 1)
    answer = (0.6 * clear + rng.normal(0, 0.1, clear.shape) - 0.1).clip(-1, 1)
    expected = np.mean(
        [
            structural_similarity(a, b, data_range=2, channel_axis=0)
            for a, b in zip(answer + 1, clear + 1, strict=True)
        ]
    )
    found = dissimilarity(torch.from_numpy(answer), torch.from_numpy(clear))
    assert found.item() == pytest.approx(1 - expected, rel=1e-6)
    assert dissimilarity(torch.from_numpy(clear), torch.from_numpy(clear)).item() == pytest.approx(
        0, abs=1e-9
    )
    objective = build_objective(config_from_table({**RUN, "loss": "log_mse", "similar": 0.5}))
    losses = objective.losses(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32), Draws(torch.Generator()))
    assert set(losses) == {"log_mse", "dissimilarity"}
    assert 0 < losses["dissimilarity"].item() <= 0.5


def test_similarity_wants_faded_detail_back_and_the_square_error_does_not():
    """Of detail that is seen half, the square error wants half, and 1 - SSIM more of it."""
    rng = np.random.default_rng(5)
    detail, unseen = torch.from_numpy(rng.normal(0, 0.15, (2, 1, 1, 64, 64)))
    truth = detail + unseen
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    pull = {}
    for name, loss in (("square", lambda a: log_mse(a - truth)), ("ssim", lambda a: dissimilarity(a, truth))):
        (pull[name],) = torch.autograd.grad(loss(gain * detail), gain)
    assert abs(pull["square"].item()) < 0.05
    assert pull["ssim"].item() < -0.05


@pytest.mark.parametrize(
    "change",
    [{"loss": "l3"}, {"latest_start": 2}, {"latest_start": 1000}, {"steady": -1.0}, {"similar": -1.0}]
    + [
        {"stage": "diffusion", **change}
        for change in ({"loss": "log_mse"}, {"steady": 1.0}, {"similar": 1.0})
    ],
)
def test_a_loss_or_a_start_that_there_is_not_is_refused(change):
    network = {"network": {"noise": UNET, "weight": UNET}}
    with pytest.raises(ValueError, match=r"loss '.*' is|latest_start must be|(steady|similar) is"):
        config_from_table({**RUN, **network, **change})


def test_the_clouds_of_a_source_are_those_asked_for(pair):
    table = {
        **RUN,
        "data": [
            {"clear": "clear", "simulate": 1.0, "brightness": [1, 1], "clouds": {"clear": 1.0, "aside": 0.0}}
        ],
    }
    config = config_from_table(table).data[0]
    assert config.clouds == CloudRecipe(clear=1.0, aside=0.0)
    cloudy, clear, _ = PairSource(config, ((pair,),)).crop(
        np.random.default_rng(1), 32, ("red", "green", "blue")
    )
    np.testing.assert_array_equal(cloudy, clear)
    with pytest.raises(ValueError, match="unknown keys \\['colour'\\] in clouds"):
        config_from_table({**RUN, "data": [{"clear": "clear", "simulate": 1.0, "clouds": {"colour": 1}}]})


def test_a_run_from_before_these_keys_is_still_the_same_run():
    config = config_from_table(RUN)
    now = describe(config)
    before = now.replace(f", clouds={describe(CloudRecipe())}", "").replace(", latest_start=400", "")
    before = before.replace(", steady=0.0", "")
    before = before.replace(", loss='charbonnier'", "")
    assert " clouds=" not in before
    assert is_same(config, before)
    assert not is_same(config_from_table({**RUN, "loss": "log_mse"}), before)
    thin = {**RUN["data"][0], "clouds": {"thickness": [0.2, 1.0]}}
    assert not is_same(config_from_table({**RUN, "data": [thin]}), before)


@pytest.mark.parametrize("stage", ["joint", "weight"])
def test_on_the_path_neither_loss_reaches_the_network_of_the_other(stage):
    objective = build_objective(
        config_from_table(
            {
                "stage": stage,
                "bands": ["red", "green", "blue"],
                "steps": 1,
                "on_path": True,
                "reference": {"width": 8, "multipliers": [1, 2], "blocks": 1, "middle_blocks": 1},
                "network": {"prediction": "v", "noise": UNET, "weight": {**UNET, "scale_shift": False}},
                "data": [{"cloudy": "cloudy", "clear": "clear"}],
            }
        )
    )
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():  # output layers begin at zero, which would stop any gradient
        for parameter in objective.modules["network"].parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
    cloudy, clear = torch.rand((2, 2, 3, 32, 32), generator=rng) - 0.5
    losses = objective.losses(cloudy, clear, Draws(torch.Generator().manual_seed(1)))
    reached = {name: _reached(objective, loss) for name, loss in losses.items()}
    expected = {"fusion": {"weight_net"}, "fusion_later": {"weight_net"}}
    if stage == "joint":
        expected |= {"noise": {"noise_net"}, "noise_later": {"noise_net"}}
    assert reached == expected


@pytest.mark.parametrize("stage", ["reference", "diffusion", "detector", "adversarial"])
def test_a_stage_that_weighs_nothing_has_no_path(stage):
    told = f"on_path is of stages weight and joint alone, this run is of {stage}: drop it"
    network = {"prediction": "v", "guided": True, "noise": UNET, "weight": UNET}
    with pytest.raises(ValueError, match=told):
        config_from_table({**RUN, "stage": stage, "network": network, "on_path": True})


def _reached(objective, loss):
    """Which of the two networks a loss gives gradients to."""
    objective.modules.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    names = objective.modules["network"].named_parameters()
    return {name.split(".")[0] for name, p in names if p.grad is not None and p.grad.abs().max() > 0}


@pytest.mark.parametrize(("stage", "moved"), [("reference", "reference"), ("joint", "network")])
def test_an_answer_is_that_of_the_networks_it_is_asked_of(stage, moved):
    """A validation asks the averages, and leaves the networks in training as they are."""
    table = {"stage": stage, "bands": ["r", "g", "b"], "steps": 1, "data": [{"clear": "x", "simulate": 1.0}]}
    table["reference"] = {"width": 8, "multipliers": [1], "blocks": 1, "middle_blocks": 1}
    if stage == "joint":
        table["network"] = {"noise": UNET, "weight": UNET}
    objective = build_objective(config_from_table(table))
    averages, cloudy = copy.deepcopy(objective.modules), torch.zeros(1, 3, 32, 32)
    for parameter in averages[moved].parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)

    def answer(modules):
        with torch.no_grad():
            return objective.answer(modules, cloudy, torch.Generator().manual_seed(0))

    assert torch.equal(answer(objective.modules), answer(copy.deepcopy(objective.modules)))
    assert not torch.equal(answer(averages), answer(objective.modules))
