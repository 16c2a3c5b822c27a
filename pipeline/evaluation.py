"""`decr-scene evaluate`: cloudy input, reference alone and DE, on pairs that no training has seen.

Against the clear image as it is (the usual numbers of papers) and against the clear image in the tone of the
cloudy one, which is what a scene tool can aim at; the latter also by region.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from decr_scene.models.model import Model, load_model
from decr_scene.models.training.config import DataConfig
from decr_scene.models.training.data import Pair, load_source
from decr_scene.models.training.tone import fit_tone, regions
from decr_scene.pipeline.grid import Span
from decr_scene.pipeline.metrics import psnr, shift, ssim, texture
from decr_scene.pipeline.noise import place_noise
from decr_scene.pipeline.training import read_image

Float = NDArray[np.float32]
Row = dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One row per image: name and figures."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]

    def mean(self) -> Row:
        """Mean of every figure over the images."""
        return {key: float(np.mean([row[key] for row in self.rows])) for key in self.rows[0]}

    def gain(self, figure: str, draws: int = 2000) -> tuple[float, float, float]:
        """DE minus reference: the mean over images and its 95 % interval by a paired bootstrap."""
        gains = np.array([row[f"DE/{figure}"] - row[f"reference/{figure}"] for row in self.rows])
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
            lines.append(f"{figure:<20}{values}{gain:+12.4f}  [{low:+.4f}, {high:+.4f}]")
        return "\n".join(lines)

    def to_csv(self, path: Path) -> None:
        """Write one line per image."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", *self.rows[0]])
            for name, row in zip(self.names, self.rows, strict=True):
                writer.writerow([name, *(f"{value:.5f}" for value in row.values())])


def evaluate_pairs(
    model: str,
    data: Path,
    reduce: int = 1,
    steps: int | None = None,
    start: int | None = None,
    weight_floor: float | None = None,
    table: Path | None = None,
) -> Evaluation:
    """Measure a model on a folder with ``cloudy`` and ``clear``.

    Args:
        model: Bundled name or file.
        data: The folder.
        reduce: Average ``reduce`` x ``reduce`` pixels first (2 halves 512 px images to 256).
        steps: Diffusion steps; ``None``: the model's own.
        start: Step to start at; ``None``: the model's own.
        weight_floor: Least weight of the first guess; ``None``: the model's own.
        table: CSV to write, one row per image.

    Returns:
        PSNR (dB) and SSIM on 0 to 255, and the texture left, per image.
    """
    loaded = load_model(model)
    config = DataConfig(clear="clear", cloudy="cloudy", tone=False, scales=(1 / reduce,))
    pairs = load_source(config, data, read_image).pairs[0]
    rows = []
    for pair in pairs:
        even = _even(pair)
        answers = {"cloudy": even.cloudy, **_answers(loaded, even.cloudy, steps, start, weight_floor)}
        rows.append(judge(even, answers))
    result = Evaluation(tuple(pair.name for pair in pairs), tuple(rows))
    if table is not None:
        result.to_csv(table)
    return result


def _answers(
    model: Model, cloudy: Float, steps: int | None, start: int | None, weight_floor: float | None
) -> dict[str, Float]:
    image = torch.from_numpy(cloudy[None])
    noise = torch.from_numpy(place_noise(0, 0, len(cloudy), Span(0, 0, *cloudy.shape[1:]))[None])
    guess = model.reference(image)
    restored = model.sample(
        image, steps=steps, start=start, weight_floor=weight_floor, noise=noise, reference=guess
    )
    return {"reference": guess[0].float().numpy(), "DE": restored[0].float().numpy()}


def judge(pair: Pair, answers: dict[str, Float]) -> Row:
    """Figures of every answer to one pair, ``who/figure``."""
    matched = np.clip(fit_tone(pair.cloudy, pair.clear).apply(pair.clear), -1, 1)
    area = regions(pair.cloudy, matched)
    row = {}
    for who, image in answers.items():
        row[f"{who}/psnr"] = psnr(image, pair.clear)
        row[f"{who}/ssim"] = ssim(image, pair.clear)
        row[f"{who}/psnr_tone"] = psnr(image, matched)
        row[f"{who}/ssim_tone"] = ssim(image, matched)
        row[f"{who}/psnr_under_cloud"] = psnr(image[:, area.cloud], matched[:, area.cloud])
        row[f"{who}/psnr_clear_ground"] = psnr(image[:, area.clear], pair.cloudy[:, area.clear])
        row[f"{who}/clear_shift_dn"] = shift(image, pair.cloudy, area.clear)
        row[f"{who}/texture"] = texture(image) / texture(matched)
    return row


def _even(pair: Pair) -> Pair:
    height, width = (side // 32 * 32 for side in pair.clear.shape[1:])
    return pair._replace(cloudy=pair.cloudy[:, :height, :width], clear=pair.clear[:, :height, :width])
