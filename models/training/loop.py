"""The training loop: one for every stage, resumable at any checkpoint with the very same continuation."""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decr_scene.models.errors import TrainingError
from decr_scene.models.model import pick_precision
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.data import Pair, Source, area_reduced, batches
from decr_scene.models.training.objectives import Objective, build_objective
from decr_scene.models.training.tone import regions

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
Report = Callable[[int, dict[str, float]], None]
"""Told after every step: the step and its figures."""


@dataclass
class Trainer:
    """One run: objective, optimiser, moving average and the step they have reached."""

    config: RunConfig
    folder: Path
    objective: Objective
    optimiser: torch.optim.Optimizer
    ema: nn.ModuleDict
    step: int = 0

    @classmethod
    def start(cls, config: RunConfig, folder: Path, initial: Iterable[Path] = ()) -> Trainer:
        """Begin a run, or go on with the one in ``folder``.

        Args:
            config: The run.
            folder: Run folder; made if it does not exist.
            initial: Checkpoints of earlier stages whose weights this one starts from.

        Raises:
            TrainingError: The folder holds a run of another configuration, or an initial checkpoint holds
                nothing that fits.
        """
        torch.manual_seed(config.seed)
        objective = build_objective(config)
        for path in initial:
            _adopt(objective.modules, path)
        objective.modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        optimiser = torch.optim.AdamW(
            objective.trained(), config.learning_rate, weight_decay=config.weight_decay
        )
        trainer = cls(
            config, folder, objective, optimiser, copy.deepcopy(objective.modules).requires_grad_(False)
        )
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            trainer._resume()
        return trainer

    def run(self, sources: list[Source], validation: list[Pair], report: Report) -> dict[str, float]:
        """Train to the end; return the figures of the last validation."""
        config = self.config
        spectrum = config.spectrum or config.bands
        crops = batches(sources, config.seed, config.crop, config.batch, spectrum, self.step)
        figures: dict[str, float] = {}
        while self.step < config.steps:
            began = time.perf_counter()
            batch = next(crops)
            losses = self._update(_tensor(batch.cloudy), _tensor(batch.clear))
            self.step += 1
            report(self.step, {**losses, "seconds": time.perf_counter() - began})
            last = self.step == config.steps
            if validation and (last or self.step % config.validate_every == 0):
                figures = self.validate(validation)
                report(self.step, figures)
                self._log({**losses, **figures})
            if last or self.step % config.checkpoint_every == 0:
                self.save()
        return figures

    def validate(self, pairs: list[Pair]) -> dict[str, float]:
        """PSNR (dB, of 2 units range) of input and answer against the tone-matched truth, and its parts."""
        rows = [self._judge(pair) for pair in pairs]
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "config": repr(self.config),
            "step": self.step,
            "modules": self.objective.modules.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        partial = self.folder / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)

    def _resume(self) -> None:
        state = _load(self.folder / CHECKPOINT)
        if state["config"] != repr(self.config):
            raise TrainingError(
                f"{self.folder} holds a run of another configuration: take another folder, or remove it"
            )
        self.objective.modules.load_state_dict(state["modules"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def _update(self, cloudy: Tensor, clear: Tensor) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * _rate(self.step, self.config)
        self.objective.modules.train()
        with _precision(self.config.precision):
            losses = self.objective.losses(cloudy, clear, self._generator())
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(f"the loss is {total.item()} at step {self.step}: lower learning_rate")
        total.backward()  # type: ignore[no-untyped-call]  # torch has no types there
        torch.nn.utils.clip_grad_norm_(self.objective.trained(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._average()
        return {name: loss.item() for name, loss in losses.items()}

    def _average(self) -> None:
        """Move the average towards the weights; faster in the beginning, when they move faster."""
        rate = min(self.config.ema, (1 + self.step) / (10 + self.step))
        live = self.objective.modules.state_dict()
        with torch.no_grad():
            for name, mean in self.ema.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(live[name], 1 - rate)

    def _generator(self) -> torch.Generator:
        """Noise and steps as a function of (seed, step): a resumed run draws the same."""
        mixed = np.random.SeedSequence([self.config.seed, self.step, 1]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(mixed))

    @torch.no_grad()
    def _judge(self, pair: Pair) -> dict[str, float]:
        truth = pair.tone.apply(pair.clear) if pair.tone is not None else pair.clear
        live, self.objective.modules = self.objective.modules, self.ema
        self._share_modules()
        self.ema.eval()
        try:
            with _precision(self.config.precision):
                answer = self.objective.answer(_tensor(pair.cloudy[None]), self._generator())[0].numpy()
        finally:
            self.objective.modules = live
            self._share_modules()
        area = regions(pair.cloudy, truth)
        return {
            "input_db": _psnr(pair.cloudy - truth),
            "answer_db": _psnr(answer - truth),
            "input_cloud_db": _psnr((pair.cloudy - truth)[:, area.cloud]),
            "answer_cloud_db": _psnr((answer - truth)[:, area.cloud]),
            "clear_shift_dn": float(np.abs((answer - pair.cloudy)[:, area.clear].mean(axis=1)).max() * 127.5),
        }

    def _share_modules(self) -> None:
        denoiser = getattr(self.objective, "denoiser", None)
        if denoiser is not None:
            denoiser.network = self.objective.modules["network"]

    def _log(self, figures: dict[str, float]) -> None:
        path = self.folder / METRICS
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *figures])
            writer.writerow([self.step, *(f"{value:.5f}" for value in figures.values())])


def validation_pairs(source: Source, limit: int | None = None) -> list[Pair]:
    """Take the pairs of a source at its first scale, cut to a multiple of 32 px."""
    pairs = source.pairs[0][:limit]
    return [pair._replace(cloudy=_even(pair.cloudy), clear=_even(pair.clear)) for pair in pairs]


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The moving average of a run's weights, by the names of a model file."""
    weights: dict[str, Tensor] = _load(checkpoint)["ema"]
    return weights


def _adopt(modules: nn.ModuleDict, path: Path) -> None:
    """Take from another stage's checkpoint every module that it has too."""
    weights = averaged_weights(path)
    own = modules.state_dict()
    fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
    if not fitting:
        raise TrainingError(
            f"{path} holds no weights that fit this run's networks: check both configurations"
        )
    modules.load_state_dict({**own, **fitting})


def _load(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path} is no readable checkpoint of this program: {error}") from error
    return state


def _rate(step: int, config: RunConfig) -> float:
    """Warm-up, then a cosine from 1 to 0.01."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _precision(name: str) -> Any:
    if pick_precision(name, torch.device("cpu")) == "bf16":
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def _tensor(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(memory_format=torch.channels_last)


def _even(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = (side // 32 * 32 for side in image.shape[1:])
    return image[:, :height, :width]


def _psnr(error: np.ndarray[Any, Any]) -> float:
    return float(10 * np.log10(4 / max(float(np.square(error, dtype=np.float64).mean()), 1e-12)))


__all__ = ["CHECKPOINT", "Trainer", "area_reduced", "averaged_weights", "validation_pairs"]
