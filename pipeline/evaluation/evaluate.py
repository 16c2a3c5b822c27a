"""`decr-scene evaluate`: cloudy input, reference alone and DE, on pairs that no training has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.checkpoints.expected_error import ExpectedError
from decr_scene.models.checkpoints.model_file import ModelConfig
from decr_scene.models.data.source import Pair
from decr_scene.models.diffusion.sampling import OnStep
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Answerer, Settings, check_sizes, open_answerer, restore
from decr_scene.pipeline.evaluation.contact_sheet import Sheet
from decr_scene.pipeline.evaluation.figures import (
    Figures,
    PairRegions,
    Row,
    matched_truth,
    measure_answers,
    split_regions,
)
from decr_scene.pipeline.evaluation.pairs import load_pairs
from decr_scene.pipeline.evaluation.plots import Plot, weight_maps
from decr_scene.pipeline.files import check_no_input, check_target, files_under, write_csv
from decr_scene.pipeline.measures.cloud_classes import classify_clouds
from decr_scene.pipeline.measures.perception import Perception
from decr_scene.pipeline.measures.uncertainty import Calibration, Uncertainty, error_of, spread_of
from decr_scene.pipeline.planning.restorer import expected_error_of

WEIGHT_PLOTS = ("weight_by_step", "weight_maps")
UNCERTAINTY_PLOT = "uncertainty"
ENDINGS = (".png", ".csv")
"""Files of the plots of one model."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of some images, one row each; NaN where an image has no value.

    Args:
        names: Of the images.
        rows: Their figures, ``who/figure``.
        trace: Mean weight by step of the sampling, if it was asked for.
        set_figures: Figures of all images together that no single one has, by who answers.
        calibration: Of the uncertainty, if it was asked for.
        weight_note: Where the weight of the trace comes from, if no network gives it.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    trace: tuple[Row, ...] = ()
    set_figures: Mapping[str, Row] = field(default_factory=dict)
    calibration: Calibration | None = None
    weight_note: str = ""

    def mean(self) -> Row:
        """Average every figure over the images that have it."""
        return {key: _mean([row[key] for row in self.rows]) for key in self.rows[0]}

    def gain(self, figure: str, draws: int = 2000) -> tuple[float, float, float]:
        """Subtract the reference from DE: mean over images and its 95 % interval by a paired bootstrap."""
        return paired([row[f"DE/{figure}"] - row[f"reference/{figure}"] for row in self.rows], draws)

    def to_text(self) -> str:
        """Format a table: figures down, cloudy, reference, DE and its gain over the reference across.

        A line is of the pairs for which all of them have the figure, those apart that never have it.
        """
        figures = dict.fromkeys(key.split("/")[1] for key in self.rows[0])
        who = list(dict.fromkeys(key.split("/")[0] for key in self.rows[0]))
        head = "".join(f"{name:>12}" for name in [*who, "DE gains"])
        lines = [f"{len(self.rows)} pairs".ljust(20) + f"{head}  95 % interval"]
        for figure in figures:
            shared = self._shared(figure, who)
            values = "".join(
                f"{_mean([row[f'{name}/{figure}'] for row in shared.rows]):12.4f}" for name in who
            )
            gain, low, high = shared.gain(figure)
            count = len(shared.rows)
            incomplete = f"  of {count} pairs" if count < len(self.rows) else ""
            lines.append(f"{figure:<20}{values}{gain:+12.4f}  [{low:+.4f}, {high:+.4f}]{incomplete}")
        lines += [
            f"{figure:<20}" + "".join(f"{self.set_figures[name][figure]:12.4f}" for name in who)
            for figure in next(iter(self.set_figures.values()), {})
        ]
        lines += [f"mean W  {'  '.join(f'{k} {v:.4g}' for k, v in row.items())}" for row in self.trace]
        lines += [self.weight_note] if self.trace and self.weight_note else []
        return "\n".join(
            lines if self.calibration is None else [*lines, *_calibration_lines(self.calibration)]
        )

    def _shared(self, figure: str, who: Sequence[str]) -> Evaluation:
        """Keep the pairs of a line of the table."""
        values = np.array([[row[f"{name}/{figure}"] for name in who] for row in self.rows])
        known = ~np.isnan(values)
        keep = known[:, known.any(axis=0)].all(axis=1) & known.any(axis=1)
        return replace(self, rows=tuple(compress(self.rows, keep)))

    def to_csv(self, path: Path) -> None:
        """Write one line per image, without the figures of all images together."""
        ranks = ({},) * len(self.rows) if self.calibration is None else self.calibration.correlations
        of_de = [{f"DE/{figure}": value for figure, value in row.items()} for row in ranks]
        rows = [row | more for row, more in zip(self.rows, of_de, strict=True)]
        write_rows(path, "name", dict(zip(self.names, rows, strict=True)))


