"""What was done, as it stands in the JSON file beside the output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from decr_scene.pipeline.raster.bands import label
from decr_scene.pipeline.restoration.options import Options
from decr_scene.pipeline.restoration.plan import ScenePlan


@dataclass(frozen=True)
class Report:
    """What was done, as it stands in the JSON file beside the output."""

    program: dict[str, str]
    input: dict[str, Any]
    product: dict[str, Any]
    output: dict[str, Any]
    beside: dict[str, str]
    model: dict[str, Any]
    parameters: dict[str, Any]
    scaling: dict[str, list[float]]
    tiles: dict[str, int]
    seconds: dict[str, float]
    checks: dict[str, bool]
    verification: dict[str, Any]
    warnings: list[str]
    clouds: dict[str, float] | None = None

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def parameters_of(options: Options) -> dict[str, Any]:
    """What the report says was chosen: plain values, but for the model, which has a place of its own."""
    chosen = {name: value for name, value in vars(options).items() if name not in ("restorer", "model")}
    if options.restorer is not None:
        chosen["restorer"] = repr(options.restorer)
    return chosen


def scaling_of(planned: ScenePlan) -> dict[str, list[float]]:
    """Low and high DN of each restored band, by its name."""
    radiometry = planned.plan.radiometry
    names = [label(planned.bands, i) for i in planned.plan.indexes]
    return {name: [low, high] for name, low, high in zip(names, radiometry.low, radiometry.high, strict=True)}
