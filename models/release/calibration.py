"""Measure how well a detector separates cloudy from clear pixels, and choose its threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from decr_scene.models.arrays import Float
from decr_scene.models.errors import TrainingError
from decr_scene.models.networks.detector import RESTORE, Detector, DetectorConfig
from decr_scene.models.training.labels import LabelledSource

CALIBRATION = "detector.json"
"""In a run folder: the detector's configuration with its threshold, and the figures that it was chosen by."""

CROPS = 400
"""Crops that a threshold is chosen on, of each kind."""

_BINS = 1000
"""Bins of a histogram of probabilities."""


@dataclass
class Scores:
    """Histograms of the probabilities of truly cloudy and truly clear pixels."""

    cloudy: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    clear: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, probability: Float, cloudy: NDArray[np.bool_], counts: NDArray[np.bool_]) -> None:
        """Count the pixels of an image where ``counts`` is true, all arrays ``(H, W)``."""
        bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
        self.cloudy += np.bincount(bins[cloudy & counts], minlength=_BINS)
        self.clear += np.bincount(bins[~cloudy & counts], minlength=_BINS)

    def recall(self, threshold: float) -> float:
        """Return the share of the cloudy pixels that are detected."""
        return _share_from(self.cloudy, threshold)

    def false_alarms(self, threshold: float) -> float:
        """Return the share of the clear pixels that are taken for cloudy."""
        return _share_from(self.clear, threshold)

    def threshold(self, false_alarms: float) -> float:
        """Return the least threshold, in whole thousandths, with at most this share of false alarms."""
        above = np.append(np.cumsum(self.clear[::-1])[::-1], 0) / max(1, self.clear.sum())
        return float(np.argmax(above <= false_alarms)) / _BINS

    def figures(self, threshold: float) -> dict[str, float]:
        """Return recall and false alarms at a threshold, and the recall at a tenth of false alarms."""
        return {
            "recall": self.recall(threshold),
            "false_alarms": self.false_alarms(threshold),
            "recall_at_0.10": self.recall(self.threshold(0.10)),
        }


def score(detector: Detector, source: LabelledSource, size: int, spectrum: tuple[str, ...]) -> Scores:
    """Score `CROPS` labelled crops of a source that is not in the training."""
    scores = Scores()
    for number in range(CROPS):
        image, labels, _ = source.crop(np.random.default_rng([number, 2]), size, spectrum)
        probability = detector.probability(torch.from_numpy(image[None]))[0, RESTORE].numpy()
        scores.add(probability, labels[0] > 0.5, labels[2] > 0.5)
    return scores


def calibrate(
    detector: Detector,
    sources: Mapping[str, Sequence[LabelledSource]],
    size: int,
    spectrum: tuple[str, ...],
    folder: Path,
) -> dict[str, float]:
    """Choose the threshold and write it, with the figures, into the run's folder.

    Args:
        detector: With its weights.
        sources: Kinds of truth: simulated cloud, and real pairs and drawn masks; the strictest threshold is
            taken.
        size: Side of a crop, px.
        spectrum: Physical names of the bands.
        folder: Of the run.

    Returns:
        The threshold and, for each kind, recall and false alarms.
    """
    scores = {}
    for kind, parts in sources.items():
        scores[kind] = Scores()
        for part in parts:
            of_part = score(detector, part, size, spectrum)
            scores[kind].cloudy += of_part.cloudy
            scores[kind].clear += of_part.clear
    allowed = detector.config.false_alarms
    thresholds = [each.threshold(allowed) for each in scores.values()] or [detector.config.threshold]
    threshold = float(np.clip(max(thresholds), 0.01, 0.99))
    figures = {"threshold": threshold}
    for kind, each in scores.items():
        figures |= {f"{kind}_{name}": value for name, value in each.figures(threshold).items()}
    config = replace(detector.config, threshold=threshold)
    text = json.dumps({"config": asdict(config), "figures": figures}, indent=2)
    (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")
    return figures


def read_calibration(folder: Path) -> tuple[DetectorConfig, dict[str, float]]:
    """Read configuration, with the chosen threshold, and figures of a finished detector run.

    Raises:
        TrainingError: The folder holds none.
    """
    path = folder / CALIBRATION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = values["config"]
        return DetectorConfig(**config | {"widths": tuple(config["widths"])}), values["figures"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error}): name the folder of a finished detector run"
        ) from error


def _share_from(histogram: NDArray[np.int64], threshold: float) -> float:
    """Return the share of a histogram from a threshold on."""
    first = int(np.ceil(threshold * _BINS - 1e-9))
    return float(histogram[first:].sum() / max(1, histogram.sum()))