def evaluate_pairs(
    model: str,
    data: Path,
    settings: Settings | None = None,
    *,
    reduce: int = 1,
    table: Path | None = None,
    protocol: str = "plain",
    mask: str = "none",
    detector: str = "auto",
    bands: str | None = None,
    lpips: bool = False,
    perceptual: bool = False,
    samples: int = 1,
    uncertainty: bool = False,
    sheet: Path | None = None,
    trace: Path | None = None,
    plots: Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> Evaluation:
    """Measure a model on a folder of pairs.

    Args:
        model: Bundled name or file, or ``fill``.
        data: The folder, with ``cloudy`` or ``cloud``, and ``clear`` or ``label``, in it.
        settings: How it samples; ``None``: as the model does by itself.
        reduce: Average ``reduce`` x ``reduce`` pixels first (2 halves 512 px images to 256).
        table: CSV to write, one row per image.
        protocol: ``plain``, or ``paper``: 256 px by its resize, and PSNR and SSIM as its code takes them.
        mask: ``auto``: only what is seen as cloud, or changed much, is changed; ``none``: all is the model's.
        detector: Who looks at each image, as ``Options.detector``.
        bands: What the bands of the images are, such as ``red,green,blue,nir``, where the model's order is
            another one.
        lpips: Measure LPIPS as well.
        perceptual: Measure distances by the features of `ukis-csmask` as well.
        samples: Answers to each image, each of other noise; all figures are of the first, and from two on
            their spread is held against its error.
        uncertainty: Hold the error that the model file expects, and the spread of samples, against it.
        sheet: PNG to write: cloudy, reference, DE and truth of some of the images.
        trace: CSV to write: mean weight of the first guess by step.
        plots: Folder that gets plots of the weight by step, and maps of it.
        overwrite: Replace files that exist.
        quiet: No progress bar.

    Returns:
        PSNR (dB) and SSIM on 0 to 255, and the texture left, per image.

    Raises:
        OptionError: An option is out of range, or needs what is not there.
        TrainingError: The images cannot be used.
    """
    loaded = open_answerer(model, data, bands, detector, reduce)
    _check_draws(model, loaded, trace is not None or plots is not None, samples)
    expected = expected_error_of(loaded.spec) if uncertainty else None
    drawn = (*WEIGHT_PLOTS, UNCERTAINTY_PLOT) if samples > 1 or uncertainty else WEIGHT_PLOTS
    check_outputs([table, sheet, trace, *plot_files(plots, drawn)], [model], data, overwrite)
    settings = settings or Settings()
    settings.check(loaded.model)
    pairs = load_pairs(loaded.bands, data, reduce, protocol, bands)
    check_sizes(model, loaded, pairs)
    figures = Figures.open(protocol, lpips, loaded.bands)
    perception = Perception(loaded.bands) if perceptual else None
    steps_seen = StepWeights() if trace is not None or plots is not None else None
    contact = Sheet(loaded.bands, len(pairs)) if sheet is not None else None
    claims = Uncertainty() if samples > 1 or uncertainty else None
    rows = []
    for number, pair in enumerate(progress(pairs, quiet)):
        look = loaded.look(pair.cloudy, mask)
        guess = loaded.guess(pair.cloudy, look)
        on_step = steps_seen.watch(split_regions(pair.cloudy, matched_truth(pair))) if steps_seen else None
        answer = restore(loaded, pair.cloudy, guess, settings, mask, look, on_step)
        answers = {"cloudy": pair.cloudy, "reference": guess.clip(-1, 1), "DE": answer.image}
        rows.append(measure_answers(pair, answers, figures, perception))
        if claims is not None:
            others = [replace(settings, number=other) for other in range(1, samples)]
            more = [restore(loaded, pair.cloudy, guess, other, mask, look) for other in others]
            deviation = answer.weigh(_deviation(pair.cloudy, [answer.own, *(a.own for a in more)], expected))
            matched = matched_truth(pair)
            claims.add(deviation, error_of(answer.image, matched), classify_clouds(pair.cloudy, matched))
        if contact is not None:
            decibels = {who: rows[-1][f"{who}/psnr"] for who in answers}
            contact.add(number, pair.name, {**answers, "truth": pair.clear}, decibels)
    result = Evaluation(
        tuple(p.name for p in pairs),
        tuple(rows),
        steps_seen.rows() if steps_seen is not None else (),
        perception.frechet_distances() if perception is not None else {},
        claims.calibration() if claims is not None else None,
        "" if loaded.model is None else _weight_note(loaded.model.config),
    )
    if table is not None:
        result.to_csv(table)
    if contact is not None and sheet is not None:
        contact.save(sheet)
    if plots is not None and steps_seen is not None:
        _plot_weights(plots, steps_seen, by_change=bool(result.weight_note))
    if plots is not None and result.calibration is not None:
        _plot_uncertainty(plots, result.calibration)
    if trace is not None:
        write_rows(trace, "step", {str(i): row for i, row in enumerate(result.trace)})
    return result


def _check_draws(name: str, answerer: Answerer, traced: bool, samples: int) -> None:
    """Refuse a trace of a model without steps, and samples of one that draws none."""
    if traced and (answerer.model is None or answerer.spec.alone):
        raise OptionError(
            f"{name} takes no steps, so it has no weight to trace: drop --trace and --plots, or take a "
            "model with a noise network"
        )
    if samples > 1 and not answerer.draws_samples:
        raise OptionError(f"{name} draws no samples: drop --samples, or take a model that does")


def _deviation(cloudy: Float, own: Sequence[Float], expected: ExpectedError | None) -> Float:
    """Compute the standard deviation of the first of a system's own answers, ``(H, W)``, as a run does."""
    parts = [spread_of(own)] if len(own) > 1 else []
    if expected is not None:
        parts.append(expected.deviation(cloudy, np.clip(own[0], -1, 1)))
    return np.asarray(np.sqrt(np.square(parts).sum(axis=0)), np.float32)


def plot_files(folder: Path | None, names: Iterable[str]) -> list[Path]:
    """Name the files of plots, in a folder that is made if need be.

    Raises:
        OptionError: It cannot be made.
    """
    if folder is None:
        return []
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"{folder} cannot be made ({error.strerror}): name a folder where there is one already"
        ) from error
    return [folder / f"{name}{ending}" for name in names for ending in ENDINGS]


