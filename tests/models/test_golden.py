"""Every golden file of the published networks, through the door for published checkpoints."""

import json
import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import TESTS
from torch import Tensor, nn

from decr_scene.models.checkpoints.keymap import export_state, import_state, network_keys, reference_keys
from decr_scene.models.diffusion.denoiser import DEDenoiser, Denoised
from decr_scene.models.diffusion.embedding import timestep_embedding
from decr_scene.models.diffusion.sampling import DDPMSampler, DESampler
from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.errors import CheckpointError
from decr_scene.models.model import Model, load_published, to_published
from decr_scene.models.networks.mdsa import MDSA
from decr_scene.models.networks.mprnet import MPRNet
from decr_scene.models.networks.noise_network import NetworkConfig, NoiseNetwork
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNetConfig

# Tests are no package: a module beside them is run, not imported.
RULE = SimpleNamespace(**runpy.run_path(str(TESTS / "golden_rule.py")))
golden, manifest, filled = RULE.golden, RULE.manifest, RULE.filled

BANDS = {"rgb": 3, "4band": 4}
MODULE, STEP, FINAL = 5e-5, 1e-3, 5e-4
NETWORKS = [("", "rgb"), ("", "4band"), ("32", "rgb")]
MODELS = [("", "mn", "rgb"), ("32", "mdsa", "rgb"), ("32", "mdsa", "4band")]


def network_config(bands: str, size: str = "") -> NetworkConfig:
    config = NetworkConfig(BANDS[bands])
    if not size:
        return config
    small = int(size)
    return replace(config, noise=UNetConfig(channels=small), weight=replace(PUBLISHED_WEIGHT, channels=small))


@cache
def de_state(bands: str, size: str = "", prefix: str = "sjlnet.") -> dict[str, Tensor]:
    """Published state dict of CNP and WA; base channels 32 for both if ``size`` says so."""
    with torch.device("meta"):
        keys = network_keys(NoiseNetwork(network_config(bands, size)))
    shapes: dict[str, Any] = {"cnp": {}, "wa": {}}
    for name, entry in keys.items():
        shapes["wa" if name.startswith("sjlnet.") else "cnp"][name.removeprefix("sjlnet.")] = entry.shape
    weight = filled("wa", shapes["wa"])
    return {**filled("cnp", shapes["cnp"]), **{prefix + name: tensor for name, tensor in weight.items()}}


