"""`decr-scene evaluate`: cloudy input, reference alone and DE, on pairs that no training has seen.

Against the clear image as it is (the usual numbers of papers) and against the clear image in the tone of the
cloudy one, which is what a scene tool can aim at; the latter also by region.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from decr_scene.models.denoiser import DEDenoiser
from decr_scene.models.model import Model, load_model
from decr_scene.models.sampling import DESampler, OnStep
from decr_scene.models.training.config import DataConfig
from decr_scene.models.training.data import Pair, held_in_memory, load_source
from decr_scene.models.training.logs import display_bands
from decr_scene.models.training.resize import resize
from decr_scene.models.training.tone import fit_tone, regions
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.grid import Span
from decr_scene.pipeline.images import RasterImage, read_image
from decr_scene.pipeline.masks import keep_clear_ground
from decr_scene.pipeline.metrics import (
    Figure,
    open_lpips,
    paper_psnr,
    paper_ssim,
    psnr,
    shift,
    ssim,
    texture,
)
from decr_scene.pipeline.noise import place_noise
from decr_scene.pipeline.sheet import Sheet

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Row = dict[str, float]

PROTOCOLS = ("plain", "paper")
PAPER_SIDE = 256
"""Width that the paper's protocol resizes images to, px."""

CORE_SHARE, CLOUD_SHARE, CLEAR_SHARE = 0.15, 0.4, 0.3
"""Shares of an image, by the residual of its pair: dense cloud, all cloud, and, from below, clear ground."""

SHADOW_DROP = 12 / 127.5
"""What is darker than the clear image by 12 of 255 DN, in the mean of the bands, is shadow."""

SHADOW_SHARE = 0.005
"""With less shadow than this, an image tells nothing about it."""

MOST_SIDE = 2048
"""Of larger images the middle is measured, px."""


