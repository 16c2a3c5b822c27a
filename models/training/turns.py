"""What a run trains: the objective of its stage, and the parts of its parameters that learn in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from decr_scene.models.training.config import RunConfig
from decr_scene.models.training.objectives import (
    DetectorObjective,
    Draws,
    EnhancementObjective,
    Objective,
    ReferenceObjective,
)
from decr_scene.models.training.optimisers import ADAM
from decr_scene.models.training.painting import PaintingObjective
from decr_scene.models.training.rivals import AdversarialObjective, ConditionalObjective, VariationalObjective


def build_objective(config: RunConfig) -> Objective:
    """Build the objective of a run's stage, with fresh weights."""
    if config.detector is not None and config.stage == "detector":
        return DetectorObjective(config.detector)
    if config.critic is not None:
        return PaintingObjective(config)
    of_stage: dict[str, Callable[[RunConfig], Objective]] = {
        "reference": ReferenceObjective,
        "adversarial": AdversarialObjective,
        "variational": VariationalObjective,
        "conditional": ConditionalObjective,
    }
    return of_stage.get(config.stage, EnhancementObjective)(config)


class Turn(NamedTuple):
    """Parameters that learn together, and the losses that they learn from."""

    trained: list[nn.Parameter]
    losses: Callable[[Tensor, Tensor, Draws, Tensor | None], dict[str, Tensor]]
    optimiser: str | None = None
    """Of these parameters; ``None``: the run's."""
    pace: float = 0.0
    """Their learning rate over that of the run, the same at every step; 0: they follow the run's schedule."""


def turns_of(objective: Objective) -> list[Turn]:
    """List the parts that are trained in turn on every batch: an opponent first, where there is one."""
    own = Turn(objective.trained(), objective.losses)
    if isinstance(objective, AdversarialObjective):
        return [Turn(objective.opponent(), objective.opponent_losses), own]
    if isinstance(objective, PaintingObjective):
        return [Turn(objective.opponent(), objective.opponent_losses, ADAM, objective.critic.pace), own]
    return [own]
