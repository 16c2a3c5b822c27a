"""Several systems on the same pairs, one row each: models, the paper's ablations, sweeps of one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.models.diffusion.schedule import TRAIN_STEPS
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import (
    Answerer,
    Settings,
    check_sizes,
    open_answerer,
    open_fill,
    restore,
)
from decr_scene.pipeline.evaluation.by_process import WholeRuns
from decr_scene.pipeline.evaluation.contact_sheet import Sheet
from decr_scene.pipeline.evaluation.evaluate import (
    Evaluation,
    check_outputs,
    paired,
    plot_files,
    progress,
    write_rows,
)
from decr_scene.pipeline.evaluation.figures import Figures, Row, measure_answers
from decr_scene.pipeline.evaluation.pairs import load_pairs
from decr_scene.pipeline.evaluation.plots import Plot
from decr_scene.pipeline.measures import texture
from decr_scene.pipeline.measures.perception import Perception
from decr_scene.pipeline.planning.detector import LENDERS

_FRACTIONS = ("weight-floor", "gain")
SWEPT = ("steps", "start", *_FRACTIONS)
"""What a sweep may vary, by the names of the command line."""

STEPS_FROM_NOISE = 50
"""Of the paper, which begins at noise."""

COLUMNS = (
    "psnr",
    "ssim",
    "lpips",
    "ukis_distance",
    "ukis_frechet",
    "psnr_tone",
    "ssim_tone",
    "psnr_under_cloud",
    "psnr_core",
    "psnr_thin",
    "psnr_shadow",
    "psnr_clear_ground",
    "clear_shift_dn",
    "texture",
)
"""Figures of the printed table; the CSV has all."""

TEXTURES = tuple(f"{figure}_{region}" for region in ("opaque", "thin") for figure in texture.NAMES)
"""Those of a second table."""

DIFFERENCES = ("psnr", "ukis_distance", "psnr_tone", "ssim_tone", "psnr_under_cloud", "psnr_clear_ground")
"""Figures that systems are held against the baselines by, those of them that were measured."""

PLOTS = ("perception_distortion", "sweep")

CLOUDY, TRUTH = "cloudy", "truth"
"""Labels of what no system answers."""

FILL = "fill"
"""The label and the name of the smooth fill."""


@dataclass(frozen=True)
class System:
    """One row: a model and how it samples.

    Args:
        label: What the row is called.
        model: Bundled name or file.
        settings: How it samples.
        swept: Name and value of what a sweep varies.
    """

    label: str
    model: str
    settings: Settings
    swept: tuple[str, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """Figures by system.

    Args:
        names: Of the pairs.
        by_pair: Figures of each pair, in the order of the names, by system.
        baselines: Systems that the others are held against.
        set_figures: Figures of all pairs together that no single one has, by system.
        warnings: What whole runs warned of.
    """

    names: tuple[str, ...]
    by_pair: dict[str, tuple[Row, ...]]
    baselines: tuple[str, ...] = ()
    set_figures: Mapping[str, Row] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, Row]:
        """Average the figures by system, and add those of the whole set."""
        return {
            label: Evaluation(self.names, rows).mean() | self.set_figures.get(label, {})
            for label, rows in self.by_pair.items()
        }

    def difference(self, one: str, other: str, figure: str) -> tuple[float, float, float]:
        """Subtract the second system from the first: mean and 95 % interval by a paired bootstrap."""
        both = zip(self.by_pair[one], self.by_pair[other], strict=True)
        return paired([a[figure] - b[figure] for a, b in both])

    def to_text(self) -> str:
        """Format tables of figures and texture, one row a system, then of gains over every baseline."""
        rows = self.rows
        width = max(20, *(len(label) + 2 for label in rows))
        figures = self._table(f"{len(self.names)} pairs", COLUMNS, rows, width)
        textures = self._table("texture", TEXTURES, rows, width)
        return "\n".join([*figures, "", *textures, *self._differences(width)])

    def to_csv(self, path: Path) -> None:
        """Write mean figures, one line per system, with gains over the baselines and their intervals."""
        rows = {}
        for label, row in self.rows.items():
            rows[label] = dict(row)
            for other in self.baselines:
                for figure in self._difference_figures():
                    values = self.difference(label, other, figure)
                    names = (f"{figure}_minus_{other}{end}" for end in ("", "_low", "_high"))
                    rows[label] |= dict(zip(names, values, strict=True))
        write_rows(path, "system", rows)

    def plot(self, folder: Path, swept: Mapping[str, tuple[str, float]]) -> None:
        """Draw perception against distortion, one point a system, and PSNR over what a sweep varies.

        Perception is LPIPS where it was measured, else `ukis_distance`, else how far the texture is from the
        truth's.
        """
        rows = self.rows
        measured = [name for name in ("lpips", "ukis_distance") if name in next(iter(rows.values()))]
        figure_name = measured[0] if measured else "|1 - texture|"
        points = {
            label: [(row["psnr"], row[figure_name] if measured else abs(1 - row["texture"]))]
            for label, row in rows.items()
        }
        perception, sweeping = (folder / name for name in PLOTS)
        Plot("perception and distortion", "PSNR, dB", figure_name, points, joined=False).write(perception)
        if swept:
            name = next(iter(swept.values()))[0]
            series = {
                figure: [(value, rows[label][figure]) for label, (_, value) in swept.items()]
                for figure in ("psnr", "psnr_tone")
            }
            Plot(f"sweep of {name}", name, "dB", series).write(sweeping)

    def _table(self, title: str, columns: Sequence[str], rows: Mapping[str, Row], width: int) -> list[str]:
        """Format rows, and under figures that not all pairs have, of how many they are the mean."""
        shown = [name for name in columns if name in next(iter(rows.values()))]
        lines = [title.ljust(width) + "".join(f"{name:>18}" for name in shown)]
        for label, row in rows.items():
            lines.append(label.ljust(width) + "".join(f"{row[name]:18.4f}" for name in shown))
        counts = [self._count(name) for name in shown]
        if min(counts, default=len(self.names)) < len(self.names):
            told = (str(count) if count < len(self.names) else "" for count in counts)
            lines.append("mean of pairs".ljust(width) + "".join(f"{text:>18}" for text in told))
        return lines

    def _count(self, figure: str) -> int:
        """Count the pairs that have a figure, of the system with fewest; those of the set count as all."""
        return min(sum(not np.isnan(row.get(figure, 0)) for row in rows) for rows in self.by_pair.values())

    def _difference_figures(self) -> list[str]:
        measured = next(iter(self.by_pair.values()))[0]
        return [name for name in DIFFERENCES if name in measured]

    def _differences(self, width: int) -> list[str]:
        lines, figures = [], self._difference_figures()
        for other in self.baselines:
            lines += ["", f"minus {other}".ljust(width) + "".join(f"{name:>30}" for name in figures)]
            for label in self.by_pair:
                if label != other:
                    differences = (self.difference(label, other, name) for name in figures)
                    cells = "".join(
                        f"{f'{mean:+.4f} [{low:+.4f}, {high:+.4f}]':>30}" for mean, low, high in differences
                    )
                    lines.append(label.ljust(width) + cells)
        return lines


def ablation(model: str, settings: Settings) -> list[System]:
    """List the paper's ablation of the prior (Table VIII): none, half of it, by the model's weight, all.

    Without a prior the sampling begins at noise alone: a noised first guess would be one. From there it takes
    `STEPS_FROM_NOISE` unless steps are asked for, as the few of a model made for few do not arrive.
    """
    steps = settings.steps or STEPS_FROM_NOISE
    return [
        System("reference only", model, Settings(weight=1.0)),
        System("no prior", model, replace(settings, steps=steps, start=TRAIN_STEPS, weight=0.0)),
        System("fixed weight 0.5", model, replace(settings, weight=0.5)),
        System("own weight", model, settings),
    ]


def sweep(model: str, settings: Settings, name: str, values: Sequence[float]) -> list[System]:
    """List one system per value of a setting, all of the same model.

    Raises:
        OptionError: There is no such setting, or no value, or a step that is no whole number.
    """
    if name not in SWEPT or not values:
        raise OptionError(f"a sweep is such as steps=5,10,20 of {', '.join(SWEPT)}, got {name}={values}")
    if name not in _FRACTIONS and any(value != int(value) for value in values):
        raise OptionError(f"{name} must be whole numbers, got {', '.join(f'{v:g}' for v in values)}")
    systems = []
    for value in values:
        changed: dict[str, Any] = {name.replace("-", "_"): value if name in _FRACTIONS else int(value)}
        systems.append(System(f"{name} {value:g}", model, replace(settings, **changed), (name, float(value))))
    return systems


def compare(
    systems: Sequence[System],
    data: Path,
    *,
    reduce: int = 1,
    protocol: str = "plain",
    mask: str = "none",
    detector: str = "auto",
    bands: str | None = None,
    lpips: bool = False,
    perceptual: bool = False,
    table: Path | None = None,
    sheet: Path | None = None,
    plots: Path | None = None,
    with_baselines: bool = False,
    by_process: bool = False,
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
        perceptual: Measure distances by the features of `ukis-csmask` as well.
        table: CSV to write, one row per system.
        sheet: PNG to write: one column for each system, some of the images down.
        plots: Folder that gets a plot of perception against distortion, and of what a sweep varies.
        with_baselines: Hold every system against the two baselines, the cloudy image and ``fill``.
        by_process: Restore each image by a whole run, as a user does, in the place of by the networks alone;
            only plain, at full size, and for systems without a fixed weight.
        overwrite: Replace files that exist.
        quiet: No progress bar.

    Raises:
        OptionError: The models take different bands, or an option is out of range.
    """
    if by_process and (reduce != 1 or protocol != "plain"):
        raise OptionError("--by-process measures images as they are: drop --reduce and --protocol")
    if by_process and any(system.settings.weight is not None for system in systems):
        raise OptionError("a fixed weight, or the reference alone, is no whole run: drop --by-process")
    names = dict.fromkeys(system.model for system in systems)
    check_outputs([table, sheet, *plot_files(plots, PLOTS)], list(names), data, overwrite)
    models = {name: open_answerer(name, data, bands, detector, reduce) for name in names}
    for system in systems:
        system.settings.check(models[system.model].model)
    _check_variants(systems, models)
    model_bands = _common_bands(models)
    if with_baselines:
        models = {FILL: open_fill(model_bands, list(models.values()), data, detector, reduce), **models}
        systems = [System(FILL, FILL, Settings()), *(system for system in systems if system.model != FILL)]
    pairs = load_pairs(model_bands, data, reduce, protocol, bands)
    runs = WholeRuns.over(data, model_bands, bands, mask) if by_process else None
    if runs is None:
        for name, model in models.items():
            check_sizes(name, model, pairs)
    figures = Figures.open(protocol, lpips, model_bands)
    perception = Perception(model_bands) if perceptual else None
    contact = Sheet(model_bands, len(pairs)) if sheet is not None else None
    rows: dict[str, list[Row]] = {}
    by_run = [one for one in systems if runs is not None and _is_run(one, models[one.model])]
    asked = [one for one in systems if one not in by_run]
    for number, pair in enumerate(progress(pairs, quiet)):
        restored = _answers(asked, models, model_bands, pair.cloudy, mask)
        if runs is not None:
            shape = pair.cloudy.shape[1], pair.cloudy.shape[2]
            for one in by_run:
                looks = models[one.model].options.detector
                restored[one.label] = runs.answer(number, one.model, one.settings, shape, looks)
        answers = {CLOUDY: pair.cloudy, **{one.label: restored[one.label] for one in systems}}
        figures_of_all = measure_answers(pair, answers, figures, perception)
        for label in answers:
            prefix = f"{label}/"
            row = {k.removeprefix(prefix): v for k, v in figures_of_all.items() if k.startswith(prefix)}
            rows.setdefault(label, []).append(row)
        if contact is not None:
            decibels = {label: rows[label][-1]["psnr"] for label in answers}
            contact.add(number, pair.name, {**answers, TRUTH: pair.clear}, decibels)
    baselines = (CLOUDY, FILL) if with_baselines else ()
    result = Comparison(
        tuple(pair.name for pair in pairs),
        {label: tuple(r) for label, r in rows.items()},
        baselines,
        perception.frechet_distances() if perception is not None else {},
        () if runs is None else runs.warnings,
    )
    if table is not None:
        result.to_csv(table)
    if contact is not None and sheet is not None:
        contact.save(sheet)
    if plots is not None:
        result.plot(plots, {system.label: system.swept for system in systems if system.swept is not None})
    return result