@dataclass(frozen=True)
class Settings:
    """How one system samples; what is ``None`` is the model's own.

    Args:
        steps: Diffusion steps.
        start: Step to start at; 1000: from noise alone.
        weight_floor: Least weight of the first guess.
        weight: The same weight everywhere in the place of the weight network's; 1: the first guess alone.
    """

    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    weight: float | None = None

    def sample(self, model: Model, cloudy: Float, guess: Float, on_step: OnStep | None = None) -> Float:
        """Restore one image ``(C, H, W)`` in [-1, 1]."""
        if self.weight == 1:
            return guess
        noise = place_noise(0, 0, len(cloudy), Span(0, 0, *cloudy.shape[1:]))
        x_t, image, reference = (torch.from_numpy(i[None]).to(model.device) for i in (noise, cloudy, guess))
        if self.weight is not None:
            sampler = self._with_fixed_weight(model)
            return _to_array(sampler(x_t, image, reference, weight_floor=0.0, on_step=on_step))
        return _to_array(
            model.sample(
                image,
                steps=self.steps,
                start=self.start,
                weight_floor=self.weight_floor,
                noise=x_t,
                reference=reference,
                on_step=on_step,
            )
        )

    def _with_fixed_weight(self, model: Model) -> DESampler:
        own, weight = model.config.sampling, self.weight
        assert weight is not None, "the caller has looked"

        def network(
            x_t: torch.Tensor, t: torch.Tensor | int, cloudy: torch.Tensor, reference: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            eps, raw = model.network(x_t, t, cloudy, reference)
            return eps, torch.full_like(raw, weight)

        start = own.start if self.start is None else self.start
        steps = own.steps if self.steps is None else self.steps
        denoiser = DEDenoiser(network, model.schedule)
        return DESampler(denoiser, steps, None if start == model.schedule.timesteps else start)


@dataclass(frozen=True)
class Evaluation:
    """One row per image: name and figures; a figure that an image cannot tell is NaN.

    Args:
        names: Of the images.
        rows: Their figures, ``who/figure``.
        trace: Mean weight by step of the sampling, if it was asked for.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    trace: tuple[Row, ...] = ()

    def mean(self) -> Row:
        """Mean of every figure over the images that have it."""
        return {key: _mean([row[key] for row in self.rows]) for key in self.rows[0]}

    def gain(self, figure: str, draws: int = 2000) -> tuple[float, float, float]:
        """DE minus reference: the mean over images and its 95 % interval by a paired bootstrap."""
        gains = np.array([row[f"DE/{figure}"] - row[f"reference/{figure}"] for row in self.rows])
        gains = gains[~np.isnan(gains)]
        if not gains.size:
            return np.nan, np.nan, np.nan
        chosen = np.random.default_rng(0).integers(len(gains), size=(draws, len(gains)))
        low, high = np.percentile(gains[chosen].mean(axis=1), [2.5, 97.5])
        return float(gains.mean()), float(low), float(high)

    def to_text(self) -> str:
        """A table: figures down, cloudy / reference / DE across; last what DE adds to its reference."""
        mean = self.mean()
        figures = dict.fromkeys(key.split("/")[1] for key in mean)
        who = list(dict.fromkeys(key.split("/")[0] for key in mean))
        head = [*who, "DE gains", "95 % interval"]
        lines = [f"{len(self.rows)} pairs".ljust(20) + "".join(f"{name:>12}" for name in head)]
        for figure in figures:
            values = "".join(f"{mean[f'{name}/{figure}']:12.4f}" for name in who)
            gain, low, high = self.gain(figure)
            told = sum(not np.isnan(row[f"{who[-1]}/{figure}"]) for row in self.rows)
            few = f"  of {told} pairs" if told < len(self.rows) else ""
            lines.append(f"{figure:<20}{values}{gain:+12.4f}  [{low:+.4f}, {high:+.4f}]{few}")
        lines += [f"mean W  {'  '.join(f'{k} {v:.4g}' for k, v in row.items())}" for row in self.trace]
        return "\n".join(lines)

    def to_csv(self, path: Path) -> None:
        """Write one line per image."""
        write_rows(path, "name", dict(zip(self.names, self.rows, strict=True)))


def evaluate_pairs(
    model: str,
    data: Path,
    reduce: int = 1,
    steps: int | None = None,
    start: int | None = None,
    weight_floor: float | None = None,
    table: Path | None = None,
    *,
    protocol: str = "plain",
    mask: str = "none",
    bands: str | None = None,
    lpips: bool = False,
    sheet: Path | None = None,
    trace: Path | None = None,
    quiet: bool = True,
) -> Evaluation:
    """Measure a model on a folder of pairs.

    Args:
        model: Bundled name or file.
        data: The folder, with ``cloudy`` or ``cloud``, and ``clear`` or ``label``, in it.
        reduce: Average ``reduce`` x ``reduce`` pixels first (2 halves 512 px images to 256).
        steps: Diffusion steps; ``None``: the model's own.
        start: Step to start at; ``None``: the model's own.
        weight_floor: Least weight of the first guess; ``None``: the model's own.
        table: CSV to write, one row per image.
        protocol: ``plain``, or ``paper``: 256 px by its resize, and PSNR and SSIM as its code takes them.
        mask: ``auto``: what the model hardly changes keeps its values; ``none``: all is the model's.
        bands: What the bands of the images are, such as ``red,green,blue,nir``, where the model's order is
            another one.
        lpips: Measure LPIPS as well.
        sheet: PNG to write: cloudy, reference, DE and truth of some of the images.
        trace: CSV to write: mean weight of the first guess by step.
        quiet: No progress bar.

    Returns:
        PSNR (dB) and SSIM on 0 to 255, and the texture left, per image.

    Raises:
        OptionError: An option is out of range, or needs what is not there.
        TrainingError: The images cannot be used.
    """
    loaded = load_model(model)
    pairs = load_pairs(loaded, data, reduce, protocol, bands)
    settings, figures = (
        Settings(steps, start, weight_floor),
        Figures.open(protocol, lpips, loaded.config.bands),
    )
    steps_seen = StepWeights()
    shown = Sheet(loaded.config.bands, len(pairs)) if sheet is not None else None
    rows = []
    for number, pair in enumerate(progress(pairs, quiet)):
        guess = first_guess(loaded, pair.cloudy)
        matched = matched_truth(pair)
        on_step = steps_seen.watch(parts(pair.cloudy, matched))
        answer = restore(loaded, pair.cloudy, guess, settings, mask, on_step)
        answers = {"cloudy": pair.cloudy, "reference": guess, "DE": answer}
        rows.append(judge(pair, answers, figures))
        if shown is not None:
            told = {who: rows[-1][f"{who}/psnr"] for who in answers}
            shown.add(number, pair.name, {**answers, "truth": pair.clear}, told)
    result = Evaluation(
        tuple(p.name for p in pairs), tuple(rows), steps_seen.rows() if trace is not None else ()
    )
    if table is not None:
        result.to_csv(table)
    if shown is not None and sheet is not None:
        shown.save(sheet)
    if trace is not None:
        write_rows(trace, "step", {str(i): row for i, row in enumerate(result.trace)})
    return result


@dataclass(frozen=True)
class Figures:
    """The figures of a protocol.

    Args:
        psnr: dB.
        ssim: Structural similarity.
        lpips: Perceptual distance, if wanted.
    """

    psnr: Figure = psnr
    ssim: Figure = ssim
    lpips: Figure | None = None

    @classmethod
    def open(cls, protocol: str, lpips: bool, bands: tuple[str, ...]) -> Figures:
        """Those of a protocol; the paper's grey image wants red, green, blue in this order."""
        distance = open_lpips(protocol == "paper") if lpips else None
        if protocol != "paper":
            return cls(lpips=distance)
        order = list(display_bands(bands)) if len(bands) == 3 else list(range(len(bands)))
        return cls(paper_psnr, lambda image, truth: paper_ssim(image[order], truth[order]), distance)

    def of(self, image: Float, truth: Float) -> Row:
        """PSNR, SSIM and maybe LPIPS of an image."""
        row = {"psnr": self.psnr(image, truth), "ssim": self.ssim(image, truth)}
        return row if self.lpips is None else {**row, "lpips": self.lpips(image, truth)}


@dataclass(frozen=True)
class Parts:
    """Boolean ``(H, W)`` maps of a pair, from its residual in one tone.

    Args:
        core: Dense cloud.
        thin: Thin cloud and cloud edges.
        shadow: Darker than the clear image.
        clear: Clear ground.
    """

    core: Bool
    thin: Bool
    shadow: Bool
    clear: Bool


def parts(cloudy: Float, matched: Float) -> Parts:
    """Split a pair in one tone into dense cloud, thin cloud, shadow and clear ground."""
    shadow = (matched - cloudy).mean(axis=0) > SHADOW_DROP
    core = regions(cloudy, matched, cloud_share=CORE_SHARE).cloud
    area = regions(cloudy, matched, CLOUD_SHARE, CLEAR_SHARE)
    return Parts(core & ~shadow, area.cloud & ~core & ~shadow, shadow, area.clear & ~shadow)


def judge(pair: Pair, answers: Mapping[str, Float], figures: Figures | None = None) -> Row:
    """Figures of every answer to one pair, ``who/figure``."""
    figures = figures or Figures()
    matched = matched_truth(pair)
    area, part = regions(pair.cloudy, matched), parts(pair.cloudy, matched)
    row = {}
    for who, image in answers.items():
        of_who = {
            **figures.of(image, pair.clear),
            "psnr_tone": psnr(image, matched),
            "ssim_tone": ssim(image, matched),
            "psnr_under_cloud": psnr(image[:, area.cloud], matched[:, area.cloud]),
            "psnr_clear_ground": psnr(image[:, area.clear], pair.cloudy[:, area.clear]),
            "clear_shift_dn": shift(image, pair.cloudy, area.clear),
            "texture": texture(image) / texture(matched),
            "psnr_core": _psnr_of(image, matched, part.core),
            "psnr_thin": _psnr_of(image, matched, part.thin),
            "psnr_shadow": _psnr_of(image, matched, part.shadow, SHADOW_SHARE),
            "psnr_clear_truth": _psnr_of(image, matched, part.clear),
        }
        row.update({f"{who}/{figure}": value for figure, value in of_who.items()})
    return row


def matched_truth(pair: Pair) -> Float:
    """The clear image in the tone of the cloudy one, clipped."""
    return np.clip(fit_tone(pair.cloudy, pair.clear).apply(pair.clear), -1, 1)


def load_pairs(
    model: Model, data: Path, reduce: int = 1, protocol: str = "plain", bands: str | None = None
) -> list[Pair]:
    """The pairs of a folder, as a model wants them and a protocol resizes them.

    Raises:
        OptionError: There is no such protocol, or the bands are not those of the model.
        TrainingError: The images cannot be used.
    """
    if protocol not in PROTOCOLS:
        raise OptionError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol}")
    if protocol == "paper" and reduce != 1:
        raise OptionError("the paper's protocol resizes by itself: drop --reduce")
    wanted = model.config.bands
    chosen = None if bands is None else _positions(wanted, tuple(bands.split(",")))
    config = DataConfig(folder=".", tone=False, scales=(1 / reduce,), bands=chosen)
    source = load_source(config, data, read_image, bands=len(wanted), opener=RasterImage.open)
    pairs = [held_in_memory(pair, MOST_SIDE) for pair in source.pairs[0]]
    return [_even(_as_in_paper(pair) if protocol == "paper" else pair) for pair in pairs]


