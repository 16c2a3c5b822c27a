"""The noise schedule: betas -> alphas_cumprod, chosen timesteps, x0 <-> eps."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Table = NDArray[np.float64]

TRAIN_STEPS = 1000


def linear_betas(steps: int = TRAIN_STEPS, first: float = 1e-4, last: float = 0.02) -> Table:
    """Space the variances ``beta_t`` of the forward process evenly, ``first`` to ``last``, ``(steps,)``."""
    return np.linspace(first, last, steps, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Schedule:
    """``x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise`` with ``abar`` the running product of ``1 - beta``.

    All tables are float64 and meet the images as float32. A step ``t`` is an index of the tables, one
    number or, where a batch is spread over steps, ``(B,)``; ``s < t`` is the step after it on the way down,
    and ``s = -1`` means the clean image, ``abar = 1``.

    Args:
        betas: Variances of the forward process, ``(T,)``, in (0, 1).
        timestep_map: The step number for the network at each step, ``(T,)``.

    Raises:
        ValueError: A beta is out of range, or the two lengths differ.
    """

    betas: Table = field(default_factory=linear_betas)
    timestep_map: NDArray[np.int64] = field(default_factory=lambda: np.arange(TRAIN_STEPS))

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or not ((self.betas > 0) & (self.betas < 1)).all():
            raise ValueError("betas must be numbers between 0 and 1, both excluded")
        if len(self.betas) != len(self.timestep_map):
            lengths = f"{len(self.betas)} betas, a timestep_map of {len(self.timestep_map)}"
            raise ValueError(f"{lengths}: make them as many")

    @property
    def timesteps(self) -> int:
        """Return the number of steps, T."""
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Table:
        """Return ``abar_t = prod_{i<=t} (1 - beta_i)``, ``(T,)``."""
        return (1 - self.betas).cumprod()

    @cached_property
    def alphas_cumprod_prev(self) -> Table:
        """Return ``abar_{t-1}``, ``(T,)``, with 1 before the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def sqrt_alphas_cumprod(self) -> Table:
        """Return ``sqrt(abar_t)``, ``(T,)``: how much of the image is left."""
        return np.sqrt(self.alphas_cumprod)

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Table:
        """Return ``sqrt(1 - abar_t)``, ``(T,)``: how much noise there is."""
        return np.sqrt(1 - self.alphas_cumprod)

    @cached_property
    def sqrt_recip_alphas_cumprod(self) -> Table:
        """Return ``sqrt(1 / abar_t)``, ``(T,)``."""
        return np.sqrt(1 / self.alphas_cumprod)

    @cached_property
    def sqrt_recipm1_alphas_cumprod(self) -> Table:
        """Return ``sqrt(1 / abar_t - 1)``, ``(T,)``."""
        return np.sqrt(1 / self.alphas_cumprod - 1)

    @cached_property
    def posterior_variance(self) -> Table:
        """Return ``beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t)``, ``(T,)``, zero at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Table:
        """Return ``log beta~_t``, ``(T,)``, with that of t = 1 at t = 0, where there is none."""
        return np.log(np.append(self.posterior_variance[1:2], self.posterior_variance[1:]))

    @cached_property
    def posterior_mean_coef1(self) -> Table:
        """Return the posterior mean's factor of x0, ``beta_t sqrt(abar_{t-1}) / (1 - abar_t)``, ``(T,)``."""
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Table:
        """Return that of x_t, ``(1 - abar_{t-1}) sqrt(1 - beta_t) / (1 - abar_t)``, ``(T,)``."""
        return (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)

    def respaced(self, steps: int) -> "Schedule":
        """Take every n-th step, ``steps`` of them, the first of all included.

        New betas ``1 - abar_i / abar_prev`` over the kept steps keep ``abar`` where it was; ``timestep_map``
        holds the step numbers for the network.

        Raises:
            ValueError: No whole stride gives this number of steps.
        """
        steps_kept = np.arange(0, self.timesteps, self._stride(steps))
        abar = self.alphas_cumprod[steps_kept]
        return Schedule(1 - abar / np.append(1.0, abar[:-1]), self.timestep_map[steps_kept])

    def pairs(self, steps: int, start: int | None = None) -> list[tuple[int, int]]:
        """List the way down as ``(t, s)``, from the noisiest step to ``s = -1``.

        Args:
            steps: Number of pairs.
            start: Where to begin; the steps are then ``start * k / steps``, rounded, k = steps..1.
                Without it every n-th step is taken as in :meth:`respaced`, step 0 included.

        Returns:
            ``[(t, s), (s, ..), .., (.., -1)]``.

        Raises:
            ValueError: No whole stride gives this number, or there is no room for it below ``start``.
        """
        times = self._every_nth(steps) if start is None else self._from_start(start, steps)
        return list(zip(times, [*times[1:], -1], strict=True))

    def _every_nth(self, steps: int) -> list[int]:
        return list(range(0, self.timesteps, self._stride(steps)))[::-1]

    def _from_start(self, start: int, steps: int) -> list[int]:
        if not 1 <= start < self.timesteps:
            raise ValueError(f"start must be in [1, {self.timesteps - 1}], got {start}")
        if not 1 <= steps <= start:
            raise ValueError(f"steps from start {start} must be in [1, {start}], got {steps}")
        return [round(start * k / steps) for k in range(steps, 0, -1)]

    def _stride(self, steps: int) -> int:
        """Find the smallest stride n with ``len(range(0, T, n)) == steps``."""
        total = self.timesteps
        possible = {-(-total // stride): stride for stride in range(total, 0, -1)}
        if steps in possible:
            return possible[steps]
        near = [
            max((n for n in possible if n < steps), default=0),
            min((n for n in possible if n > steps), default=0),
        ]
        names = " or ".join(str(n) for n in near if n)
        raise ValueError(f"{steps} steps do not divide the schedule of {total} evenly: take {names}")

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """Return ``x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise``, ``(B, C, H, W)``."""
        signal = _look_up(self.sqrt_alphas_cumprod, t, x0)
        return signal * x0 + _look_up(self.sqrt_one_minus_alphas_cumprod, t, x0) * noise

    def x0_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor | int) -> Tensor:
        """Return ``x0 = sqrt(1/abar_t) x_t - sqrt(1/abar_t - 1) eps``, ``(B, C, H, W)``."""
        recip = _look_up(self.sqrt_recip_alphas_cumprod, t, x_t)
        return recip * x_t - _look_up(self.sqrt_recipm1_alphas_cumprod, t, x_t) * eps

    def eps_from_x0(self, x_t: Tensor, x0: Tensor, t: Tensor | int) -> Tensor:
        """Return ``eps = (sqrt(1/abar_t) x_t - x0) / sqrt(1/abar_t - 1)``, ``(B, C, H, W)``."""
        recip = _look_up(self.sqrt_recip_alphas_cumprod, t, x_t)
        return (recip * x_t - x0) / _look_up(self.sqrt_recipm1_alphas_cumprod, t, x_t)

    def posterior(self, x0: Tensor, x_t: Tensor, t: int, s: int) -> tuple[Tensor, float]:
        """Return mean ``(B, C, H, W)`` and variance of ``q(x_s | x_t, x0)``, eq. 13 over any gap of steps.

        With ``alpha = abar_t / abar_s``: mean ``= sqrt(abar_s) (1 - alpha) / (1 - abar_t) x0 + sqrt(alpha)
        (1 - abar_s) / (1 - abar_t) x_t``, variance ``= (1 - alpha) (1 - abar_s) / (1 - abar_t)``.
        """
        abar_t, abar_s = self.abar(t), self.abar(s)
        alpha, rest = abar_t / abar_s, 1 - abar_t
        mean = math.sqrt(abar_s) * (1 - alpha) / rest * x0 + math.sqrt(alpha) * (1 - abar_s) / rest * x_t
        return mean, (1 - alpha) * (1 - abar_s) / rest

    def abar(self, t: int) -> float:
        """Return ``abar_t``, 1 for ``t = -1``."""
        return 1.0 if t < 0 else float(self.alphas_cumprod[t])


def _look_up(table: Table, t: Tensor | int, like: Tensor) -> Tensor | float:
    """Look up a table at ``t``: a number, or float32 ``(B, 1, 1, 1)`` for ``(B,)``."""
    if isinstance(t, int):
        return float(table[t])
    return torch.from_numpy(table).to(like.device)[t].float()[:, None, None, None]
