"""What each stage learns: its modules, its loss, its answer on a validation image.

The losses follow the published code (which is the paper's equations with their misprints mended): the noise
network learns from the error of its noise, the weight network from the L1 error of the fused image, and
neither gradient reaches the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decr_scene.models.diffusion.denoiser import WEIGHT_FLOOR, DEDenoiser
from decr_scene.models.diffusion.sampling import DESampler
from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.diffusion.smoothing import smoothed
from decr_scene.models.networks.detector import DetectorConfig, build_detector
from decr_scene.models.networks.noise_network import NoiseNetwork
from decr_scene.models.networks.reference import build_reference
from decr_scene.models.training.config import RunConfig

CLIP = 1.0
"""Greatest norm of the gradient of our own stages."""

CHARBONNIER = 1e-3
"""Differences well below this, of the 2 units from black to white, count by their square."""

SAME = 0.5 / 127.5
"""Half a DN of 255: truth and cloudy image of clear ground do not differ by more."""

LEAST_CLEAR = 500.0
"""Clear pixels of a crop below which its shift counts for less."""

LOG_FLOOR = 1e-4
"""Added to a mean square before its logarithm, so that little is gained by more than 46 dB."""

SQUARE = 7
"""Side of the windows of the similarity, px."""

UNGUIDED = 0.1
"""Share of the images whose first guess the noise network does not see, so that it also works without."""

UNGUIDED_GROWN = 0.25
"""The same of a grown network, which has a first guess of its own, so that it does not unlearn that."""

BLURRED = 0.25
"""Share of the images whose first guess is blurred for the noise network."""

LEAST_BLUR, MOST_BLUR = 0.3, 1.5
"""Bounds of the standard deviation of that blur, px."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of one share of a batch: the very ones that its images get in the whole batch.

    Args:
        generator: In the same state for every share.
        first: Place of the share's first image in the batch.
        batch: Images of the whole batch; ``None``: the share is all of it.
    """

    generator: torch.Generator
    first: int = 0
    batch: int | None = None

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers of the shape of ``(B, ..)``, on its device."""
        shape = (self.batch or len(like), *like.shape[1:])
        whole = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return self._share(whole, like)

    def steps(self, limit: int, like: Tensor) -> Tensor:
        """Draw a step from 0 to ``limit - 1`` for every image, ``(B,)``."""
        count = (self.batch or len(like),)
        whole = torch.randint(0, limit, count, generator=self.generator, device=self.generator.device)
        return self._share(whole, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw a number from 0 to 1 for every image, ``(B,)``."""
        count = (self.batch or len(like),)
        return self._share(torch.rand(count, generator=self.generator, device=self.generator.device), like)

    def of_parts(self, count: int) -> Draws:
        """Draw for images that are each cut into ``count`` parts."""
        return Draws(self.generator, self.first * count, None if self.batch is None else self.batch * count)

    def step(self, low: int, high: int) -> int:
        """Draw one step for the whole batch, ``low`` to ``high - 1``."""
        return int(torch.randint(low, high, (), generator=self.generator, device=self.generator.device))

    def _share(self, whole: Tensor, like: Tensor) -> Tensor:
        return whole[self.first : self.first + len(like)].to(like.device)


class Objective(Protocol):
    """One stage of training."""

    modules: nn.ModuleDict
    """Everything that belongs into the checkpoint, by the names of a model file."""

    @property
    def clip(self) -> float | None:
        """Return the greatest norm of the gradient, or ``None`` for any."""
        ...

    def trained(self) -> list[nn.Parameter]:
        """List the parameters that this stage changes: by default all."""
        return list(self.modules.parameters())

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the losses by name, whose sum is minimised.

        Args:
            cloudy: ``(B, C, H, W)`` in [-1, 1].
            clear: The truth, same shape.
            draws: All randomness comes from here.
            context: As `PlainUNet.forward` takes it, for the reference.
        """
        ...

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the stage's clear image for a cloudy one, ``(B, C, H, W)`` in [-1, 1], for validation.

        Args:
            modules: The networks that answer, by the names of the objective's: those in training, or their
                moving averages.
            cloudy: ``(B, C, H, W)`` in [-1, 1].
            generator: All randomness comes from here.
        """
        ...


def charbonnier(error: Tensor) -> Tensor:
    """Return ``mean sqrt(error^2 + eps^2)``, a scalar, eps 1e-3."""
    return torch.sqrt(error.square() + CHARBONNIER**2).mean()


def log_mse(error: Tensor) -> Tensor:
    """Return ``mean log(MSE + 1e-4)`` over images ``(B, C, H, W)``, a scalar: PSNR but for sign and scale."""
    return torch.log(error.square().mean(dim=(1, 2, 3)) + LOG_FLOOR).mean()


def shift_of_clear(answer: Tensor, cloudy: Tensor, clear: Tensor) -> Tensor:
    """Measure how far clear ground's mean moves: ``|mean (E(y) - y)|`` by image and band, then averaged.

    Clear ground is where the truth is the cloudy image itself; all are ``(B, C, H, W)``.
    """
    is_clear = ((clear - cloudy).abs().amax(dim=1, keepdim=True) < SAME).float()
    moved = ((answer - cloudy) * is_clear).sum(dim=(2, 3)) / is_clear.sum(dim=(2, 3)).clamp(min=LEAST_CLEAR)
    return moved.abs().mean()


def dissimilarity(answer: Tensor, clear: Tensor) -> Tensor:
    """Return ``1 - SSIM`` of images ``(B, C, H, W)`` in [-1, 1], a scalar: mean over squares of `SQUARE` px.

    Wang et al. 2004, with uniform windows and the usual constants, ``(0.01 L)^2`` and ``(0.03 L)^2``,
    ``L = 2``.
    """
    one, other = answer + 1, clear + 1
    mean, mean_other = (F.avg_pool2d(image, SQUARE, 1) for image in (one, other))
    unbiased = SQUARE**2 / (SQUARE**2 - 1)
    spread = F.avg_pool2d(one.square() + other.square(), SQUARE, 1) - mean.square() - mean_other.square()
    shared = F.avg_pool2d(one * other, SQUARE, 1) - mean * mean_other
    light = (2 * mean * mean_other + 0.02**2) / (mean.square() + mean_other.square() + 0.02**2)
    return 1 - (light * (2 * unbiased * shared + 0.06**2) / (unbiased * spread + 0.06**2)).mean()


def degraded(guess: Tensor, draws: Draws, unguided: float = UNGUIDED) -> Tensor:
    """Degrade first guesses ``(B, C, H, W)`` for the noise network: blur some, and set some to zeros.

    On ground that the reference was trained on, its guess is better than on any other; a noise network that
    sees no worse ones would add no texture to them (conditioning augmentation, Ho et al. 2022).
    """
    sigma = LEAST_BLUR + draws.uniform(guess) * (MOST_BLUR - LEAST_BLUR)
    sigma = torch.where(draws.uniform(guess) < BLURRED, sigma, 0)
    seen = (draws.uniform(guess) >= unguided).to(guess.dtype)
    return smoothed(guess, sigma, MOST_BLUR) * seen[:, None, None, None]


def parts_of(images: Tensor, side: int) -> Tensor:
    """Cut images ``(B, C, H, W)`` into squares, ``(B H W / side^2, C, side, side)``, image by image."""
    count, bands, height, width = images.shape
    cut = images.reshape(count, bands, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, bands, side, side)


DISTANCES = {"charbonnier": charbonnier, "log_mse": log_mse}


class ReferenceObjective(Objective):
    """Distance between the first guess and the clear image, by the run's ``loss``."""

    clip = CLIP

    def __init__(self, config: RunConfig) -> None:
        self.loss = config.loss
        self.steady = config.steady
        self.similar = config.similar
        self.modules = nn.ModuleDict({"reference": build_reference(config.reference)})

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the run's loss of ``E(y) - x0``, and the shift of clear ground where it has a weight."""
        answer = self.modules["reference"](cloudy, context).float()
        losses = {self.loss: DISTANCES[self.loss](answer - clear)}
        if self.steady:
            losses["shift"] = self.steady * shift_of_clear(answer, cloudy, clear)
        if self.similar:
            losses["dissimilarity"] = self.similar * dissimilarity(answer, clear)
        return losses

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Return the first guess, ``(B, C, H, W)`` in [-1, 1]."""
        return guess_of(modules, cloudy)


class EnhancementObjective(Objective):
    """Stages 1 to 3 of DE: the noise network (eq. 7), the weight network (eq. 16), or both (eq. 17)."""

    clip = CLIP

    def __init__(self, config: RunConfig, validation_steps: int = 5) -> None:
        assert config.network is not None, "RunConfig has checked this"
        self.stage = config.stage
        self.part = config.part
        self.early = config.early
        self.on_path = config.on_path
        self.latest_start = config.latest_start
        self.start = config.latest_start if config.on_path else None
        self.texture = 0.0
        self.distance = DISTANCES[config.loss]
        self.modules = nn.ModuleDict({"network": NoiseNetwork(config.network)})
        if self.stage != "diffusion" or config.network.guided:
            self.modules["reference"] = build_reference(config.reference).requires_grad_(False)
        self.schedule = Schedule()
        self.validation_steps = validation_steps

    def trained(self) -> list[nn.Parameter]:
        """List the parameters of the noise network, the weight network, or both."""
        network = self.modules["network"]
        parts = {"diffusion": ["noise"], "weight": ["weight"], "joint": ["noise", "weight"]}[self.stage]
        return [p for part in parts for p in network.get_submodule(f"{part}_net").parameters()]

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return noise loss and fusion loss, whichever the stage has."""
        if self.on_path:
            return self._losses_on_path(cloudy, clear, draws, context)
        if self.stage == "diffusion":
            return {"noise": self._noise_loss(cloudy, clear, draws, context)}
        network, schedule = self.network, self.schedule
        t = draws.steps(schedule.timesteps, clear)
        noise = draws.normal(clear)
        x_t = schedule.add_noise(clear, noise, t)
        losses, guess = {}, guess_of(self.modules, cloudy, context)
        with torch.set_grad_enabled(self.stage != "weight"):
            predicted = network.predict(x_t, t, cloudy, guess)
        if self.stage != "weight":
            losses["noise"] = F.mse_loss(predicted, network.target(clear, noise, t, cloudy, guess))
        with torch.no_grad():
            x0 = schedule.x0_from_eps(x_t, network.eps_from(predicted, x_t, t, cloudy, guess), t)
        losses["fusion"] = self._fusion_loss(x_t, t, x0.clamp(-1, 1), cloudy, clear, guess)
        return losses

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: torch.Generator) -> Tensor:
        """Sample in a few steps, from where the training's runs begin, ``(B, C, H, W)`` in [-1, 1].

        In stage 1, which has no weight network yet, the reference has no weight.
        """
        noise = torch.randn(cloudy.shape, generator=generator, device=generator.device).to(cloudy.device)
        floor = 0.0 if self.stage == "diffusion" else WEIGHT_FLOOR
        guess = guess_of(modules, cloudy) if "reference" in modules else cloudy
        steps = self.validation_steps if self.start is None else min(self.validation_steps, self.start)
        denoiser = DEDenoiser(modules["network"], self.schedule, self.texture)
        result: Tensor = DESampler(denoiser, steps, self.start)(noise, cloudy, guess, weight_floor=floor)
        return result

    @property
    def network(self) -> NoiseNetwork:
        """Return the noise and weight network."""
        network = self.modules["network"]
        assert isinstance(network, NoiseNetwork)
        return network

    def _noise_loss(self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None) -> Tensor:
        """Compute eq. 7 over parts of the crops, each with its own noise and step."""
        images = [cloudy, clear]
        if "reference" in self.modules:
            unguided = UNGUIDED if self.network.config.grown is None else UNGUIDED_GROWN
            images.append(degraded(guess_of(self.modules, cloudy, context), draws, unguided))
        if self.part:
            draws = draws.of_parts((cloudy.shape[-1] // self.part) * (cloudy.shape[-2] // self.part))
            images = [parts_of(image, self.part) for image in images]
        cloudy, clear, *guess = images
        t = draws.steps(self.schedule.timesteps, clear)
        early = draws.steps(self.latest_start, clear)
        t = torch.where(draws.uniform(clear) < self.early, early, t)
        noise = draws.normal(clear)
        x_t = self.schedule.add_noise(clear, noise, t)
        predicted = self.network.predict(x_t, t, cloudy, *guess)
        return F.mse_loss(predicted, self.network.target(clear, noise, t, cloudy, *guess))

    def _losses_on_path(
        self, cloudy: Tensor, clear: Tensor, draws: Draws, context: Tensor | None
    ) -> dict[str, Tensor]:
        """Compute the losses at two steps of one sampling run, from the noised first guess on.

        The weight network's is eq. 16, with the run's ``loss`` in the place of L1. The noise network's, in
        the joint stage, is the same of the x0 that its noise implies: such an image has no noise of its own
        to compare with.

        The published stage noises the truth. At late steps such an image shows the truth itself, so the
        weight network learns to trust the diffusion there, and in sampling, where the image shows no more
        than the first guess, it trusts its leftover noise.
        """
        guess = guess_of(self.modules, cloudy, context)
        noise = draws.normal(clear)
        first = draws.step(2, self.latest_start)
        second = draws.step(0, first)
        x_t = self.schedule.add_noise(guess, noise, first)
        losses, x0 = {}, guess
        for suffix, t in (("", first), ("_later", second)):
            if suffix:
                x_t = self.schedule.add_noise(x0, self.schedule.eps_from_x0(x_t, x0, first), t)
            with torch.set_grad_enabled(self.stage != "weight"):
                eps = self.network.noise(x_t, t, cloudy, guess)
                x0_eps = self.schedule.x0_from_eps(x_t, eps, t)
            if self.stage != "weight":
                losses["noise" + suffix] = self.distance(x0_eps - clear)
            x0_eps = x0_eps.detach().clamp(-1, 1)
            weight = self.network.weight(x_t, t, cloudy, guess)
            fused = weight * guess + (1 - weight) * x0_eps
            losses["fusion" + suffix] = self.distance(fused - clear)
            floored = weight.detach().clamp(WEIGHT_FLOOR, 1)
            x0 = floored * guess + (1 - floored) * x0_eps
        return losses

    def _fusion_loss(
        self,
        x_t: Tensor,
        t: Tensor,
        x0_eps: Tensor,
        cloudy: Tensor,
        clear: Tensor,
        guess: Tensor,
    ) -> Tensor:
        """Return ``mean |x0 - (1 - W) x0_eps - W x0_E|`` (eq. 16) with x0_eps clipped and W free."""
        weight = self.network.weight(x_t, t, cloudy, guess).float()
        return F.l1_loss(weight * guess + (1 - weight) * x0_eps, clear)


@torch.no_grad()
def guess_of(modules: nn.ModuleDict, cloudy: Tensor, context: Tensor | None = None) -> Tensor:
    """Return the first guess of the ``reference`` among the modules, float32 in [-1, 1]."""
    guess: Tensor = modules["reference"](cloudy, context).float().clamp(-1, 1)
    return guess


class DetectorObjective(Objective):
    """Binary cross-entropy, pixel by pixel; the batches have labels in the place of clear images."""

    clip = CLIP

    def __init__(self, config: DetectorConfig) -> None:
        self.modules = nn.ModuleDict({"detector": build_detector(config)})

    def losses(
        self, cloudy: Tensor, clear: Tensor, draws: object, context: object = None
    ) -> dict[str, Tensor]:
        """Return the mean over the pixels that count.

        Here ``clear`` holds labels, ``(B, 3, H, W)``.
        """
        answers, counts = clear[:, :2], clear[:, 2:]
        logits = self.modules["detector"](cloudy).float()
        loss = F.binary_cross_entropy_with_logits(logits, answers, weight=counts, reduction="none")
        restore, cloud = loss.sum((0, 2, 3)) / counts.sum().clamp(min=1)
        return {"restore": restore, "cloud": 0.5 * cloud}

    def answer(self, modules: nn.ModuleDict, cloudy: Tensor, generator: object) -> Tensor:
        """Return the probabilities ``(B, 2, H, W)``."""
        return modules["detector"](cloudy).float().sigmoid()