def first_guess(model: Model, cloudy: Float) -> Float:
    """The reference network's answer to one image."""
    return _to_array(model.reference(torch.from_numpy(cloudy[None])))


def restore(
    model: Model,
    cloudy: Float,
    guess: Float,
    settings: Settings,
    mask: str = "none",
    on_step: OnStep | None = None,
) -> Float:
    """One image restored, ``(C, H, W)``.

    Raises:
        OptionError: The settings are out of range.
    """
    if mask not in ("none", "auto"):
        raise OptionError(f"mask must be none or auto here, got {mask}")
    try:
        answer = settings.sample(model, cloudy, guess, on_step)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return answer if mask == "none" else cloudy + keep_clear_ground(answer - cloudy)


class StepWeights:
    """Mean weight of the first guess at every step: of all pixels, of those in cloud, of clear ground."""

    def __init__(self) -> None:
        self._seen: dict[int, list[tuple[float, float, float]]] = {}

    def watch(self, area: Parts) -> OnStep:
        """What to call at every step of one image."""
        cloud = area.core | area.thin

        def on_step(*, t: int, x0: torch.Tensor, weight: torch.Tensor) -> None:
            mean = weight[0].float().mean(dim=0).cpu().numpy()
            self._seen.setdefault(t, []).append(
                (float(mean.mean()), _mean_where(mean, cloud), _mean_where(mean, area.clear))
            )

        return on_step

    def rows(self) -> tuple[Row, ...]:
        """One row a step, in the order of sampling."""
        names = ("weight", "weight_cloud", "weight_clear")
        return tuple(
            {"t": float(t), **{name: _mean([v[i] for v in seen]) for i, name in enumerate(names)}}
            for t, seen in sorted(self._seen.items(), reverse=True)
        )


