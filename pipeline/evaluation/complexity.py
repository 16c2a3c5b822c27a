"""What an answer of a model costs: parameters, multiply-adds of one image, memory and images a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from decr_scene.models.checkpoints.model_file import ModelConfig, build_modules
from decr_scene.models.model import Model, load_model
from decr_scene.models.networks.noise_network import NoiseNetwork
from decr_scene.models.networks.published_reference import DiffusedReference, DrawnReference
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Settings
from decr_scene.pipeline.evaluation.evaluate import write_rows
from decr_scene.pipeline.evaluation.figures import Row
from decr_scene.pipeline.restoration.restorers import BUILT_IN

SIDE = 256
"""Of the image that costs are counted for, px."""

REPEATS = 3
"""Timed answers, after one that is not."""

PAUSE = 0.005
"""Seconds from one look at the memory to the next."""


@dataclass(frozen=True)
class Complexity:
    """Costs by system, of one image of `SIDE` px.

    Args:
        rows: By label.
        device: Where they were measured.
    """

    rows: dict[str, Row]
    device: str

    def to_text(self) -> str:
        """Format a table: systems down, costs across."""
        heads = ("parameters", "G multiply-adds", "peak MB", "images/s")
        width = max(20, *(len(label) + 2 for label in self.rows))
        lines = [f"{SIDE} px on {self.device}".ljust(width) + "".join(f"{head:>17}" for head in heads)]
        for label, row in self.rows.items():
            values = f"{row['parameters']:17,.0f}{row['gmacs']:17.3f}{row['peak_mb']:17.1f}"
            lines.append(f"{label.ljust(width)}{values}{row['images_per_second']:17.3f}")
        return "\n".join(lines)

    def to_csv(self, path: Path) -> None:
        """Write one line per system."""
        write_rows(path, "system", self.rows)


def measure_complexity(models: Sequence[str], settings: Settings, device: str = "auto") -> Complexity:
    """Measure the costs of one answer of each model, by its name.

    Raises:
        OptionError: ``fill`` and ``identity`` are no networks.
    """
    for name in models:
        if name in BUILT_IN:
            raise OptionError(f"{name} has no network to count: name models")
    loaded = {name: load_model(name, device) for name in models}
    rows = {Path(name).stem: complexity_of(model, settings) for name, model in loaded.items()}
    return Complexity(rows, str(next(iter(loaded.values())).device))


def complexity_of(model: Model, settings: Settings) -> Row:
    """Measure the costs of one answer of a model: its own steps and reference, one image at a time.

    Args:
        model: On the device to measure.
        settings: How it samples.
    """
    steps = model.config.sampling.steps if settings.steps is None else settings.steps
    image = np.zeros((len(model.config.bands), SIDE, SIDE), np.float32)

    def answer() -> None:
        guess = model.reference(torch.from_numpy(image[None]))[0].cpu().numpy()
        settings.sample(model, image, guess)

    with _peak(model.device) as peak:
        answer()
    began = time.perf_counter()
    for _ in range(REPEATS):
        answer()  # ends with the answer on the CPU, so a GPU has been waited for
    seconds = (time.perf_counter() - began) / REPEATS
    return {
        "parameters": float(sum(p.numel() for p in model.modules.parameters())),
        "gmacs": multiply_adds(model.config, steps) / 1e9,
        "peak_mb": peak[0] / 1e6,
        "images_per_second": 1 / seconds,
    }


def multiply_adds(config: ModelConfig, steps: int, side: int = SIDE) -> int:
    """Count the multiply-adds of one image: reference once a turn, noise and weight network at every step.

    Counted by torch of what is called, without numbers: convolutions and products of matrices, those of
    attention included; half of what torch calls floating-point operations.
    """
    with torch.device("meta"):
        modules = build_modules(config).to("meta")  # what they were built with from NumPy as well
        image = torch.empty(1, len(config.bands), side, side)
        t = torch.zeros(1, dtype=torch.long)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            reference = modules["reference"]
            if isinstance(reference, DiffusedReference):
                reference.net(image, torch.zeros(1), image[:, None].expand(-1, 3, -1, -1, -1))
            elif isinstance(reference, DrawnReference):
                reference.net(image)
            else:
                reference(image)
        turns = 1 if config.reference.draws else config.sampling.turns
        first = counter.get_total_flops() * turns
        if isinstance(reference, DiffusedReference):
            return first * (steps + 1) // 2
        if config.network is None:
            return first // 2
        network, counter = modules["network"], FlopCounterMode(display=False)
        assert isinstance(network, NoiseNetwork), "build_modules"
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            network(image, t, image, image)
        return (first + steps * counter.get_total_flops()) // 2


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Measure the peak of memory above that at the start, bytes, in the one entry of a list."""
    peak = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) - before
        return
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(PAUSE):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
