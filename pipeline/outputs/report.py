"""Write the report of a run, the JSON file beside the output."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from decr_scene.pipeline.inputs.addresses import plain_values_without_secrets
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.restoration.plan import Planned


@dataclass(frozen=True)
class Report:
    """The report of a run, the JSON file beside the output.

    ``detector`` is who looked: ``model``, for ``fill`` with the name of the model whose detector it was;
    ``mask``; or ``ukis`` with the version of its package, and ``without near infrared`` where the scene has
    none. ``failed`` has the reason for each side file that could not be written, by its role. ``other_date``
    lists the other dates that were taken, each with its path; the share of the scene's detail that it
    explains where both are clear, by band, empty if too little is; the pixels that tell; and the share of it
    that the detector takes for cloud or shadow. ``scaling`` has the limits in DN, and
    ``curve``, where the scaling is not affine between them, its exponent and the DN that it begins at.
    ``values`` says what nodata, masks, scale and offset of the input were; ``named_files`` has name, bytes
    and time of change (ns) of the files that options name, and of what those are made of; ``parts`` likewise
    of the files of the input besides its raster: a panchromatic companion, metadata, sources of a VRT.
    Secrets in addresses are hidden everywhere.
    """

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
    detector: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    mask: str | None = None
    other_date: list[dict[str, Any]] | None = None
    curve: dict[str, float] | None = None
    values: list[str] = field(default_factory=list)
    named_files: list[list[Any]] = field(default_factory=list)
    parts: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, plain_values_without_secrets(getattr(self, each.name)))

    @property
    def faults(self) -> list[str]:
        """List the faults of a finished output, one sentence each: failed checks, missing side files."""
        checks = ", ".join(name for name, good in self.checks.items() if not good)
        missing = [f"no {role} beside the output: {reason}" for role, reason in self.failed.items()]
        return [*([f"check failed: {checks}"] if checks else []), *missing]

    def to_json(self) -> str:
        """Write the report as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def parameters_of(options: Options) -> dict[str, Any]:
    """Return the options as plain values, but for the model, which has its own entry in the report."""
    chosen = {name: value for name, value in vars(options).items() if name not in ("restorer", "model")}
    if options.restorer is not None:
        chosen["restorer"] = repr(options.restorer)
    hidden: dict[str, Any] = plain_values_without_secrets(chosen)
    return hidden


def scaling_of(planned: Planned) -> dict[str, list[float]]:
    """Return the low and high DN of each restored band, by its name."""
    radiometry = planned.plan.radiometry
    names = [label(planned.bands, i) for i in planned.plan.indexes]
    return {name: [low, high] for name, low, high in zip(names, radiometry.low, radiometry.high, strict=True)}


def curve_of(planned: Planned) -> dict[str, float] | None:
    """Return exponent and first DN of the curve of the scaling, or ``None`` if it is affine."""
    radiometry = planned.plan.radiometry
    return None if radiometry.gamma == 1 else {"gamma": radiometry.gamma, "black": radiometry.black}


def fits_of(planned: Planned) -> list[dict[str, Any]] | None:
    """Return how well each other date that was taken goes with the scene, or ``None`` without one."""
    other = planned.plan.other
    if other is None:
        return None
    names = [label(planned.bands, i) for i in planned.plan.indexes]
    return [
        {
            "path": date.path,
            "explained": {name: round(e, 4) for name, e in zip(names, date.explained, strict=False)},
            "pixels": date.sample,
            "cloud or shadow": None if date.cloudy is None else round(date.cloudy, 4),
        }
        for date in other.dates
    ]


class Laps:
    """Measure one stage of a run after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """Note how long a stage took, s: since the last one ended."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
