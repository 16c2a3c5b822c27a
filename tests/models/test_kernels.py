"""The compiled loops against torch in doubles, on shapes that no block divides, by any number of threads."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from decr_scene.models import kernels, loops
from decr_scene.models.diffusion import smoothing
from decr_scene.models.networks import layers
from decr_scene.models.networks.group_norm import group_norm

DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(2, 24, 70, 45), (1, 3, 1, 7), (3, 8, 33, 128), (1, 16, 256, 300)]


def features(shape, dtype, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def between_blocks(values, block, height, width):
    return F.interpolate(values, scale_factor=float(block), mode="bilinear")[..., :height, :width]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_blocks_have_the_means_of_their_pixels(shape, dtype):
    x = features(shape, dtype)
    found, own = kernels.block_means(x, 16), x.double()
    expected = torch.cat([F.avg_pool2d(v, 16, ceil_mode=True) for v in (own, own.square())], 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("silu", [False, True])
@torch.inference_mode()
def test_factor_and_offset_are_bilinear_between_blocks_and_silu_follows(shape, dtype, silu):
    x, (b, c, height, width) = features(shape, dtype), shape
    down, across = -(-height // 16), -(-width // 16)
    factor, offset = (
        torch.randn(b, c, down, across, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    found = kernels.scaled(x, factor, offset, 16, silu)
    wide = [between_blocks(values.double(), 16, height, width) for values in (factor, offset)]
    expected = x.double() * wide[0] + wide[1]
    expected = F.silu(expected) if silu else expected
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    # what is rounded to bf16 may be either of two neighbours where the exact value lies between them
    bounds = {"atol": 3e-6, "rtol": 3e-6} if dtype == torch.float32 else {"atol": 1e-6, "rtol": 0.004}
    torch.testing.assert_close(found.double(), expected, **bounds)
    if dtype == torch.bfloat16:
        assert (found == expected.to(dtype)).double().mean() > 0.999


@torch.inference_mode()
def test_silu_is_right_at_every_size_of_a_value():
    x = torch.cat([torch.linspace(-200, 200, 100_001), torch.tensor([0.0, 1e-30, -1e-30, 1e20, -1e20])])
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    found = kernels.scaled(x.view(1, 1, 1, -1), one, none, 1 << 20, True).flatten()
    torch.testing.assert_close(found, F.silu(x.double()).float(), atol=1e-6, rtol=5e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_what_is_no_number_stays_none(dtype):
    odd = torch.tensor([0x7FFFFFFF, 0x7FC00000, 0x7F800000], dtype=torch.int32).view(torch.float32)
    one, none, x = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), odd.view(1, 1, 1, -1)
    for silu in (True, False):
        found = kernels.scaled(x.to(dtype), one, none, 1 << 20, silu)
        assert found.isnan().flatten().tolist() == [True, True, False]
    for factor in odd[:2]:
        found = kernels.scaled(one.to(dtype), factor.view(1, 1, 1, 1), none, 1, False)
        assert found.isnan().all()


@torch.inference_mode()
def test_one_step_may_be_for_all_images():
    x, step = features((3, 8, 8, 8), torch.float32), (torch.full((1, 8, 1, 1), 0.5), torch.ones(1, 8, 1, 1))
    ones = torch.ones(8)
    found = kernels.normalised(x, 4, ones, ones, 1e-5, step, False)
    torch.testing.assert_close(found, F.group_norm(x, 4, ones, ones) * 1.5 + 1, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_even_ground_keeps_its_faint_texture(dtype):
    """Squares that are added up as they are lose it: torch's own sums are off by 10 here, in float32."""
    generator = torch.Generator().manual_seed(0)
    faint = (300 + 0.01 * torch.randn(1, 24, 128, 128, generator=generator)).to(dtype)
    faint = faint.contiguous(memory_format=torch.channels_last)
    found = kernels.normalised(faint, 8, torch.ones(24), torch.zeros(24), 1e-5, None, False)
    torch.testing.assert_close(found.double(), F.group_norm(faint.double(), 8), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_neither_threads_nor_the_batch_nor_the_layout_change_a_bit(dtype):
    x, before, found = features((3, 24, 130, 70), dtype), torch.get_num_threads(), []
    factor, weight = torch.rand(3, 24, 5, 3), torch.linspace(0.5, 2, 24)
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(
                [
                    kernels.block_means(x, 32),
                    kernels.scaled(x, factor, factor, 32, True),
                    kernels.normalised(x, 8, weight, weight, 1e-5, None, True),
                ]
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))
    assert torch.equal(kernels.scaled(x[1:2], factor[1:2], factor[1:2], 32, True), found[0][1][1:2])
    laid_out = kernels.normalised(x.contiguous(), 8, weight, weight, 1e-5, None, True)
    assert torch.equal(laid_out, found[0][2])


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_images_are_folded_one_after_the_other_as_by_torch(dtype):
    images = [features((2, bands, 12, 18), torch.float32, seed=bands) for bands in (4, 1, 3)]
    images[1] = images[1].contiguous()
    for side in (1, 2, 3):
        found = layers.fold(images, side, dtype)
        assert torch.equal(found, F.pixel_unshuffle(torch.cat(images, dim=1).to(dtype), side))
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not layers._can_pack(), reason="this PyTorch lays out no weights ahead")
def test_packed_weights_give_the_same_bits():
    torch.manual_seed(0)
    parts = [nn.Conv2d(24, 48, 3, padding=1), nn.Conv2d(48, 16, 2, stride=2), nn.Conv2d(16, 16, 3, groups=16)]
    network = nn.Sequential(*parts)
    fast, plain = layers.with_bf16_weights(network), copy.deepcopy(network).to(torch.bfloat16)
    assert all(isinstance(part, layers.PackedConv2d) for part in fast)
    assert network[0].weight.dtype == torch.float32
    assert fast.state_dict().keys() == network.state_dict().keys()
    for side in (16, 33, 70, 128):
        x = features((2, 24, side, side + 1), torch.bfloat16)
        with torch.inference_mode():
            assert torch.equal(fast(x), plain(x))
            for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
                assert torch.equal(other(x), plain(x))
            assert torch.equal(fast(x[0]), plain(x[0])), "an image alone"
        assert fast(x).requires_grad


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_what_cannot_be_packed_is_left_as_it_is(options):
    network = layers.with_bf16_weights(nn.Sequential(nn.Conv2d(4, 4, 3, **options)))
    assert type(network[0]) is nn.Conv2d


