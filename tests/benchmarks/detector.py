"""How well a cloud detector finds cloud and shadow that it has never seen, per pixel of the images.

    python tests/benchmarks/detector.py MODEL_FILE_OR_NAME --data ../shared/data

Three truths, none of them trained on:

- simulated cloud over clear images of held-out places. "Visible" is what the simulator's mask says, where it
  changes the mean of the bands by 16 of 255 DN; "mask" is all of the mask, however faint;
- real pairs (models of three bands): the clear image is brought into the tone of the cloudy one and the
  difference is smoothed by 3 px. "Visible" are 16 DN of the mean of the bands, "any" 10 DN of any band,
  "bright cloud" 25 DN more in the mean; below 5 DN of every band it is clear ground, between nobody can say,
  and the pixels do not count;
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from decr_scene.models.clouds.simulate import SHADOW, simulate
from decr_scene.models.data.tone import fit_tone
from decr_scene.models.model import Model, load_model
from decr_scene.models.networks.detector import RESTORE
from decr_scene.models.release.calibration import Scores
from decr_scene.models.training.labels import CLEAR_DIFFERENCE, PAIR_SMOOTHING, VISIBLE
from decr_scene.pipeline.raster.images import read_image

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

ANY = 10 / 127.5
"""A difference that is larger than what the tone leaves of clear ground."""

BRIGHT = 25 / 127.5
"""A tenth of the range: cloud that nobody overlooks."""

SEEDS = 3
"""Clouds drawn over every clear image."""


class Truth(NamedTuple):
    """Where an image is truly cloudy, and which pixels count."""

    cloudy: Bool
    counts: Bool


Case = tuple[Float, dict[str, Truth]]
"""An image, and what is true of it by kind of truth."""


def simulated(folder: Path, pattern: str, bands: list[int], spectrum: tuple[str, ...]) -> Iterator[Case]:
    """Simulated clouds over the clear images of a folder."""
    for number, path in enumerate(sorted(folder.glob(pattern))):
        clear = np.ascontiguousarray(read_image(path)[bands])
        for seed in range(SEEDS):
            drawn = simulate(clear, spectrum, np.random.default_rng([number, seed, 7]))
            visible = (drawn.mask > 0) & (np.abs((drawn.cloudy - clear).mean(axis=0)) >= VISIBLE)
            kinds = {"cloud": visible & (drawn.mask != SHADOW), "visible": visible, "mask": drawn.mask > 0}
            yield drawn.cloudy, {k: Truth(truth, truth | (drawn.mask == 0)) for k, truth in kinds.items()}


def real(folder: Path) -> Iterator[Case]:
    """Real pairs, judged by what differs; what is clear, by the cloudy or by the clear date."""
    for path in sorted((folder / "cloudy").iterdir()):
        cloudy, clear = read_image(path), read_image(folder / "clear" / path.name, path)
        reduced = (slice(None), slice(None, None, 2), slice(None, None, 2))
        matched = fit_tone(cloudy[reduced], clear[reduced]).apply(clear)
        difference = ndimage.gaussian_filter(cloudy - matched, (0, PAIR_SMOOTHING, PAIR_SMOOTHING))
        size, change = np.abs(difference).max(axis=0), difference.mean(axis=0)
        kinds = {
            "bright cloud": change >= BRIGHT,
            "cloud": change >= VISIBLE,
            "visible": np.abs(change) >= VISIBLE,
            "any": size >= ANY,
        }
        same = {kind: Truth(truth, truth | (size < CLEAR_DIFFERENCE)) for kind, truth in kinds.items()}
        yield cloudy, same | {f"{kind}, clear date": Truth(truth, truth) for kind, truth in kinds.items()}
        none, all_of_it = np.zeros(size.shape, bool), np.ones(size.shape, bool)
        yield clear, {f"{kind}, clear date": Truth(none, all_of_it) for kind in kinds}


def drawn(folder: Path, bands: list[int]) -> Iterator[Case]:
    """Images with masks that people drew."""
    for path in sorted((folder / "image").iterdir()):
        mask = np.asarray(Image.open(folder / "mask" / f"{path.stem}.png"))
        image = np.ascontiguousarray(read_image(path)[bands])
        yield image, {"drawn": Truth(mask > 0, np.ones(mask.shape, bool))}


@dataclass
class Counts:
    """What one kind of truth has come to so far."""

    scores: Scores = field(default_factory=Scores)
    clear_tiles: int = 0
    sampled: int = 0

    def add(self, found: Float, truth: Truth, least: float) -> None:
        """Count the pixels and the tiles of an image."""
        self.scores.add(found, truth.cloudy, truth.counts)
        for row in range(0, max(1, found.shape[0] - 255), 256):
            for col in range(0, max(1, found.shape[1] - 255), 256):
                tile = (slice(row, row + 256), slice(col, col + 256))
                if not truth.cloudy[tile].any():
                    self.clear_tiles += 1
                    self.sampled += bool((found[tile] >= least).any())


def measure(name: str, model: Model, cases: Iterator[Case]) -> None:
    """Print one line for each kind of truth."""
    detector = model.detector
    assert detector is not None
    counts: dict[str, Counts] = {}
    seconds, pixels, factor, least = 0.0, 0, detector.config.factor, detector.config.threshold
    for image, truths in cases:
        began = time.perf_counter()
        coarse = model.detect(torch.from_numpy(image[None]))[0, RESTORE].numpy()
        seconds, pixels = seconds + time.perf_counter() - began, pixels + image[0].size
        found = coarse.repeat(factor, axis=0).repeat(factor, axis=1)[: image.shape[1], : image.shape[2]]
        for kind, truth in truths.items():
            counts.setdefault(kind, Counts()).add(found, truth, least)
    for kind, of_kind in counts.items():
        scores, at = of_kind.scores, of_kind.scores.figures(least)
        print(
            f"{name + ', ' + kind:<32} recall {at['recall']:.3f}  false alarms {at['false_alarms']:.3f}  "
            f"recall at 0.10 {at['recall_at_0.10']:.3f}  "
            f"clear tiles sampled {of_kind.sampled}/{of_kind.clear_tiles}  "
            f"cloudy {scores.cloudy.sum() / (scores.cloudy.sum() + scores.clear.sum()):.2f}",
            flush=True,
        )
    print(f"{name}: {1e9 * seconds / max(1, pixels):.0f} ns a pixel", flush=True)


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
        measure("NAIP", model, simulated(chips, "*.tif", [2, 1, 0, 3], spectrum))
        measure("others", model, simulated(data / "clear4", "*bgrn.tif", [0, 1, 2, 3], spectrum))
        measure("masks4", model, drawn(data / "masks4" / "test", [0, 1, 2, 3]))
    else:
        test = data / "pairs" / "rice2" / "test"
        measure("simulated", model, simulated(test / "clear", "*", [0, 1, 2], spectrum))
        measure("pairs", model, real(test))


if __name__ == "__main__":
    main()
