"""How weights follow their gradients: AdamW, Muon for what mixes features and AdamW for the rest, or Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

ADAMW, MUON, ADAM = OPTIMISERS = ("adamw", "muon", "adam")

BETAS = (0.5, 0.999)
"""Of plain Adam, as adversarial networks take it."""

LEAST_SIDE = 20
"""Least smaller side of a weight that Muon trains, which leaves out those from features to bands."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial whose iteration moves singular values to about one (K. Jordan, 2024)."""

ITERATIONS = 5


def build_optimisers(
    kind: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Build the optimisers of a run, of a ``kind`` of `OPTIMISERS`, for disjoint parts of the parameters."""
    parameters = list(parameters)
    if kind == ADAM:
        return [torch.optim.Adam(parameters, learning_rate, BETAS, weight_decay=weight_decay)]
    matrices = [p for p in parameters if kind == MUON and _is_matrix(p)]
    taken = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in taken]
    optimisers: list[torch.optim.Optimizer] = []
    if rest:
        optimisers.append(torch.optim.AdamW(rest, learning_rate, weight_decay=weight_decay))
    if matrices:
        optimisers.append(Muon(matrices, learning_rate, weight_decay))
    return optimisers


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, so that every direction of a weight is learned at one pace.

    ``B = mu B + g``, then ``W -= lr (0.2 sqrt(max(m, n)) NS(g + mu B) + wd W)`` (Jordan 2024; the factor is
    that of Liu et al. 2025, by which a step is as large as AdamW's and takes its learning rate). A
    convolution is the matrix of its output channels by all else. `torch.optim.Muon` takes no convolutions,
    and iterates in bf16, which is four times slower on a processor that has none.
    """

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all weights that have a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for weights in _alike([weight for weight in group["params"] if weight.grad is not None]):
                self._move(weights, group)
        return None

    def _move(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Move weights of one shape together: a GPU takes as long for one matrix as for twenty."""
        directions = []
        for weight in weights:
            assert weight.grad is not None
            gradient, state = weight.grad.flatten(1), self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"]
            momentum.mul_(group["momentum"]).add_(gradient)
            directions.append(gradient.add(momentum, alpha=group["momentum"]))
        pace = 0.2 * max(directions[0].shape) ** 0.5
        for weight, direction in zip(weights, orthogonal(torch.stack(directions)), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(direction.reshape(weight.shape), alpha=group["lr"] * pace)


def _alike(weights: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group weights on a GPU by their shapes, and on a CPU each by itself."""
    groups: dict[Any, list[nn.Parameter]] = {}
    for number, weight in enumerate(weights):
        groups.setdefault(weight.shape if weight.is_cuda else number, []).append(weight)
    return list(groups.values())


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate ``U V^T`` of ``matrix = U S V^T``, ``(.., M, N)``.

    Zeros stay zeros. Each iteration is ``X <- P X`` with ``P = a + b G + c G^2`` of ``G = X X^T``. So
    ``G <- P G P``, and only the product of all ``P`` needs be kept: matrices of the smaller side alone.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    gram = x @ x.mT
    unit = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    whole = unit
    for _ in range(ITERATIONS):
        factor = a * unit + b * gram + c * (gram @ gram)
        gram, whole = factor @ gram @ factor, factor @ whole
    x = whole @ x
    return x.mT if tall else x


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter.numel() // len(parameter)) >= LEAST_SIDE