@cache
def reference_state(kind: str, bands: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = filled(kind, manifest(kind, bands))
    return state


@cache
def model(size: str, kind: str, bands: str) -> Model:
    return load_published(de_state(bands, size), reference_state(kind, bands), device="cpu", precision="fp32")


def network(size: str, bands: str) -> NoiseNetwork:
    return cast(NoiseNetwork, model(size, "mn", bands).modules["network"])


def reference(kind: str, bands: str) -> Any:
    return model("32", kind, bands).modules["reference"].net


def assert_near(found: Tensor, expected: Tensor, limit: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= limit


def check_of(name: str) -> dict[str, Any]:
    checks: dict[str, Any] = json.loads((RULE.GOLDEN / "fill_check.json").read_text())
    return dict(checks[name])


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("tag", ["cnp", "wa", "mn", "mdsa"])
def test_weights_follow_the_golden_rule(tag: str, bands: str) -> None:
    state, check = filled(tag, manifest(tag, bands)), check_of(f"{tag}_{bands}")
    everything = torch.cat([tensor.flatten().double() for tensor in state.values()])
    assert everything.sum().item() == pytest.approx(check["sum_of_all_entries"], abs=1e-6)
    assert everything.abs().sum().item() == pytest.approx(check["sum_of_abs"], rel=1e-9)
    for name, values in check["first_values"].items():
        assert state[name].flatten()[: len(values)].tolist() == values


@pytest.mark.parametrize("bands", BANDS)
def test_key_map_has_names_shapes_and_order_of_a_de_checkpoint(bands: str) -> None:
    with torch.device("meta"):
        keys = network_keys(NoiseNetwork(network_config(bands)), prefix="wc.")
    weight = {f"wc.{name}": shape for name, shape in manifest("wa", bands).items()}
    expected = {**manifest("cnp", bands), **weight}
    assert [(name, entry.shape) for name, entry in keys.items()] == list(expected.items())


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize(("kind", "net"), [("mn", MPRNet), ("mdsa", MDSA)])
def test_key_map_has_names_and_shapes_of_a_reference(kind: str, net: Any, bands: str) -> None:
    keys = reference_keys(net(BANDS[bands]))
    assert {name: entry.shape for name, entry in keys.items()} == manifest(kind, bands)


def test_published_states_come_back_unchanged() -> None:
    de, reference = to_published(model("32", "mn", "rgb"))
    expected = [*de_state("rgb", "32").items(), *reference_state("mn", "rgb").items()]
    assert list(de) == list(de_state("rgb", "32"))
    assert all(torch.equal({**de, **reference}[name], tensor) for name, tensor in expected)


def test_unused_entries_of_mdsa_are_taken_and_given_as_zeros() -> None:
    state, keys = reference_state("mdsa", "rgb"), reference_keys(MDSA(3))
    back = export_state(import_state(state, keys, "mdsa"), keys)
    unused = [name for name, entry in keys.items() if entry.ours is None]
    assert len(unused) == 289
    assert sum(state[name].numel() for name in unused) == 1_004_249
    assert all(torch.equal(back[n], torch.zeros_like(t) if n in unused else t) for n, t in state.items())


@pytest.mark.parametrize(("size", "bands"), NETWORKS)
def test_noise_predictor(size: str, bands: str) -> None:
    net, g = network(size, bands), golden(f"cnp{size}_{bands}_64")
    with torch.inference_mode():
        for t in (0, 500, 999):
            assert_near(net.noise(g["x_t"], t, g["y"]), g[f"eps_t{t}"], MODULE)
        x_t, y = torch.cat([g["x_t"], g["x_t"].flip(2)]), torch.cat([g["y"], g["y"].flip(3)])
        assert_near(net.noise(x_t, torch.tensor([0, 999]), y), g["batch2_eps"], MODULE)


@pytest.mark.parametrize(("size", "bands"), NETWORKS)
def test_weight_allocation(size: str, bands: str) -> None:
    net, g = network(size, bands), golden(f"wa{size}_{bands}_64")
    with torch.inference_mode():
        for t in (0, 500, 999):
            raw = net.weight(g["x_t"], t, g["y"], g["x0_ref"])
            assert_near(raw, g[f"w_raw_t{t}"], MODULE)
            assert raw.clamp(0.3, 1).double().mean().item() == pytest.approx(
                g[f"w_clamped_mean_t{t}"], abs=1e-6
            )


@pytest.mark.parametrize("bands", BANDS)
def test_mn_and_its_three_stages(bands: str) -> None:
    net, g = reference("mn", bands), golden(f"mn_{bands}_64")
    with torch.inference_mode():
        assert_near(net(g["y01"]), g["out01"], MODULE)
        for found, number in zip(net.stages(g["y01"]), (3, 2, 1), strict=True):
            assert_near(found, g[f"stage{number}"], MODULE)


@pytest.mark.parametrize("bands", BANDS)
def test_mdsa(bands: str) -> None:
    net, g = reference("mdsa", bands), golden(f"mdsa_{bands}_64")
    with torch.inference_mode():
        assert_near(net(g["y01"]), g["out01"], MODULE)


@pytest.mark.parametrize(("size", "kind", "bands"), MODELS)
def test_every_step_of_ddim(size: str, kind: str, bands: str) -> None:
    de, g = model(size, kind, bands), golden(f"de{size}_{kind}_{bands}_ddim5_64")
    assert_near(de.reference(g["y"]), g["x0_ref"], MODULE)
    sampler = DESampler(DEDenoiser(de.network, de.schedule), steps=5)
    assert [t for t, _ in sampler.pairs] == list(g["t_sequence"])
    x_t = g["x_T"]
    for k, (t, s) in enumerate(sampler.pairs):
        found = sampler.denoiser(x_t, t, g["y"], g["x0_ref"])
        x_t = sampler.step(x_t, found.x0, t, s)
        for name, tensor in (("x0_eps", found.x0_eps), ("w", found.weight), ("x0_fused", found.x0)):
            assert_near(tensor, g[f"step{k}_{name}"], STEP)
        assert_near(x_t, g[f"step{k}_sample"], STEP)
        assert found.weight.double().mean().item() == pytest.approx(g["w_mean"][k], abs=1e-5)
    assert_near(x_t, g["final"], FINAL)


@pytest.mark.parametrize(("size", "kind", "bands"), MODELS[1:])
def test_a_model_samples_the_golden_image(size: str, kind: str, bands: str) -> None:
    de, g = model(size, kind, bands), golden(f"de{size}_{kind}_{bands}_ddim5_64")
    weights: list[float] = []

    def note(t: int, x0: Tensor, weight: Tensor) -> None:
        weights.append(weight.double().mean().item())

    assert_near(de.sample(g["y"], steps=5, noise=g["x_T"], on_step=note), g["final"], FINAL)
    assert weights == pytest.approx(list(g["w_mean"]), abs=1e-5)


@pytest.mark.parametrize("t", [0, 500])
def test_ancestral_step_of_the_paper(t: int) -> None:
    de, g = model("32", "mn", "rgb"), golden("de32_mn_rgb_ddpm_64")
    sampler = DDPMSampler(DEDenoiser(de.network, de.schedule))
    x_t = g[f"t{t}_x_t"]
    found: Denoised = sampler.denoiser(x_t, t, g["y"], g["x0_ref"])
    assert_near(found.x0, g[f"t{t}_x0_fused"], STEP)
    mean, variance = de.schedule.posterior(found.x0, x_t, t, t - 1)
    assert_near(mean, g[f"t{t}_mean_fused_paper"], STEP)
    assert variance == pytest.approx(float(g[f"t{t}_posterior_variance"]), rel=1e-6)
    sample = sampler.step(x_t, found.x0, t, t - 1, g["z"] if t else None)
    assert_near(sample, g[f"t{t}_sample_fused_paper"], STEP)


def test_training_loss_and_its_gradients() -> None:
    g = golden("de32_mn_rgb_loss_64")
    net, t = NoiseNetwork(network_config("rgb", "32")), torch.from_numpy(g["t"])
    net.load_state_dict(import_state(de_state("rgb", "32"), network_keys(net), "loss"))
    assert_near(Schedule().add_noise(g["x0"], g["noise"], t), g["x_t"], MODULE)
    eps, weight = net(g["x_t"], t, g["y"], g["x0_ref"])
    x0_eps = Schedule().x0_from_eps(g["x_t"], eps.detach(), t).clamp(-1, 1)
    fused = (1 - weight) * x0_eps + weight * g["x0_ref"]
    of_noise = F.mse_loss(eps, g["noise"], reduction="none").mean((1, 2, 3))
    of_weight = F.l1_loss(fused, g["x0"], reduction="none").mean((1, 2, 3))
    assert of_noise.tolist() == pytest.approx(list(g["loss_ddpm"]), abs=1e-5)
    assert of_weight.tolist() == pytest.approx(list(g["loss_wa"]), abs=1e-5)
    assert (of_noise + of_weight).tolist() == pytest.approx(list(g["loss_total"]), abs=1e-5)

    torch.autograd.backward((of_noise + of_weight).mean())
    for part, short in ((net.noise_net, "cnp"), (net.weight_net, "wa")):
        assert gradient_norm(part) == pytest.approx(float(g[f"grad_norm_{short}"]), rel=1e-4)
        assert_near(gradient(part.head.bias), torch.from_numpy(g[f"grad_{short}_out_2_bias"]), 1e-5)
        assert_near(gradient(part.stem.weight), g[f"grad_{short}_input_blocks_0_0_weight"], 1e-5)


def gradient(parameter: Tensor | None) -> Tensor:
    assert parameter is not None
    assert parameter.grad is not None
    return parameter.grad


def gradient_norm(module: nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
    return torch.stack(squares).sum().sqrt().item()


@pytest.mark.parametrize("steps", [None, 5, 10, 50])
def test_all_tables_of_the_schedule(steps: int | None) -> None:
    schedule = Schedule() if steps is None else Schedule().respaced(steps)
    prefix = "full_" if steps is None else f"ddim{steps}_"
    with np.load(RULE.GOLDEN / "schedule.npz") as tables:
        expected = {k.removeprefix(prefix): tables[k] for k in tables.files if k.startswith(prefix)}
    assert len(expected) == 10
    for name, table in expected.items():
        np.testing.assert_allclose(getattr(schedule, name), table, rtol=1e-6, atol=0)


def test_timestep_embedding() -> None:
    # float32 angles reach 999: their last bit, and so the limit, is 6e-5, and it depends on the CPU's exp.
    g = golden("timestep_embedding")
    for dim in (32, 64, 96):
        assert_near(timestep_embedding(torch.from_numpy(g["t"]), dim), g[f"dim{dim}"], 5e-5)


@pytest.mark.parametrize("prefix", ["sjlnet.", "wc."])
def test_a_published_file_samples_the_golden_image(prefix: str, tmp_path: Path) -> None:
    g = golden("de32_mdsa_rgb_ddim5_64")
    wrapped = {f"module.{n}": nn.Parameter(t) for n, t in de_state("rgb", "32", prefix).items()}
    torch.save(wrapped, tmp_path / "ema_0.9999_000000.pt")
    torch.save(reference_state("mdsa", "rgb"), tmp_path / "mdsa1.pth")
    de = load_published(tmp_path / "ema_0.9999_000000.pt", str(tmp_path / "mdsa1.pth"), "cpu", "fp32")
    assert de.config.bands == ("red", "green", "blue")
    assert_near(de.sample(g["y"], steps=5, noise=g["x_T"]), g["final"], FINAL)


def without(state: dict[str, Tensor], *beginnings: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(beginnings)}


def de32(bands: str = "rgb") -> dict[str, Tensor]:
    return de_state(bands, "32")


@pytest.mark.parametrize(
    ("de", "reference", "reason"),
    [
        (lambda: without(de32(), "sjlnet."), lambda: reference_state("mn", "rgb"), "stage 1"),
        (lambda: de32() | de_state("rgb", "32", "wc."), lambda: reference_state("mn", "rgb"), "two weight"),
        (
            lambda: de32("4band"),
            lambda: reference_state("mn", "rgb"),
            "DE checkpoint of 4 bands, reference of 3",
        ),
        (lambda: reference_state("mn", "rgb"), lambda: de32(), "DE checkpoint expected, found mn"),
        (lambda: de32(), lambda: de32(), "reference checkpoint expected, found DE"),
        (
            lambda: de32(),
            lambda: {"fc.weight": torch.zeros(1)},
            r"found something else \(neither shallow_feat1.0.weight nor conv_in.weight\)",
        ),
        (
            lambda: de32() | {"sjlnet.input_blocks.0.0.weight": torch.zeros(3)},
            lambda: reference_state("mn", "rgb"),
            r"sjlnet.input_blocks.0.0.weight has shape \(3,\), expected one of 4 axes",
        ),
        (
            lambda: de32(),
            lambda: reference_state("mdsa", "rgb") | {"conv_in.weight": torch.zeros(1)},
            r"\(mdsa\): conv_in.weight has shape \(1,\), expected one of 4 axes",
        ),
        (
            lambda: without(de32(), "out.2.bias"),
            lambda: reference_state("mn", "rgb"),
            "1 missing: out.2.bias",
        ),
        (
            lambda: de32() | {"odd": torch.zeros(1)},
            lambda: reference_state("mn", "rgb"),
            "1 not expected: odd",
        ),
        (
            lambda: de32() | {"out.2.bias": torch.zeros(4)},
            lambda: reference_state("mn", "rgb"),
            "another shape",
        ),
        (
            lambda: de32(),
            lambda: reference_state("mdsa", "rgb") | {"odd": torch.zeros(1)},
            "1 not expected: odd",
        ),
        (
            lambda: de32(),
            lambda: without(reference_state("mdsa", "rgb"), "coefficient"),
            "1 missing: coefficient",
        ),
        (lambda: {"state": {}}, lambda: reference_state("mn", "rgb"), "'state' is no tensor"),
        (lambda: de32(), dict, "it is empty"),
    ],
)
def test_what_does_not_belong_together_is_refused(de: Any, reference: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as refusal:
        load_published(de(), reference(), device="cpu")
    assert "\n" not in str(refusal.value)


def test_copies_of_the_shared_slope_must_agree() -> None:
    state = reference_state("mn", "rgb") | {"shallow_feat2.1.body.1.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match="differs from its other copies"):
        load_published(de32(), state, device="cpu")


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "guide.txt"
    bad.write_text("put the weights here")
    with pytest.raises(CheckpointError, match=r"guide\.txt is no file of weights"):
        load_published(bad, reference_state("mn", "rgb"), device="cpu")
    with pytest.raises(CheckpointError, match="no such file"):
        load_published(tmp_path / "none.pt", reference_state("mn", "rgb"), device="cpu")
    torch.save([1, 2], bad)
    with pytest.raises(CheckpointError, match="holds a list"):
        load_published(bad, reference_state("mn", "rgb"), device="cpu")
