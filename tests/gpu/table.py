"""One table of a card: ``python tests/gpu/table.py [DEVICE]``.

Tiles a second, share of the card's own peak, launches, what lies outside the networks, memory; and the
networks of the published size at 50 steps against a plain loop over the same networks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from decr_scene.models.checkpoints.model_file import ModelConfig, SamplingConfig, build_modules
from decr_scene.models.model import Model, load_model
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import PUBLISHED_WEIGHT, UNetConfig
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.restoration.restorers import Diffusion
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import TileNoise


def seconds(call: Callable[[], object], device: str, times: int = 5) -> float:
    """Median of several calls, the first of which does not count."""
    found = []
    for _ in range(times + 1):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - began)
    return float(np.median(found[1:]))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device: str, side: int) -> float:
    """Operations a second of a large product of bf16 matrices: what the card does at best."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds(lambda: a @ a, device)


def launches(call: Callable[[], object], device: str) -> int:
    """Kernels that one call starts; 0 on a CPU."""
    if device != "cuda":
        return 0
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        call()
        _wait(device)
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def operations(call: Callable[[], object]) -> float:
    """Floating point operations of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def published(device: str, precision: str, small: bool) -> Model:
    """DE of the published size with weights that were drawn."""
    noise = UNetConfig(channels=32) if small else UNetConfig()
    network = NetworkConfig(3, noise=noise, weight=PUBLISHED_WEIGHT)
    config = ModelConfig(
        "published", ("red", "green", "blue"), network, ReferenceConfig(bands=3), SamplingConfig()
    )
    generator = torch.Generator().manual_seed(0)
    tensors = build_modules(config).state_dict()
    drawn = {n: 0.02 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}
    return Model(config, drawn, device, precision)


def plain_loop(model: Model, noise: Tensor, cloudy: Tensor, reference: Tensor, steps: int) -> Tensor:
    """DDIM over the same networks with nothing around them, under torch's own autocast."""
    schedule, network, x_t = model.schedule, model.modules["network"], noise
    for t, s in schedule.pairs(steps):
        eps, raw = network(x_t, t, cloudy, reference)
        a, b = schedule.abar(t), schedule.abar(s)
        weight = raw.clamp(0.3, 1)
        x0 = weight * reference + (1 - weight) * ((x_t - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-1, 1)
        x_t = b**0.5 * x0 + (1 - b) ** 0.5 * (x_t - a**0.5 * x0) / (1 - a) ** 0.5
    return x_t


def measure(device: str, load: Callable[..., Model] = load_model, small: bool = False) -> dict[str, float]:
    """Measure, print and return the table; ``small``: a try of the table itself."""
    side, batch, steps = (64, 2, 2) if small else (256, 8, 50)
    rows: dict[str, float] = {}
    _default(device, load, side, batch, rows, peak(device, 256 if small else 8192))
    _published(device, small, side, batch, steps, rows)
    if device == "cuda":
        rows["peak memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
        print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name, value in rows.items():
        print(f"{name:<60} {value:12.4g}")
    return rows


def _default(
    device: str, load: Callable[..., Model], side: int, batch: int, rows: dict[str, float], most: float
) -> None:
    """Sampling of the bundled model as a run does it, beside its networks alone."""
    precision = "bf16" if device == "cuda" else "fp32"
    model, images = load("default", device=device, precision=precision), _images(4, side, batch, device)
    alone = seconds(lambda: model.network(images[0], 300, images[1], images[2]), device)
    work = operations(lambda: model.network(images[0], 300, images[1], images[2]))
    spec, _ = spec_of(Options(model="default", device=device, precision=precision, batch_size=batch))
    restorer = Diffusion(spec)
    tiles, drawn, field = (image.cpu().numpy() for image in images)
    places = TileNoise(0, 4, [Span(0, number * side * 3 // 4, side, side) for number in range(batch)])
    noise = places if restorer.draws_noise else drawn
    whole = seconds(lambda: restorer.restore(tiles, noise, field), device)
    steps = spec.steps or 1
    rows["default: tiles a second"] = batch / whole
    rows["default: milliseconds for the noise of a tile, drawn there"] = (
        seconds(lambda: places.drawn_on(torch.device(device)), device) * 1e3 / batch
    )
    rows["default: share of the card's peak in the network"] = work / alone / most
    rows["default: launches a batch and step"] = launches(
        lambda: model.network(images[0], 300, images[1], images[2]), device
    )
    rows["default: share of the time outside the network"] = 1 - min(1.0, steps * alone / whole)


def _published(device: str, small: bool, side: int, batch: int, steps: int, rows: dict[str, float]) -> None:
    """50 steps of the published size, ours and a plain loop over fp32 networks under autocast."""
    precision = "bf16" if device == "cuda" else "fp32"
    model = published(device, precision, small)
    noise, cloudy, guess, _ = _images(3, side, batch, device)

    def plain() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            plain_loop(model, noise, cloudy, guess, steps)

    ours = seconds(
        lambda: model.sample(cloudy, steps=steps, start=1000, noise=noise, reference=guess), device, 3
    )
    rows["published, 50 steps: seconds a tile"] = ours / batch
    rows["published, 50 steps: our time / a plain loop's"] = ours / seconds(plain, device, 3)


def _images(bands: int, side: int, batch: int, device: str) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(batch, bands, side, side, generator=generator) * 2 - 1).to(device) for _ in range(4)][
        : 3 if bands == 4 else 4
    ]


if __name__ == "__main__":
    measure(sys.argv[1] if len(sys.argv) > 1 else "cuda")
