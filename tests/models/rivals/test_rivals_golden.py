"""Every golden file of the paper's other systems, through the door for published checkpoints."""

import json
import runpy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from places import OTHERS, TESTS
from torch import Tensor

from decr_scene.models.checkpoints.rivals import read_rival
from decr_scene.models.rivals.adversarial import (
    FACTORS,
    attention_target,
    discriminator_losses,
    generator_parts,
)
from decr_scene.models.rivals.cvae import draw_latent
from decr_scene.models.rivals.dpm_solver import DPMSolver, sigmoid_betas
from decr_scene.models.rivals.variational import variational_parts

filled = runpy.run_path(str(TESTS / "models" / "rivals_rule.py"))["filled"]

OUTPUT, RUN = 5e-5, 2e-4

pytestmark = pytest.mark.skipif(
    not OTHERS.is_dir(), reason=f"{OTHERS} is not there: the golden files of other systems are not checked"
)


def golden(name: str) -> dict[str, Any]:
    with np.load(OTHERS / "golden" / f"{name}.npz") as arrays:
        return {k: torch.from_numpy(v) if v.ndim else float(v) for k, v in arrays.items()}


@cache
def state(tag: str, bands: str) -> dict[str, Tensor]:
    rows = json.loads((OTHERS / f"state_dict_{tag}_{bands}.json").read_text())
    filled_state: dict[str, Tensor] = filled(tag, {row[0]: tuple(row[1]) for row in rows})
    return filled_state


@cache
def network(tag: str, bands: str) -> Any:
    return opened(state(tag, bands), tag)


@torch.inference_mode(False)  # weights that one test makes, another trains
def opened(source: Any, tag: str) -> Any:
    built, tensors = read_rival(source, tag)
    built = built.to_empty(device="cpu")
    built.load_state_dict(tensors)
    return built.eval()


def near(found: Tensor, expected: Tensor, limit: float = OUTPUT) -> None:
    assert found.shape == expected.shape
    assert float((found.detach() - expected).abs().max()) < limit


@pytest.mark.parametrize("manifest", sorted(OTHERS.glob("state_dict_*_*.json")), ids=lambda path: path.stem)
def test_weights_are_filled_as_the_golden_files_were(manifest: Any) -> None:
    tag, bands = manifest.stem.removeprefix("state_dict_").split("_")
    told = json.loads((OTHERS / "golden" / "fill_check.json").read_text())[f"{tag}_{bands}"]
    total = sum(float(t.double().sum()) for t in state(tag, bands).values())
    assert total == pytest.approx(told["sum_of_all_entries"], abs=1e-3)


@pytest.mark.parametrize("bands", ["rgb", "4band"])
@pytest.mark.parametrize(("tag", "maps"), [("spagan", "attention"), ("amgan", "mask")])
@torch.inference_mode()
def test_generators_with_attention(tag: str, maps: str, bands: str) -> None:
    known = golden(f"{tag}_{bands}_64")
    answer, attentions = network(tag, bands).attended(known["y01"])
    near(answer, known["out"])
    for number, attention in enumerate(attentions, 1):
        near(attention, known[f"{maps}{number}"])


@torch.inference_mode()
def test_the_first_direction_of_spagan() -> None:
    known, net = golden("spagan_rgb_64"), network("spagan", "rgb")
    seen: list[Tensor] = []
    hook = net.SAM1.irnn1.register_forward_hook(lambda module, given, result: seen.append(result))
    net(known["y01"])
    hook.remove()
    near(seen[0][:, :4], known["irnn1_up_call1_ch0to3"])


@pytest.mark.parametrize("data", ["rice1", "rice2"])
@torch.inference_mode()
def test_published_weights_of_spagan(data: str) -> None:
    known = golden(f"spagan_rgb_64_published_{data}")
    net = opened(OTHERS / "weights" / f"spagan_{data}.pth", "spagan")
    answer, attentions = net.attended(known["y01_bgr"])
    near(answer, known["out_bgr"])
    near(attentions[-1], known["attention4"])


