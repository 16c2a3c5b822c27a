"""The training loop: one for every stage, resumable at any checkpoint with the very same continuation.

Under ``torchrun`` every process takes its own share of each batch, gradients are averaged, and the first
process alone validates and writes. A batch is the same crops and the same noise however it is shared out.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from decr_scene.models.data.crops import cut_to_multiple
from decr_scene.models.data.source import Batch, Pair, PairSource, batches, held_in_memory
from decr_scene.models.data.tone import regions
from decr_scene.models.descriptions import describe, is_same
from decr_scene.models.devices import pick_precision
from decr_scene.models.errors import TrainingError
from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.logs import RunLog, Sample
from decr_scene.models.training.objectives import Draws, Objective
from decr_scene.models.training.optimisers import build_optimisers
from decr_scene.models.training.turns import Turn, build_objective, turns_of
from decr_scene.models.training.weights import adopt, read_checkpoint, write_checkpoint

CHECKPOINT = "checkpoint.pt"
CPU = torch.device("cpu")

BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What torch says of a connection whose other end is gone, and not of one that waits too long."""

SHOWN = 4
"""Images in a picture of samples."""

_ADVICE = "lower learning_rate (or weight_decay), and take another folder, or remove this one"
"""What to do once a run has left all bounds: one that goes on keeps its configuration."""

Report = Callable[[int, dict[str, float]], None]
"""Called after every step with the step and its figures."""