def test_random_numbers_of_others_are_not_drawn():
    layers._can_pack.cache_clear()
    state = torch.get_rng_state()
    layers._can_pack()
    assert torch.equal(state, torch.get_rng_state())


def test_they_are_for_inference_on_a_cpu_alone():
    x = features((1, 8, 8, 8), torch.float32)
    assert not kernels.suits(x)
    with torch.no_grad():
        assert kernels.suits(x)
        assert kernels.suits(x.bfloat16())
        assert not kernels.suits(x.double())
        assert not kernels.suits(x.to("meta"))


@torch.inference_mode()
def test_without_numba_s_compiler_torch_does_it(monkeypatch):
    x, weight = features((2, 8, 40, 24), torch.float32), torch.linspace(0.5, 2, 8)
    found = [group_norm(x, 4, weight, weight, 1e-5, silu=True, side=side) for side in (None, 16)]
    monkeypatch.setattr(loops, "ARE_COMPILED", False)
    assert not kernels.suits(x)
    for side, expected in zip((None, 16), found, strict=True):
        torch.testing.assert_close(group_norm(x, 4, weight, weight, 1e-5, silu=True, side=side), expected)


PROGRAM = """
import os, sys, torch
from decr_scene.models import kernels, loops
from decr_scene.models.diffusion import smoothing
from decr_scene.models.networks.group_norm import group_norm

torch.set_num_threads(2)
with torch.no_grad():
    x = torch.rand(1, 24, 128, 128).contiguous(memory_format=torch.channels_last)
    means = [kernels.block_means(x, 32)]
    child = os.fork()
    means.append(kernels.block_means(x, 32))
    if not torch.equal(*means):
        os._exit(3)
    if not child:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def run(place):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"NUMBA_CACHE_DIR": str(place)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_fork_has_threads_of_its_own_and_a_damaged_cache_is_none(tmp_path):
    run(tmp_path)
    kept = [path for path in tmp_path.rglob("*.nb*") if path.is_file()]
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for suffix in (".nbc", ".nbi"):
        for path in kept:
            if path.suffix == suffix:
                path.write_bytes(path.read_bytes()[:10])
        run(tmp_path)
        assert not any(path.exists() and path.stat().st_size == 10 for path in kept)
        run(tmp_path)
        assert all(path.stat().st_size > 10 for path in kept)


def test_a_loop_that_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    def compiled(cache=False, compiled=loops.numba.njit, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiled(**options)

    def doubled(values):
        for i in range(len(values)):
            values[i] *= 2

    monkeypatch.setattr(loops.numba, "njit", compiled)
    values = np.arange(3.0)
    loops._loop(doubled)(values)
    assert values.tolist() == [0, 2, 4]


@pytest.mark.parametrize("shape", [*SHAPES, (2, 4, 1, 1), (1, 1, 5, 2)])
@torch.inference_mode()
def test_images_are_smoothed_as_by_convolutions_of_torch(shape, monkeypatch):
    sigma = torch.linspace(0, 4, shape[0] + 1)[1:]
    for x in (features(shape, torch.float32), features(shape, torch.float32).transpose(2, 3)):
        found = smoothing.smoothed(x, sigma, 4.0)
        with monkeypatch.context() as patch:
            patch.setattr(smoothing, "suits", lambda _: False)
            expected = smoothing.smoothed(x, sigma, 4.0)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-6)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(smoothing.smoothed(x, sigma, 4.0), found)
    finally:
        torch.set_num_threads(threads)
