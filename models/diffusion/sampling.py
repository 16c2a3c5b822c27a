"""The way from noise to the clean image: DDIM as published, and the ancestral sampler of the paper.

No sampler draws noise: all of it is passed in, so that a result is a function of its arguments.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from decr_scene.models.diffusion.denoiser import WEIGHT_FLOOR, DEDenoiser, MicroBatched


class OnStep(Protocol):
    """Follows the steps: number, fused estimate and weight of each, ``(B, C, H, W)``."""

    def __call__(self, *, t: int, x0: Tensor, weight: Tensor) -> object:
        """Receive one step."""
        ...


BlendTiles = Callable[[Tensor], Tensor]
"""Makes the estimates of overlapping tiles, ``(B, C, H, W)``, one picture; the same shape."""


class DESampler:
    """DDIM with eta 0 on the fused estimate, as published; few steps may begin at the noised reference.

    Args:
        denoiser: Returns the fused estimate.
        steps: Number of calls of the denoiser; without ``start`` one that divides the schedule evenly.
        start: Step at which the run begins, from the noised reference; ``None``: from noise alone.

    Raises:
        ValueError: The schedule has no such steps.
    """

    def __init__(
        self, denoiser: DEDenoiser | MicroBatched, steps: int = 50, start: int | None = None
    ) -> None:
        self.denoiser = denoiser
        self.start = start
        self.pairs = denoiser.schedule.pairs(steps, start)

    @torch.inference_mode()
    def __call__(
        self,
        noise: Tensor,
        cloudy: Tensor,
        reference: Tensor,
        weight_floor: float = WEIGHT_FLOOR,
        on_step: OnStep | None = None,
        agree: BlendTiles | None = None,
    ) -> Tensor:
        """Sample the clean image from noise.

        Args:
            noise: Standard normal, ``(B, C, H, W)``.
            cloudy: Cloudy image in [-1, 1], ``(B, C, H, W)``.
            reference: First guess in [-1, 1], ``(B, C, H, W)``.
            weight_floor: Least weight of the reference, the paper's eta.
            on_step: Called after every step.
            agree: Is given the fused estimate at every step; the step is taken from what it makes of it.
                Where the images are tiles that see the same noise, they remain one picture then.

        Returns:
            The clean image, ``(B, C, H, W)`` in [-1, 1].
        """
        x_t, known = self.begin(noise, reference), None
        for t, s in self.pairs:
            x0, weight, _ = self.denoiser(x_t, t, cloudy, reference, weight_floor, known)
            known = weight if self.denoiser.steady else None
            if agree is not None:
                x0 = agree(x0)
            if on_step is not None:
                on_step(t=t, x0=x0, weight=weight)
            x_t = self.step(x_t, x0, t, s)
        return x_t

    def begin(self, noise: Tensor, reference: Tensor) -> Tensor:
        """Make the noisiest image ``(B, C, H, W)``: noise alone, or the reference as noisy as ``start``."""
        if self.start is None:
            return noise
        return self.denoiser.schedule.add_noise(reference, noise, self.start)

    def step(self, x_t: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        """Step to ``x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) eps``, ``(B, C, H, W)``, with the eps of t."""
        schedule = self.denoiser.schedule
        eps = schedule.eps_from_x0(x_t, x0, t)
        abar = schedule.abar(s)
        return math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps


class DDPMSampler:
    """The ancestral sampler of the paper: eq. 13 and 14 with the fused estimate.

    Args:
        denoiser: Returns the fused estimate.
        steps: Number of calls of the denoiser; one that divides the schedule evenly.

    Raises:
        ValueError: The schedule has no such steps.
    """

    def __init__(self, denoiser: DEDenoiser, steps: int = 1000) -> None:
        self.denoiser = denoiser
        self.pairs = denoiser.schedule.pairs(steps)

    @torch.inference_mode()
    def __call__(
        self,
        noise: Tensor,
        noise_at: Callable[[int], Tensor],
        cloudy: Tensor,
        reference: Tensor,
        weight_floor: float = WEIGHT_FLOOR,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sample the clean image from noise.

        Args:
            noise: Standard normal to begin with, ``(B, C, H, W)``.
            noise_at: Returns standard normal noise of that shape for the step that leaves ``t``; not called
                for the last.
            cloudy: Cloudy image in [-1, 1], ``(B, C, H, W)``.
            reference: First guess in [-1, 1], ``(B, C, H, W)``.
            weight_floor: Least weight of the reference, the paper's eta.
            on_step: Called after every step.

        Returns:
            The clean image, ``(B, C, H, W)`` in [-1, 1].
        """
        x_t = noise
        for t, s in self.pairs:
            x0, weight, _ = self.denoiser(x_t, t, cloudy, reference, weight_floor)
            if on_step is not None:
                on_step(t=t, x0=x0, weight=weight)
            x_t = self.step(x_t, x0, t, s, noise_at(t) if s >= 0 else None)
        return x_t

    def step(self, x_t: Tensor, x0: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
        """Return ``x_s = mean(x_t, x0) + sqrt(beta~) noise``, ``(B, C, H, W)``, the mean without noise."""
        mean, variance = self.denoiser.schedule.posterior(x0, x_t, t, s)
        return mean if noise is None else mean + math.sqrt(variance) * noise
