"""How well a cloud detector finds cloud and shadow that it has never seen, per pixel of the images.

    python tests/benchmarks/detector.py MODEL_FILE_OR_NAME --data ../shared/data

Three truths, none of them trained on:

- simulated cloud over clear images of held-out places. "Visible" is what the simulator's mask says, where it
  changes the mean of the bands by 16 of 255 DN; "mask" is all of the mask, however faint;
- real pairs (models of three bands): the clear image is brought into the tone of the cloudy one and the
  difference is smoothed by 3 px. "Visible" are 16 DN of the mean of the bands, "any" 10 DN of any band; below
  5 DN of every band it is clear ground, between nobody can say, and the pixels do not count;
- masks that people drew (models of four bands).

"Cloud" is what is brighter, without shadow. "Clear date" takes the clear date for what is clear, because an
even haze is a difference of tone and what is left of it looks clear. Told is what every pixel gets at the
model's own threshold, what the recall would be at a tenth of false alarms, and how many tiles of 256 px
without a single cloudy pixel would be sampled for nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from decr_scene.models.detector import RESTORE
from decr_scene.models.model import Model, load_model
from decr_scene.models.training.calibration import Scores
from decr_scene.models.training.clouds import SHADOW, simulate
from decr_scene.models.training.labels import CLEAR_DIFFERENCE, PAIR_SMOOTHING, VISIBLE
from decr_scene.models.training.tone import fit_tone
from decr_scene.pipeline.training import read_image

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

ANY = 10 / 127.5
"""A difference that is larger than what the tone leaves of clear ground."""

SEEDS = 3
"""Clouds drawn over every clear image."""


class Case(NamedTuple):
    """An image, where it is truly cloudy, and which pixels count."""

    image: Float
    cloudy: Bool
    counts: Bool


def simulated(
    folder: Path, pattern: str, bands: list[int], spectrum: tuple[str, ...], kind: str
) -> Iterator[Case]:
    """Simulated clouds over the clear images of a folder; ``kind`` of truth: mask, visible or cloud."""
    for number, path in enumerate(sorted(folder.glob(pattern))):
        clear = np.ascontiguousarray(read_image(path)[bands])
        for seed in range(SEEDS):
            drawn = simulate(clear, spectrum, np.random.default_rng([number, seed, 7]))
            truth = drawn.mask > 0
            if kind != "mask":
                truth &= np.abs((drawn.cloudy - clear).mean(axis=0)) >= VISIBLE
            if kind == "cloud":
                truth &= drawn.mask != SHADOW
            yield Case(drawn.cloudy, truth, truth | (drawn.mask == 0))


def real(folder: Path, kind: str, clear_date: bool = False) -> Iterator[Case]:
    """Real pairs, judged by what differs (any, visible or cloud); clear ground by the clear date if asked."""
    for path in sorted((folder / "cloudy").iterdir()):
        cloudy, clear = read_image(path), read_image(folder / "clear" / path.name, path)
        reduced = (slice(None), slice(None, None, 2), slice(None, None, 2))
        matched = fit_tone(cloudy[reduced], clear[reduced]).apply(clear)
        difference = ndimage.gaussian_filter(cloudy - matched, (0, PAIR_SMOOTHING, PAIR_SMOOTHING))
        size, change = np.abs(difference).max(axis=0), difference.mean(axis=0)
        truth = {"any": size >= ANY, "visible": np.abs(change) >= VISIBLE, "cloud": change >= VISIBLE}[kind]
        if clear_date:
            yield Case(cloudy, truth, truth)
            yield Case(clear, np.zeros_like(truth), np.ones_like(truth))
        else:
            yield Case(cloudy, truth, truth | (size < CLEAR_DIFFERENCE))


def drawn(folder: Path, bands: list[int]) -> Iterator[Case]:
    """Images with masks that people drew."""
    for path in sorted((folder / "image").iterdir()):
        mask = np.asarray(Image.open(folder / "mask" / f"{path.stem}.png"))
        image = np.ascontiguousarray(read_image(path)[bands])
        yield Case(image, mask > 0, np.ones(mask.shape, bool))


def measure(name: str, model: Model, cases: Iterator[Case]) -> None:
    """Print one line."""
    detector = model.detector
    assert detector is not None
    scores, seconds, pixels = Scores(), 0.0, 0
    sampled = clear_tiles = 0
    least = detector.config.threshold
    for case in cases:
        began = time.perf_counter()
        coarse = model.detect(torch.from_numpy(case.image[None]))[0, RESTORE].numpy()
        seconds, pixels = seconds + time.perf_counter() - began, pixels + case.cloudy.size
        factor = detector.config.factor
        found = coarse.repeat(factor, axis=0).repeat(factor, axis=1)
        found = found[: case.cloudy.shape[0], : case.cloudy.shape[1]]
        scores.add(found, case.cloudy, case.counts)
        for row in range(0, max(1, found.shape[0] - 255), 256):
            for col in range(0, max(1, found.shape[1] - 255), 256):
                tile = (slice(row, row + 256), slice(col, col + 256))
                if not case.cloudy[tile].any():
                    clear_tiles += 1
                    sampled += bool((found[tile] >= least).any())
    at = scores.figures(least)
    print(
        f"{name:<24} recall {at['recall']:.3f}  false alarms {at['false_alarms']:.3f}  "
        f"recall at 0.10 {at['recall_at_0.10']:.3f}  clear tiles sampled {sampled}/{clear_tiles}  "
        f"cloudy {scores.cloudy.sum() / (scores.cloudy.sum() + scores.clear.sum()):.2f}  "
        f"{1e9 * seconds / max(1, pixels):.0f} ns/px",
        flush=True,
    )


def main() -> None:
    """Measure a model's detector on everything that fits its bands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    chosen = parser.parse_args()
    model, data = load_model(chosen.model, device="cpu", precision="fp32"), chosen.data
    if model.detector is None:
        raise SystemExit(f"{chosen.model} has no detector")
    print(f"threshold {model.detector.config.threshold:.3f}")
    spectrum = tuple(model.config.info.get("spectrum", model.config.bands))
    if len(spectrum) == 4:
        chips = data / "clear4_chips" / "naip_0p6m" / "test"
        other = data / "clear4"
        for kind in ("cloud", "visible", "mask"):
            measure(f"NAIP, {kind}", model, simulated(chips, "*.tif", [2, 1, 0, 3], spectrum, kind))
            measure(f"others, {kind}", model, simulated(other, "*bgrn.tif", [0, 1, 2, 3], spectrum, kind))
        measure("masks4", model, drawn(data / "masks4" / "test", [0, 1, 2, 3]))
    else:
        test = data / "pairs" / "rice2" / "test"
        for kind in ("cloud", "visible", "mask"):
            measure(f"simulated, {kind}", model, simulated(test / "clear", "*", [0, 1, 2], spectrum, kind))
        for kind in ("cloud", "visible", "any"):
            measure(f"pairs, {kind}", model, real(test, kind))
            measure(f"pairs, {kind}, clear date", model, real(test, kind, clear_date=True))


if __name__ == "__main__":
    main()