def write_rows(path: Path, head: str, rows: Mapping[str, Row]) -> None:
    """Write a CSV: one line per row, its name first."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([head, *next(iter(rows.values()))])
        for name, row in rows.items():
            writer.writerow([name, *("" if np.isnan(v) else f"{v:.5f}" for v in row.values())])


def progress(pairs: list[Pair], quiet: bool) -> Iterable[Pair]:
    """The pairs, under a progress bar on stderr."""
    if quiet:
        return pairs
    return track(pairs, "evaluating", console=Console(stderr=True), transient=True)


def _psnr_of(image: Float, truth: Float, where: Bool, least: float = 0.0) -> float:
    if not where.any() or where.mean() < least:
        return np.nan
    return psnr(image[:, where], truth[:, where])


def _mean(values: list[float]) -> float:
    told = [value for value in values if not np.isnan(value)]
    return float(np.mean(told)) if told else np.nan


def _mean_where(values: Float, where: Bool) -> float:
    return float(values[where].mean()) if where.any() else np.nan


def _positions(wanted: tuple[str, ...], found: tuple[str, ...]) -> tuple[int, ...]:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise OptionError(
            f"--bands {','.join(found)} lacks {', '.join(missing)}: the model takes {','.join(wanted)}"
        )
    return tuple(found.index(name) for name in wanted)


def _as_in_paper(pair: Pair) -> Pair:
    """Resized on the scale of 0 to 255 as the published code does; truncation later shows the difference."""

    def resized(image: Float) -> Float:
        dn = (image + 1) * np.float32(127.5)
        whole = np.rint(dn)
        dn = whole if np.abs(dn - whole).max() < 1e-3 else dn
        small = resize(dn, PAPER_SIDE / dn.shape[2])
        return (small / np.float32(127.5) - 1).astype(np.float32)

    return pair._replace(cloudy=resized(pair.cloudy), clear=resized(pair.clear))


def _to_array(images: torch.Tensor) -> Float:
    return images[0].float().cpu().numpy()


def _even(pair: Pair) -> Pair:
    height, width = (side // 32 * 32 for side in pair.clear.shape[1:])
    if not height or not width:
        raise OptionError(f"{pair.name} is {pair.clear.shape[1:]} px: images must be 32 px a side at least")
    return pair._replace(cloudy=pair.cloudy[:, :height, :width], clear=pair.clear[:, :height, :width])