@dataclass
class Trainer:
    """One run: objective, optimisers, moving average, and the step and processor time they have reached.

    ``owed`` has the losses of this step if it is to be validated, so that a run that is ended during that
    does it when it goes on. ``finished``: all steps are taken, or the processor time that was given is spent.
    """

    config: RunConfig
    folder: Path
    objective: Objective
    optimisers: list[torch.optim.Optimizer]
    ema: nn.ModuleDict
    step: int = 0
    device: torch.device = CPU
    cpu_seconds: float = 0.0
    owed: dict[str, float] | None = None
    finished: bool = False

    @classmethod
    def start(
        cls,
        config: RunConfig,
        folder: Path,
        initial: Iterable[Path] = (),
        device: torch.device = CPU,
    ) -> Trainer:
        """Begin a run, or continue the one in ``folder``.

        Args:
            config: The run.
            folder: Run folder; made if it does not exist.
            initial: Checkpoints of earlier stages, or model files, whose weights are the initial ones.
            device: Where to compute.

        Raises:
            TrainingError: The folder holds a run of another configuration or number of processes, an initial
                checkpoint does not fit, or a network is to be compiled and there is no compiler.
        """
        if config.compiled and device.type == "cpu":
            _check_compiler()
        torch.manual_seed(config.seed)
        objective = build_objective(config)
        for path in initial:
            adopt(objective.modules, path)
        objective.modules.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        optimisers = [
            optimiser
            for turn in turns_of(objective)
            for optimiser in build_optimisers(
                turn.optimiser or config.optimiser, turn.trained, config.learning_rate, config.weight_decay
            )
        ]
        average = copy.deepcopy(objective.modules).requires_grad_(False)
        if config.compiled:
            compiled = "reference" if config.stage == "reference" else "network.noise_net"
            objective.modules.get_submodule(compiled).compile()
        trainer = cls(config, folder, objective, optimisers, average, device=device)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            trainer._resume()
        return trainer

    def run(
        self,
        sources: list[PairSource],
        validation: list[Pair],
        report: Report,
        log: RunLog | None = None,
        minutes: float = math.inf,
        loaders: int = 0,
        drawn: Generator[Batch, None, None] | None = None,
        cpu_minutes: float = math.inf,
    ) -> dict[str, float]:
        """Train to the end, or until the time is over, and return the figures of the last validation.

        Args:
            sources: Where crops are drawn from.
            validation: Pairs to validate on; without any, the table holds losses alone.
            report: Called after every step.
            log: Writes the logs; by default the table alone.
            minutes: Time after which the run stops at a checkpoint; the next call continues it.
            loaders: Processes that draw crops; none: a thread does.
            drawn: Batches to train on, arrays or tensors, in the place of what the sources would give.
            cpu_minutes: Processor time of this and all earlier calls together, without reading the images,
                after which the run is over.

        Raises:
            TrainingError: Time is limited and several processes train, which would stop at different steps;
                or processor time is, and other processes draw crops.
        """
        config, deadline = self.config, time.perf_counter() + 60 * minutes
        _check_limits(minutes, cpu_minutes, loaders)
        _check_sides(config, validation)
        log = log or RunLog(self.folder, self.step)
        figures: dict[str, float] = {}
        drawn = drawn or self._batches(sources, loaders)
        cpu_began = time.process_time() - self.cpu_seconds
        with closing(drawn) as crops:
            if self.owed is not None and not _rank() and not log.has_row(self.step):
                figures = self._judged(sources, validation, report, log)
            while not self.is_over(cpu_minutes):
                began = time.perf_counter()
                rate = config.learning_rate * _rate(self.step, config)
                losses = self._update(next(crops))
                self.step += 1
                losses_and_time = {**losses, "seconds": time.perf_counter() - began}
                report(self.step, losses_and_time)
                if _rank():
                    continue
                log.curve(self.step, {**losses_and_time, "learning_rate": rate})
                self.cpu_seconds = time.process_time() - cpu_began
                last, pauses = self.is_over(cpu_minutes), time.perf_counter() >= deadline
                is_judged = last or self.step % config.validate_every == 0
                self.owed, self.finished = losses if is_judged else None, last
                if is_judged or pauses or self.step % config.checkpoint_every == 0:
                    self.save()  # before a validation, which may take long
                if is_judged:
                    figures = self._judged(sources, validation, report, log)
                if pauses:
                    break
        return figures

    def _judged(
        self, sources: list[PairSource], validation: list[Pair], report: Report, log: RunLog
    ) -> dict[str, float]:
        """Validate the step that is reached, and write its pictures and, last, its row, which tells that."""
        figures = self.validate(validation) if validation else {}
        if validation:
            report(self.step, figures)
        if log.wants_pictures:
            log.picture(self.step, self._samples(validation or self._fixed_crops(sources)))
        log.row(self.step, {**(self.owed or {}), **figures})
        return figures

    def validate(self, pairs: list[Pair]) -> dict[str, float]:
        """Return PSNR (dB, range 2) of input and answer against the tone-matched truth, and its parts.

        Each is the mean over the pairs that have it: what equals its truth has nothing under cloud.
        """
        rows = [self._judge(pair) for pair in pairs]
        return {key: _mean_of_known([row[key] for row in rows]) for key in rows[0]}

    def is_over(self, cpu_minutes: float = math.inf) -> bool:
        """Return whether all steps are taken, or the processor time of `run` is spent."""
        return self.step >= self.config.steps or self.cpu_seconds >= 60 * cpu_minutes

    def save(self) -> None:
        """Write the checkpoint whole or not at all.

        Raises:
            TrainingError: A weight is not finite: the checkpoint before it stays.
        """
        live, average = self.objective.modules.state_dict(), self.ema.state_dict()
        for name, tensor in (*live.items(), *average.items()):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise TrainingError(f"{name} is not finite after step {self.step}: {_ADVICE}")
        state = {
            "config": describe(self.config),
            "bands": list(self.config.bands),
            "finished": self.finished,
            "processes": _processes(),
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "owed": self.owed,
            "modules": self.objective.modules.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        write_checkpoint(self.folder / CHECKPOINT, state)

    def _resume(self) -> None:
        """Take everything that `save` has written, of the same run."""
        try:
            state = read_checkpoint(self.folder / CHECKPOINT)
        except TrainingError as error:
            raise TrainingError(f"{error}; remove it to begin the run anew") from error
        if not is_same(self.config, str(state.get("config"))):
            raise TrainingError(
                f"{self.folder} holds a run of another configuration: take another folder, or remove it"
            )
        processes = state.get("processes", 1)
        if processes != _processes():
            raise TrainingError(
                f"{self.folder} holds a run of {processes} processes, these are {_processes()}: "
                f"go on with torchrun --nproc-per-node {processes}, or take another folder"
            )
        self.objective.modules.load_state_dict(state["modules"])
        self.ema.load_state_dict(state["ema"])
        states = state["optimiser"]  # earlier versions had one, by itself
        for optimiser, reached in zip(
            self.optimisers, states if isinstance(states, list) else [states], strict=True
        ):
            optimiser.load_state_dict(reached)
        self.step = state["step"]
        self.cpu_seconds = state.get("cpu_seconds", 0.0)
        self.owed, self.finished = state.get("owed"), state.get("finished", False)

    def _batches(self, sources: list[PairSource], loaders: int) -> Generator[Batch, None, None]:
        """Draw the batches of this process from the step that is reached on."""
        config = self.config
        share = config.accumulate * config.batch
        first = _rank() * share
        return batches(sources, config.seed, config.crop, share, self._spectrum, self.step, first, loaders)

    @property
    def _spectrum(self) -> tuple[str, ...]:
        """Return the physical names of the bands."""
        return self.config.spectrum or self.config.bands

    def _update(self, batch: Batch) -> dict[str, float]:
        """Take one step on this process's share of the batch, in ``accumulate`` parts one after the other."""
        cloudy, clear = self._tensor(batch.cloudy), self._tensor(batch.clear)
        context = None if batch.context is None else self._tensor(batch.context)
        self.objective.modules.train()
        figures: dict[str, float] = {}
        for turn in turns_of(self.objective):
            figures |= self._turn(turn, cloudy, clear, context)
        self._average()
        return figures

    def _turn(self, turn: Turn, cloudy: Tensor, clear: Tensor, context: Tensor | None) -> dict[str, float]:
        """Take one step of one part of the parameters."""
        config, parts = self.config, self.config.accumulate
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            images = slice(part * config.batch, (part + 1) * config.batch)
            first = (_rank() * parts + part) * config.batch
            draws = Draws(self._generator(), first, _processes() * parts * config.batch)
            with _precision(config.precision, self.device):
                part_context = None if context is None else context[images]
                losses = turn.losses(cloudy[images], clear[images], draws, part_context)
            total = torch.stack(list(losses.values())).sum()
            (total / parts).backward()  # type: ignore[no-untyped-call]  # torch has no types there
            sums = {n: sums.get(n, torch.zeros_like(loss)) + loss.detach() for n, loss in losses.items()}
        means = torch.stack([loss.float() for loss in sums.values()]) / parts
        _average_over_processes([*(p.grad for p in turn.trained if p.grad is not None), means])
        if self.objective.clip is not None:
            torch.nn.utils.clip_grad_norm_(turn.trained, self.objective.clip)
        own = {id(parameter) for parameter in turn.trained}
        for optimiser in self.optimisers:
            if id(optimiser.param_groups[0]["params"][0]) in own:
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * (turn.pace or _rate(self.step, config))
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        figures = dict(zip(sums, means.tolist(), strict=True))  # the one time that a step waits for a GPU
        if not math.isfinite(sum(figures.values())):
            raise TrainingError(f"the loss is {figures} at step {self.step}: {_ADVICE}")
        return figures

    def _average(self) -> None:
        """Move the average towards the weights, faster in the beginning, when they move faster."""
        rate = min(self.config.ema, (1 + self.step) / (10 + self.step))
        live = self.objective.modules.state_dict()
        means = {name: mean for name, mean in self.ema.state_dict().items() if mean.is_floating_point()}
        with torch.no_grad():
            torch._foreach_lerp_(list(means.values()), [live[name] for name in means], 1 - rate)

    def _generator(self) -> torch.Generator:
        """Make the generator of noise and steps from (seed, step), so that a resumed run draws the same."""
        mixed = np.random.SeedSequence([self.config.seed, self.step, 1]).generate_state(1)[0]
        return torch.Generator(self.device).manual_seed(int(mixed))

    def _judge(self, pair: Pair) -> dict[str, float]:
        """Return the figures of one pair, as `validate`."""
        cloudy, answer, truth = self._sample(pair)
        area = regions(cloudy, truth)
        return {
            "input_db": _psnr(cloudy - truth),
            "answer_db": _psnr(answer - truth),
            "input_cloud_db": _psnr((cloudy - truth)[:, area.cloud]),
            "answer_cloud_db": _psnr((answer - truth)[:, area.cloud]),
            "clear_shift_dn": float(np.abs((answer - cloudy)[:, area.clear].mean(axis=1)).max() * 127.5),
        }

    @torch.no_grad()
    def _sample(self, pair: Pair) -> Sample:
        """Return the answer of the averaged weights to a pair."""
        truth = pair.tone.apply(pair.clear) if pair.tone is not None else pair.clear
        cloudy = self._tensor(pair.cloudy[None])
        self.ema.eval()
        with _precision(self.config.precision, self.device):
            answer = self.objective.answer(self.ema, cloudy, self._generator())[0]
        return Sample(pair.cloudy, answer.float().cpu().numpy(), truth)

    def _samples(self, pairs: list[Pair]) -> list[Sample]:
        """Answer a few of the pairs, spread evenly."""
        count = min(SHOWN, len(pairs))
        return [self._sample(pairs[i * len(pairs) // count]) for i in range(count)]

    def _fixed_crops(self, sources: list[PairSource]) -> list[Pair]:
        """Return the same few crops every time, for runs without validation, which no step draws."""
        config, number = self.config, np.iinfo(np.int64).max
        batch = next(batches(sources, config.seed, config.crop, SHOWN, self._spectrum, number))
        crops = zip(batch.cloudy, batch.clear, strict=True)
        return [Pair(f"crop {i}", cloudy, clear, None) for i, (cloudy, clear) in enumerate(crops)]

    def _tensor(self, images: np.ndarray[Any, Any] | Tensor) -> Tensor:
        tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
        return tensor.to(self.device, memory_format=torch.channels_last)


def validation_pairs(source: PairSource, limit: int | None = None) -> list[Pair]:
    """Take the pairs of a source at its first scale, cut to a multiple of 32 px."""
    pairs = [held_in_memory(pair) for pair in source.pairs[0][:limit]]
    return [
        pair._replace(cloudy=cut_to_multiple(pair.cloudy), clear=cut_to_multiple(pair.clear))
        for pair in pairs
    ]


def _rate(step: int, config: RunConfig) -> float:
    """Return the factor of the learning rate: a warm-up, then a cosine from 1 to 0.01, or a constant."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _check_compiler() -> None:
    """Refuse to compile for a CPU where torch would find no compiler of C++."""
    name = os.environ.get("CXX") or ("cl" if os.name == "nt" else "g++")
    if shutil.which(name) is None:
        raise TrainingError(
            f"compiled = true needs a compiler of C++, and there is no {name}: install one, name it in CXX, "
            "or drop compiled"
        )


def _check_limits(minutes: float, cpu_minutes: float, loaders: int) -> None:
    """Refuse limits of time that several processes would reach at different steps."""
    if min(minutes, cpu_minutes) < math.inf and _processes() > 1:
        raise TrainingError("minutes are of one process, torchrun has started several: drop one of the two")
    if cpu_minutes < math.inf and loaders:
        raise TrainingError("cpu-minutes are of one process, loaders are others: drop one of the two")


def _check_sides(config: RunConfig, validation: list[Pair]) -> None:
    """Refuse images that the run's network cannot take."""
    side = config.reference.only_side
    for pair in validation:
        if side is not None and pair.cloudy.shape[1:] != (side, side):
            height, width = pair.cloudy.shape[1:]
            raise TrainingError(
                f"validation {pair.name} is {height} x {width} px, the network takes {side} x {side} alone: "
                f"set resize = {side} in [validation]"
            )


def _precision(name: str, device: torch.device) -> Any:
    """Compute in a precision, for a ``with``."""
    if pick_precision(name, device, training=True) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _is_shared() -> bool:
    return dist.is_available() and dist.is_initialized()


def _rank() -> int:
    """Return the number of this process, 0 for the one that validates and writes."""
    return dist.get_rank() if _is_shared() else 0


def _processes() -> int:
    return dist.get_world_size() if _is_shared() else 1


def _average_over_processes(tensors: list[Tensor]) -> None:
    """Replace each by its mean over all processes, in one exchange.

    Raises:
        TrainingError: Another process has ended, so that its connection broke.
    """
    if _processes() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    try:
        dist.all_reduce(flat)
    except RuntimeError as error:
        if not any(broken in str(error) for broken in BROKEN):
            raise
        raise TrainingError(
            "another process of this run has ended, and none goes on without it: its own lines say why, and "
            "the same call goes on from the last checkpoint"
        ) from error
    flat /= _processes()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, parts, strict=True):
        tensor.copy_(mean.view(tensor.shape))


def _mean_of_known(values: list[float]) -> float:
    """Average without NaN, to NaN where there is nothing else."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _psnr(error: np.ndarray[Any, Any]) -> float:
    """Return PSNR, dB; of no pixel NaN."""
    if not error.size:
        return math.nan
    return float(10 * np.log10(4 / max(float(np.square(error, dtype=np.float64).mean()), 1e-12)))