def _is_run(system: System, answerer: Answerer) -> bool:
    """Return whether a run is what a system is to be measured by.

    False colours go by the names of natural ones, and a run of ``fill`` looks at them with a detector made
    for those: it is asked for itself then, with the detector that `open_fill` has found.
    """
    return system.label != FILL or answerer.lenders[: len(LENDERS)] == LENDERS


def _answers(
    systems: Sequence[System],
    models: Mapping[str, Answerer],
    model_bands: tuple[str, ...],
    cloudy: Float,
    mask: str,
) -> dict[str, Float]:
    """Compute the answer of every system to one image, each model given the bands in its own order."""
    orders = {name: [model_bands.index(band) for band in model.bands] for name, model in models.items()}
    asked = {system.model for system in systems}
    images = {name: np.ascontiguousarray(cloudy[order]) for name, order in orders.items() if name in asked}
    looks = {name: models[name].look(image, mask) for name, image in images.items()}
    guesses = {name: models[name].guess(image, looks[name]) for name, image in images.items()}
    answers = {}
    for system in systems:
        name = system.model
        answer = restore(models[name], images[name], guesses[name], system.settings, mask, looks[name]).image
        answers[system.label] = answer[np.argsort(orders[name])]
    return answers


def _check_variants(systems: Sequence[System], models: Mapping[str, Answerer]) -> None:
    """Refuse variants of one model that answers to all settings alike."""
    (name, model), *others = models.items()
    is_varied = len(systems) > 1 or any(system.swept is not None for system in systems)
    if is_varied and not others and not model.draws_samples:
        raise OptionError(
            f"{name} takes no steps, so all settings give one answer: take a model with a noise network"
        )


