"""From a noisy image to an estimate of the clean one: the network's answer, fused with the first guess."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from decr_scene.models.diffusion.schedule import Schedule
from decr_scene.models.diffusion.smoothing import smoothed

WEIGHT_FLOOR = 0.3
"""Least weight of the reference as published, the paper's eta."""


class Network(Protocol):
    """Noise and raw weight, float32 ``(B, C, H, W)`` each, of a noisy image."""

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor | int,
        cloudy: Tensor,
        reference: Tensor,
        weight: Tensor | None = None,
        /,
    ) -> tuple[Tensor, Tensor]:
        """Return ``(eps, raw weight)``; a ``weight`` that is given as it is."""
        ...


class Denoised(NamedTuple):
    """What the denoiser makes of a noisy image, ``(B, C, H, W)`` each."""

    x0: Tensor
    """The clean estimate, fused."""
    weight: Tensor
    """How far the reference is trusted, in [floor, 1]."""
    x0_eps: Tensor
    """The diffusion's own estimate, clipped to [-1, 1], before the fusion."""


class DEDenoiser:
    """``x0 = W reference + (1 - W) clip(x0_eps, -1, 1)`` with ``W = clip(raw, floor, 1)``.

    With ``texture`` the diffusion gives the detail alone: ``x0 = reference + (1 - W) (d - G d)`` of its
    difference ``d = clip(x0_eps, -1, 1) - reference``, smoothed by a Gaussian ``G``. What is coarser the
    reference, a regression, estimates better: sampled, it shows as blotches.

    Args:
        network: Predicts the noise and the raw weight.
        schedule: The one that the network was trained with.
        texture: Standard deviation of that Gaussian, px; 0: the diffusion gives all.
        steady: The network's weight is the same at all steps.
    """

    def __init__(
        self, network: Network, schedule: Schedule, texture: float = 0.0, steady: bool = False
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.texture = texture
        self.steady = steady

    def __call__(
        self,
        x_t: Tensor,
        t: int,
        cloudy: Tensor,
        reference: Tensor,
        weight_floor: float = WEIGHT_FLOOR,
        weight: Tensor | None = None,
    ) -> Denoised:
        """Estimate the clean image.

        All images are ``(B, C, H, W)``, ``cloudy`` and ``reference`` in [-1, 1]. ``weight`` is that of an
        earlier step, of a network whose weight is ``steady``.

        Raises:
            ValueError: ``weight_floor`` is not in [0, 1].
        """
        if not 0 <= weight_floor <= 1:
            raise ValueError(f"weight_floor must be in [0, 1], got {weight_floor:g}")
        seen = x_t, int(self.schedule.timestep_map[t]), cloudy, reference
        eps, raw = self.network(*seen) if weight is None else self.network(*seen, weight)
        x0_eps = self.schedule.x0_from_eps(x_t, eps, t).clamp(-1, 1)
        weight = raw.clamp(weight_floor, 1)
        if self.texture:
            change = x0_eps - reference
            detail = change - smoothed(change, change.new_full((len(change),), self.texture), self.texture)
            return Denoised((reference + (1 - weight) * detail).clamp(-1, 1), weight, x0_eps)
        return Denoised(weight * reference + (1 - weight) * x0_eps, weight, x0_eps)


class MicroBatched:
    """A denoiser that computes a few images of a batch at a time, so that memory suffices.

    Their number is constant: the last ones are filled up with copies, as libraries compute another shape in
    another order.

    Args:
        denoiser: The denoiser.
        size: Images at a time.
    """

    def __init__(self, denoiser: DEDenoiser, size: int) -> None:
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.steady = denoiser.steady
        self.size = size

    def __call__(
        self,
        x_t: Tensor,
        t: int,
        cloudy: Tensor,
        reference: Tensor,
        weight_floor: float = WEIGHT_FLOOR,
        weight: Tensor | None = None,
    ) -> Denoised:
        """Estimate the clear image as `DEDenoiser`, ``(B, C, H, W)``."""
        count = len(x_t)
        images = [x_t, cloudy, reference] + ([] if weight is None else [weight])
        split = [torch.split(self._filled_up(image), self.size) for image in images]
        parts = [
            self.denoiser(x, t, y, guess, weight_floor, *known)
            for x, y, guess, *known in zip(*split, strict=True)
        ]
        return Denoised(*(torch.cat(images)[:count] for images in zip(*parts, strict=True)))

    def _filled_up(self, images: Tensor) -> Tensor:
        missing = -len(images) % self.size
        return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
