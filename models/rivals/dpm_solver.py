"""DPM-Solver++ of order two (Lu et al. 2022), with the sigmoid schedule, as DiffCR samples.

No noise is drawn: all of it is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Table = NDArray[np.float64]

Estimate = Callable[[Tensor, float], Tensor]
"""Estimates the clear image from a noisy one, ``(B, C, H, W)``, and its label."""

STEPS, TRAIN_STEPS = 1000, 2000
"""Steps of the schedule that sampling and training cut into continuous time."""

LEAST_LAMBDA = -5.1
"""Steps whose ``log(alpha / sigma)`` is less are dropped."""

QUANTILE = 0.995
"""Quantile of the magnitudes of an estimate at which it is clipped."""


def sigmoid_abar(steps: int, start: float = -3.0, end: float = 3.0) -> Table:
    """Return ``abar`` at ``0, 1/N, .., 1``, ``(N + 1,)``: 1 to 0 by a sigmoid from ``start`` to ``end``."""
    u = np.linspace(0, 1, steps + 1)
    first, last = _sigmoid(np.array([start, end]))
    abar: Table = (last - _sigmoid(u * (end - start) + start)) / (last - first)
    return abar / abar[0]


def noise_at(times: Tensor) -> tuple[Tensor, Tensor]:
    """Look up how noisy training images are, and the labels under which sampling asks for such images.

    Between two steps of the training schedule ``abar`` is linear, so that uniform times draw it as the
    published training does. The label is the step, as in sampling; the published training uses ``abar``
    itself as the label, so that its networks are sampled with labels that they were not trained on.

    Args:
        times: ``(B,)`` in [0, 1], from the clear image to noise.

    Returns:
        ``abar`` and label, ``(B,)`` each.
    """
    abar = torch.as_tensor(sigmoid_abar(TRAIN_STEPS), dtype=times.dtype, device=times.device)
    places = times * TRAIN_STEPS
    before = places.floor().long().clamp(0, TRAIN_STEPS - 1)
    count = len(_sampled_log_alpha())
    labels = (1000 / count * (times * STEPS - 1)).clamp(min=0)
    return torch.lerp(abar[before], abar[before + 1], places - before), labels


def sigmoid_betas(steps: int) -> Table:
    """Return the variances of the steps, ``1 - abar_{i+1} / abar_i``, at most 0.999, ``(steps,)``."""
    abar = sigmoid_abar(steps)
    return np.minimum(1 - abar[1:] / abar[:-1], 0.999)


class DPMSolver:
    """A second-order multistep sampler from noise to the clear image.

    Args:
        steps: Steps from noise to almost none; there is one more estimate at the end.

    Raises:
        ValueError: ``steps`` is not positive.
    """

    def __init__(self, steps: int = 20) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        log_alpha = _sampled_log_alpha()
        count = len(log_alpha)
        times = np.linspace(1, 1 / count, steps + 1)
        self.log_alpha = np.interp(times, np.arange(1, count + 1) / count, log_alpha)
        self.log_sigma = _log_sigma(self.log_alpha)
        self.labels = [float(label) for label in 1000 * (times - 1 / count)]

    @torch.inference_mode()
    def __call__(
        self, noise: Tensor, estimate: Estimate, on_step: Callable[[int, Tensor], object] | None = None
    ) -> Tensor:
        """Sample the clear image from noise.

        Args:
            noise: Standard normal, ``(B, C, H, W)``.
            estimate: Returns the clear image of ``(B, C, H, W)`` and a label, same shape.
            on_step: Called with the number of every step and the image after it.

        Returns:
            The last estimate, ``(B, C, H, W)`` in [-1, 1].
        """
        x, before = noise, None
        for k in range(1, len(self.labels)):
            x0 = limited(estimate(x, self.labels[k - 1]))
            direction = x0
            if before is not None:
                ratio = self._stride(k) / (2 * self._stride(k - 1))
                direction = x0 + ratio * (x0 - before)
            x, before = self._step(x, direction, k), x0
            if on_step is not None:
                on_step(k, x)
        return limited(estimate(x, self.labels[-1]))

    def _step(self, x: Tensor, x0: Tensor, k: int) -> Tensor:
        """Return ``sigma_k / sigma_{k-1} x - alpha_k (e^{-h_k} - 1) x0``."""
        factor = math.exp(self.log_sigma[k] - self.log_sigma[k - 1])
        return factor * x - math.exp(self.log_alpha[k]) * math.expm1(-self._stride(k)) * x0

    def _stride(self, k: int) -> float:
        """Return ``h_k = lambda_k - lambda_{k-1}``, ``lambda = log(alpha / sigma)``."""
        return float(np.diff((self.log_alpha - self.log_sigma)[k - 1 : k + 1])[0])


def limited(x0: Tensor) -> Tensor:
    """Return ``clip(x0, -s, s) / s``.

    ``s`` is the 0.995 quantile of an image's magnitudes, at least 1.
    """
    magnitudes = x0.abs().flatten(1).float()
    s = torch.quantile(magnitudes, QUANTILE, dim=1).clamp(min=1).view(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-s, s) / s


def _sampled_log_alpha() -> Table:
    """Return ``log(alpha)`` of the steps that sampling keeps, from almost no noise to noise."""
    log_alpha: Table = 0.5 * np.log1p(-sigmoid_betas(STEPS)).cumsum()
    in_range = log_alpha - _log_sigma(log_alpha) >= LEAST_LAMBDA
    return log_alpha[: int(in_range.sum())]


def _sigmoid(x: Table) -> Table:
    return 1 / (1 + np.exp(-x))


def _log_sigma(log_alpha: Table) -> Table:
    return 0.5 * np.log(-np.expm1(2 * log_alpha))