def compare_alone(models: Sequence[str], settings: Settings) -> list[System]:
    """List one system per model."""
    return [System(label, model, settings) for label, model in zip(_labels(models), models, strict=True)]


def compare_models(models: Sequence[str], settings: Settings) -> list[System]:
    """List each model and its reference alone, as for training coarse to fine (Table IX)."""
    labels = _labels(models)
    return [
        System(f"{label} {part}".strip(), model, part_settings)
        for label, model in zip(labels, models, strict=True)
        for part, part_settings in (("reference", Settings(weight=1.0)), ("", settings))
        if model != "fill" or not part
    ]


def _labels(models: Sequence[str]) -> list[str]:
    """Shorten paths to names where these are unique, and none of another column's."""
    short = [Path(model).stem for model in models]
    others = {CLOUDY, TRUTH} | ({FILL} - set(models))
    if len(set(short)) == len(short) and others.isdisjoint(short):
        return short
    return [f"./{model}" if model in others else str(model) for model in models]


def _common_bands(models: dict[str, Answerer]) -> tuple[str, ...]:
    """Return the bands of all models, in the order of the first, or refuse models of different bands."""
    first = next(iter(models.values()))
    for name, model in models.items():
        if set(model.bands) != set(first.bands):
            raise OptionError(
                f"{name} takes {','.join(model.bands)}, others {','.join(first.bands)}: "
                "compare models of the same bands"
            )
    return first.bands