@pytest.mark.parametrize("tag", ["spagan", "amgan"])
def test_one_step_of_adversarial_training(tag: str) -> None:
    known, net, judge = golden(f"{tag}_rgb_loss_64"), network(tag, "rgb"), network("gandis", "rgb").train()
    cloudy, clear = known["y01"], known["label01"]
    near(attention_target(cloudy, clear, signed=True)[:, 0], known["M"], 1e-4)
    answer, attentions = net.attended(cloudy)
    near(judge(cloudy, answer.detach()), known["dis_logits_fake"], 1e-4)
    near(judge(cloudy, clear), known["dis_logits_real"], 1e-4)
    losses = discriminator_losses(judge, cloudy, clear, answer.detach())
    assert losses["fake"].item() == pytest.approx(known["loss_d_fake"], abs=1e-4)
    assert losses["real"].item() == pytest.approx(known["loss_d_real"], abs=1e-4)
    parts = generator_parts(tag, judge, cloudy, clear, answer, attentions[-1], signed=True)
    for name, value in parts.items():
        assert value.item() / FACTORS[tag][name] == pytest.approx(known[f"g_{name}"], abs=1e-4)
    total = torch.stack(list(parts.values())).sum()
    assert total.item() == pytest.approx(known["g_total"], rel=1e-5)
    (gradient,) = torch.autograd.grad(total, [net.conv_out[0].weight])
    expected = known["grad_conv_out_weight"]
    assert float((gradient - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize(("bands", "scale", "suffix", "count"), [("rgb", 1, "", 2), ("4band", 2, "_s2", 1)])
@torch.inference_mode()
def test_cvae_and_some_of_its_samples(bands: str, scale: int, suffix: str, count: int) -> None:
    known, net = golden(f"cvae_{bands}_256"), network("cvae", bands)
    cloudy = known["y01"]
    mu, log_var = net.encode(cloudy)
    near(mu, known["mu"])
    near(log_var, known["log_var"])
    near(net.decoder.hidden(mu), known["hidden_map_eps0"])
    near(net(cloudy)[..., ::scale, ::scale], known[f"out_eps0{suffix}"])
    samples = torch.stack([net(cloudy, eps) for eps in known["eps"][:count]])
    near(samples[..., ::8, ::8], known["out_samples_s8"][:count])


@pytest.mark.slow
@pytest.mark.parametrize(("bands", "count"), [("rgb", 10), ("4band", 3)])
@torch.inference_mode()
def test_the_mean_of_all_samples_of_cvae_and_its_loss(bands: str, count: int) -> None:
    known, net = golden(f"cvae_{bands}_256"), network("cvae", bands)
    cloudy = known["y01"]
    mu, log_var = net.encode(cloudy)
    samples = torch.stack([net.decode(cloudy, draw_latent(mu, log_var, eps)) for eps in known["eps"]])
    mean = samples.mean(0)
    near(samples[..., ::8, ::8], known["out_samples_s8"])
    near(mean[..., ::4, ::4], known[f"out_mean{count}_s4"])
    near(samples.std(0, correction=0)[..., ::8, ::8], known[f"out_std{count}_s8"])
    if "label01" not in known:
        return
    losses = variational_parts(mean, known["label01"], mu, log_var)
    assert losses["smooth_l1"].item() == pytest.approx(known["loss_smoothl1"], abs=1e-5)
    assert losses["kl"].item() == pytest.approx(known["loss_kl"] * 0.01, rel=1e-5)
    assert losses["edge"].item() == pytest.approx(known["loss_edge"] * 0.18, abs=1e-5)
    assert sum(losses.values()).item() == pytest.approx(known["loss_total"], rel=1e-5, abs=1e-5)


@torch.inference_mode()
def test_cloudnet(monkeypatch: pytest.MonkeyPatch) -> None:
    known, net = golden("cloudnet_4band_64"), network("cloudnet", "4band")
    expanded, expand = [], net._expand
    monkeypatch.setattr(net, "_expand", lambda *given: expanded.append(expand(*given)) or expanded[-1])
    near(net(known["y01"]), known["prob"])
    levels = net.contracted(known["y01"])
    near(levels[-1][:, :4], known["bridge_c6_ch0to3"])
    stages = [*levels, *expanded]
    near(torch.stack([stage.mean() for stage in stages]), known["stage_mean"].float())
    near(torch.stack([stage.std(correction=0) for stage in stages]), known["stage_std"].float())


@torch.inference_mode()
def test_diffcr_and_its_sampler() -> None:
    known, net = golden("diffcr_rgb_64"), network("diffcr", "rgb")
    dates = known["cond"].unflatten(1, (3, 3))
    for label in (0.02, 0.5, 0.98):
        near(net(known["x_t"], torch.tensor([label]), dates), known[f"x0_gamma{label}"])
    solver, after = DPMSolver(20), {}
    assert np.allclose(solver.labels, known["time_label_given_to_network"].numpy().ravel(), atol=1e-3)
    assert np.abs(sigmoid_betas(1000) - known["betas_sigmoid_1000"].numpy()).max() < 1e-5

    def estimate(x: Tensor, label: float) -> Tensor:
        answer: Tensor = net(x, torch.full((1,), label), dates)
        return answer

    final = solver(known["x_t"], estimate, lambda step, x: after.update({step: x}))
    near(after[1], known["x_after_step1"], RUN)
    near(after[10], known["x_after_step10"], RUN)
    near(final, known["final"], RUN)