def _weight_note(config: ModelConfig) -> str:
    """Tell where W comes from in a model that has no network for it; empty for one that has."""
    if config.network is None or config.network.covered is None:
        return ""
    low, high = config.network.covered
    return (
        f"W of {config.name} is no network's and the same at every step: 1 where the first guess changes the "
        f"image by {low:g} of 2 or less, 0 by {high:g} or more"
    )


def _plot_weights(folder: Path, weights: StepWeights, by_change: bool) -> None:
    rows = weights.rows()
    if not rows:
        raise OptionError("no step was taken, so there is no weight to plot: take a model that samples")
    names = {"weight": "all", "weight_cloud": "in cloud", "weight_clear": "clear ground"}
    series = {label: [(row["t"], row[name]) for row in rows] for name, label in names.items()}
    by_step, maps = (folder / name for name in WEIGHT_PLOTS)
    title = "weight of the first guess" + (", by how much it changes the image" if by_change else "")
    Plot(title, "step", "W", series).write(by_step)
    weight_maps(maps, weights.maps)


def _plot_uncertainty(folder: Path, calibration: Calibration) -> None:
    points = [(row["std_dn"], row["error_dn"]) for row in calibration.deciles]
    most = max(deviation for deviation, _ in points)
    series = {"deciles": points, "calibrated": [(0.0, 0.0), (most, most)]}
    Plot("error by uncertainty", "standard deviation, DN of 255", "rms error", series).write(
        folder / UNCERTAINTY_PLOT
    )


