"""Several systems on the same pairs, one row each: models, the paper's ablations, sweeps of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decr_scene.models.diffusion.schedule import TRAIN_STEPS
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Answerer, Settings, open_answerer, restore
from decr_scene.pipeline.evaluation.evaluate import Evaluation, check_outputs, progress, write_rows
from decr_scene.pipeline.evaluation.figures import Figures, Row, judge
from decr_scene.pipeline.evaluation.pairs import load_pairs

SWEPT = ("steps", "start", "weight-floor")
"""What a sweep may vary, by the names of the command line."""

COLUMNS = ("psnr", "ssim", "lpips", "psnr_tone", "psnr_under_cloud", "psnr_core", "clear_shift_dn", "texture")
"""Figures of the printed table; the CSV has all."""


@dataclass(frozen=True)
class System:
    """One row: a model and how it samples.

    Args:
        label: What the row is called.
        model: Bundled name or file.
        settings: How it samples.
    """

    label: str
    model: str
    settings: Settings


@dataclass(frozen=True)
class Comparison:
    """Mean figures by system.

    Args:
        pairs: How many pairs they are means of.
        rows: By label.
    """

    pairs: int
    rows: dict[str, Row]

    def to_text(self) -> str:
        """A table: systems down, figures across."""
        shown = [name for name in COLUMNS if name in next(iter(self.rows.values()))]
        wide = max(20, *(len(label) + 2 for label in self.rows))
        head = f"{self.pairs} pairs".ljust(wide) + "".join(f"{name:>17}" for name in shown)
        lines = [
            label.ljust(wide) + "".join(f"{row[name]:17.4f}" for name in shown)
            for label, row in self.rows.items()
        ]
        return "\n".join([head, *lines])

    def to_csv(self, path: Path) -> None:
        """Write all figures, one line per system."""
        write_rows(path, "system", self.rows)


def ablation(model: str, settings: Settings) -> list[System]:
    """The paper's ablation of the prior (Table VIII): none, half of it everywhere, the weight network, all.

    Without a prior the sampling begins at noise alone: a noised first guess would be one.
    """
    return [
        System("reference only", model, Settings(weight=1.0)),
        System("no prior", model, replace(settings, start=TRAIN_STEPS, weight=0.0)),
        System("fixed weight 0.5", model, replace(settings, weight=0.5)),
        System("weight network", model, settings),
    ]


def sweep(model: str, settings: Settings, name: str, values: Sequence[float]) -> list[System]:
    """The same model with one setting at each of several values.

    Raises:
        OptionError: There is no such setting, or no value, or a step that is no whole number.
    """
    if name not in SWEPT or not values:
        raise OptionError(f"a sweep is such as steps=5,10,20 of {', '.join(SWEPT)}, got {name}={values}")
    if name != "weight-floor" and any(value != int(value) for value in values):
        raise OptionError(f"{name} must be whole numbers, got {', '.join(f'{v:g}' for v in values)}")
    systems = []
    for value in values:
        if name == "weight-floor":
            changed = replace(settings, weight_floor=float(value))
        else:
            changed = replace(settings, **{name: int(value)})
        systems.append(System(f"{name} {value:g}", model, changed))
    return systems


def compare(
    systems: Sequence[System],
    data: Path,
    reduce: int = 1,
    *,
    protocol: str = "plain",
    mask: str = "none",
    detector: str = "auto",
    bands: str | None = None,
    lpips: bool = False,
    table: Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> Comparison:
    """Measure several systems on the same pairs.

    Args:
        systems: The rows, under that of the cloudy image as it is.
        data: As `evaluate_pairs`, as are the others.
        reduce: Average ``reduce`` x ``reduce`` pixels first.
        protocol: ``plain`` or ``paper``.
        mask: ``auto`` or ``none``.
        detector: Who looks at each image, as ``Options.detector``.
        bands: What the bands of the images are.
        lpips: Measure LPIPS as well.
        table: CSV to write, one row per system.
        overwrite: Replace it if it exists.
        quiet: No progress bar.

    Raises:
        OptionError: The models take different bands, or an option is out of range.
    """
    used = dict.fromkeys(system.model for system in systems)
    check_outputs([table], list(used), data, overwrite)
    models = {name: open_answerer(name, data, bands, detector) for name in used}
    wanted = _one_of(models).bands
    pairs = load_pairs(wanted, data, reduce, protocol, bands)
    figures = Figures.open(protocol, lpips, wanted)
    rows: dict[str, list[Row]] = {}
    for pair in progress(pairs, quiet):
        looks = {name: model.look(pair.cloudy, mask) for name, model in models.items()}
        guesses = {name: model.guess(pair.cloudy, looks[name]) for name, model in models.items()}
        answers = {"cloudy": pair.cloudy}
        for system in systems:
            model, guess = models[system.model], guesses[system.model]
            answers[system.label] = restore(
                model, pair.cloudy, guess, system.settings, mask, looks[system.model]
            )
        told = judge(pair, answers, figures)
        for label in answers:
            own = {k.removeprefix(f"{label}/"): v for k, v in told.items() if k.startswith(f"{label}/")}
            rows.setdefault(label, []).append(own)
    names = tuple(pair.name for pair in pairs)
    result = Comparison(
        len(pairs), {label: Evaluation(names, tuple(found)).mean() for label, found in rows.items()}
    )
    if table is not None:
        result.to_csv(table)
    return result


def compare_models(models: Sequence[str], settings: Settings) -> list[System]:
    """Each model and its reference alone: such as one trained coarse to fine and one not (Table IX)."""
    labels = _labels(models)
    return [
        System(f"{label} {what}".strip(), model, how)
        for label, model in zip(labels, models, strict=True)
        for what, how in (("reference", Settings(weight=1.0)), ("", settings))
        if model != "fill" or not what
    ]


def _labels(models: Sequence[str]) -> list[str]:
    """Names of files where they tell them apart, else the whole paths."""
    short = [Path(model).stem for model in models]
    return short if len(set(short)) == len(short) else list(models)


def _one_of(models: dict[str, Answerer]) -> Answerer:
    first = next(iter(models.values()))
    for name, model in models.items():
        if model.bands != first.bands:
            raise OptionError(
                f"{name} takes {','.join(model.bands)}, others {','.join(first.bands)}: "
                "compare models of the same bands"
            )
    return first
