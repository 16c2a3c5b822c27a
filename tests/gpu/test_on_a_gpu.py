"""What only a GPU can show: ``python -m pytest tests/gpu -s``, a few minutes on one card.

``DECR_SCENE_GPU_TESTS=cpu`` runs what can be run of it on a CPU, to try the tests themselves.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pair_cases import read_png, save_png, smooth_ground
from places import TESTS
from sample_cases import part_of_landsat, pixels

from decr_scene.models.data.loading import load_source
from decr_scene.models.model import load_model, load_published
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.loop import Trainer
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.restoration.restorers import Diffusion
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import TileNoise

DEVICE = os.environ.get("DECR_SCENE_GPU_TESTS", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(), reason="NO GPU HERE: nothing of tests/gpu was tried"
    ),
]

FP32, BF16 = (2e-4, 2e-3), (0.25, 0.01)
"""Greatest and mean difference from the golden picture, of 2: fp32 without TF32, and bf16."""

OPTIONS = {"model": "rice2", "mask": "none", "steps": 2}


@pytest.fixture(scope="module")
def published():
    """States and golden pictures of the published networks, from the tests of the CPU."""
    return SimpleNamespace(**runpy.run_path(str(TESTS / "models" / "test_golden.py")))


@pytest.mark.parametrize(("precision", "limits"), [("fp32", FP32), ("bf16", BF16)])
@pytest.mark.parametrize(("size", "kind", "bands"), [("32", "mdsa", "rgb"), ("", "mn", "rgb")])
def test_golden_pictures_come_out(size, kind, bands, precision, limits, published):
    if not ON_GPU and not size:
        pytest.skip("too much for a CPU")
    states = published.de_state(bands, size), published.reference_state(kind, bands)
    model = load_published(*states, device=DEVICE, precision=precision)
    golden = published.golden(f"de{size}_{kind}_{bands}_ddim5_64")
    found = model.sample(golden["y"], steps=5, noise=golden["x_T"]).cpu()
    difference = (found - golden["final"]).abs()
    print(
        f"\n{size or '96'} {kind} {bands} {precision}: off by {difference.max():.2e}, {difference.mean():.2e}"
    )
    assert difference.max() <= limits[0]
    assert difference.mean() <= limits[1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return part_of_landsat(tmp_path_factory.mktemp("scene") / "scene.tif", 320, 512)


@pytest.fixture(scope="module")
def one(scene):
    """The picture of one worker in fp32."""
    return restored(scene, "one", batch_size=8)


def restored(scene, name, **options):
    out = scene.with_name(f"{name}.tif")
    report = process_scene(
        scene, out, overwrite=True, **{**OPTIONS, "device": DEVICE, "precision": "fp32", **options}
    )
    if options.get("device", DEVICE) == DEVICE:
        assert report.model["device"] == DEVICE
        assert report.model["device_name"] or not ON_GPU
    return pixels(out)


def assert_same(found, expected, share=1e-4):
    difference = np.abs(found.astype(int) - expected)
    print(f"\ndiffers by {difference.max()} DN at most, in {(difference > 0).mean():.1e} of the pixels")
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


def test_a_scene_comes_out_as_on_a_cpu(scene, one):
    assert_same(one, restored(scene, "cpu", device="cpu"), share=1e-3)


def test_in_bf16_a_scene_is_nearly_the_same(scene, one):
    difference = np.abs(restored(scene, "bf16", precision="bf16").astype(int) - one)
    print(f"\nbf16 differs by {difference.mean():.3f} DN in the mean, {difference.max()} at most")
    assert difference.mean() < 0.5


@pytest.mark.parametrize("size", [1, 64])
def test_the_size_of_batches_changes_nothing(size, scene, one):
    assert_same(restored(scene, f"batch{size}", batch_size=size), one)


def test_two_workers_make_the_same_picture(scene, one):
    assert_same(restored(scene, "two", workers=2), one)


def test_tiles_that_are_denoised_together_are_the_same_as_on_a_cpu(scene):
    joint = restored(scene, "joint", blend="joint")
    assert_same(joint, restored(scene, "joint_cpu", blend="joint", device="cpu"), share=1e-3)


def test_noise_has_the_same_bits():
    noise = TileNoise(5, 4, [Span(192, 192 * number, 256, 256) for number in range(16)])
    np.testing.assert_array_equal(noise.drawn_on(torch.device(DEVICE)).cpu().numpy(), noise.drawn())


@pytest.mark.skipif(not ON_GPU, reason="NO GPU HERE")
def test_a_gpu_that_is_really_too_small_does_with_fewer_tiles():
    spec, _ = spec_of(Options(model="rice2", device="cuda", precision="fp32", steps=1))
    tiles = np.random.default_rng(0).uniform(-1, 1, (8, 3, 512, 512)).astype(np.float32)
    expected, whole = Diffusion(spec).guess(tiles), torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_allocated()  # of tests before
    torch.cuda.reset_peak_memory_stats()
    small = Diffusion(spec)
    small.guess(tiles[:1].repeat(8, axis=0))
    peak, found = torch.cuda.max_memory_allocated() - held, None
    for share in (0.6, 0.4, 0.3, 0.2):  # cuDNN does with less room for its own than it takes at first
        torch.cuda.empty_cache()
        limit = torch.cuda.memory_allocated() + share * peak
        try:
            torch.cuda.set_per_process_memory_fraction(limit / whole)
            found = small.guess(tiles)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        if small.sizes:
            break
    assert small.sizes, "memory did suffice"
    assert 1 <= min(small.sizes.values()) < 8
    np.testing.assert_allclose(found, expected, atol=1e-4)


UNET = {"channels": 8, "multipliers": [1, 2], "attention_factors": [2], "heads": 1, "num_res_blocks": 1}
RUN = {
    "stage": "diffusion",
    "bands": ["red", "green", "blue"],
    "steps": 6,
    "batch": 2,
    "crop": 32,
    "warmup": 2,
    "precision": "bf16",
    "checkpoint_every": 3,
    "network": {"prediction": "v", "noise": UNET, "weight": {**UNET, "scale_shift": False}},
    "data": [{"clear": "clear", "simulate": 1.0}],
}


def test_a_training_in_bf16_that_is_killed_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        save_png(tmp_path / "clear" / f"{number}.png", smooth_ground(rng, 8, 64, (40, 160)))
    config, ends = config_from_table(RUN), []
    for name, stops in (("whole", None), ("killed", 4), ("killed", None)):
        trainer = Trainer.start(config, tmp_path / name, (), torch.device(DEVICE))
        sources = [load_source(part, tmp_path, read_png) for part in config.data]

        def stop(step, figures, stops=stops):
            if step == stops:
                raise KeyboardInterrupt

        try:
            trainer.run(sources, [], stop)
            ends.append({key: value.float().cpu() for key, value in trainer.ema.state_dict().items()})
        except KeyboardInterrupt:
            assert stops == 4
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-4)


def test_the_table(capsys: pytest.CaptureFixture[str]):
    table = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("table.py"))))
    with capsys.disabled():
        rows = table.measure(DEVICE, load_model, small=not ON_GPU)
    assert rows["published, 50 steps: our time / a plain loop's"] <= 1.05
    assert rows["default: tiles a second"] > 0