def _calibration_lines(calibration: Calibration) -> list[str]:
    """Format rank correlations with intervals, then deviation and error by deciles."""
    lines = ["", "uncertainty".ljust(20) + f"{'DE':>12}  95 % interval"]
    for figure in calibration.correlations[0]:
        mean, low, high = paired([row[figure] for row in calibration.correlations])
        lines.append(f"{figure.removeprefix('uncertainty_'):<20}{mean:12.4f}  [{low:+.4f}, {high:+.4f}]")
    lines.append(f"{'rank of all pixels':<20}{calibration.pooled:12.4f}")
    lines += ["", "decile of the pixels".ljust(20) + f"{'std, DN':>12}{'error, DN':>12}"]
    lines += [
        f"{number:<20}{row['std_dn']:12.4f}{row['error_dn']:12.4f}"
        for number, row in enumerate(calibration.deciles, 1)
    ]
    return lines


def paired(gains: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Average differences of two answers to the same images, with a 95 % interval by the bootstrap.

    One image has no interval: NaN.
    """
    finite = np.array([gain for gain in gains if not np.isnan(gain)])
    if finite.size < 2:
        return float(finite.mean()) if finite.size else np.nan, np.nan, np.nan
    chosen = np.random.default_rng(0).integers(len(finite), size=(draws, len(finite)))
    low, high = np.percentile(finite[chosen].mean(axis=1), [2.5, 97.5])
    return float(finite.mean()), float(low), float(high)


class StepWeights:
    """Mean weight of the first guess at every step: of all pixels, of those in cloud, of clear ground.

    ``maps`` has those of the first image, ``(H, W)`` by step, the bands averaged.
    """

    def __init__(self) -> None:
        self._means: dict[int, list[tuple[float, float, float]]] = {}
        self.maps: dict[int, Float] = {}

    def watch(self, area: PairRegions) -> OnStep:
        """Make the callback for the steps of one image."""
        cloud = area.core | area.thin

        def on_step(*, t: int, x0: torch.Tensor, weight: torch.Tensor) -> None:
            mean = weight[0].float().mean(dim=0).cpu().numpy()
            self.maps.setdefault(t, mean)
            self._means.setdefault(t, []).append(
                (float(mean.mean()), _mean_where(mean, cloud), _mean_where(mean, area.clear))
            )

        return on_step

    def rows(self) -> tuple[Row, ...]:
        """List one row per step, in the order of sampling."""
        names = ("weight", "weight_cloud", "weight_clear")
        return tuple(
            {"t": float(t), **{name: _mean([v[i] for v in means]) for i, name in enumerate(names)}}
            for t, means in sorted(self._means.items(), reverse=True)
        )


def check_outputs(paths: Iterable[Path | None], models: Iterable[str], data: Path, overwrite: bool) -> None:
    """Refuse outputs that could not, or must not, be written after the measurement.

    Raises:
        OutputError: As `check_target`; or it is an image or a model that is measured.
    """
    outputs = [path for path in paths if path is not None]
    images = [("an image", path) for path in (files_under(data) if outputs else ())]
    check_no_input(outputs, [*images, *(("the model", model) for model in models)])
    for path in outputs:
        check_target(None, path, overwrite)


def write_rows(path: Path, head: str, rows: Mapping[str, Row]) -> None:
    """Write a CSV: one line per row, its name first."""
    lines = ([name, *("" if np.isnan(v) else f"{v:.5f}" for v in row.values())] for name, row in rows.items())
    write_csv(path, [head, *next(iter(rows.values()))], lines)


def progress(pairs: list[Pair], quiet: bool) -> Iterable[Pair]:
    """Iterate over the pairs, with a progress bar on stderr."""
    if quiet:
        return pairs
    return track(pairs, "evaluating", console=Console(stderr=True), transient=True)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else np.nan


def _mean_where(values: Float, mask: Bool) -> float:
    return float(values[mask].mean()) if mask.any() else np.nan
