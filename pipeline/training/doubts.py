"""Tell what is doubtful about a run that can be trained: before its work, or at its end."""

from __future__ import annotations

import csv
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from decr_scene.models.checkpoints.model_file import model_sha256
from decr_scene.models.data.layout import find_pairs
from decr_scene.models.errors import CheckpointError, TrainingError, UnknownModelError
from decr_scene.models.training.config import WEIGHING, RunConfig
from decr_scene.models.training.logs import METRICS
from decr_scene.models.training.loop import CHECKPOINT
from decr_scene.models.training.weights import read_trained
from decr_scene.pipeline.training.run_folder import weights_begun_with, weights_of

JUDGED = frozenset({"fake", "real"})
"""Losses of a critic, which are 0 where it judges nothing."""


def of_other_bands(config: RunConfig, out: Path, initial: tuple[Path, ...]) -> list[str]:
    """Tell of initial weights that were trained on other bands than a run has, unless it has begun."""
    if (out / CHECKPOINT).exists():
        return []
    told = []
    for place in initial:
        bands = read_trained(weights_of(place)).bands
        if bands is not None and bands != config.bands:
            told.append(
                f"{place} was trained on {', '.join(bands)}, this run has {', '.join(config.bands)}: what it "
                "has learnt of a band is taken for the one in its place"
            )
    return told


def passed_over(out: Path, initial: tuple[Path, ...]) -> list[str]:
    """Tell of initial weights that a run which has begun did not begin with: it goes on from its own."""
    began_with = weights_begun_with(out)
    if began_with is None:
        return []
    others = []
    for place in initial:
        with suppress(UnknownModelError, CheckpointError):  # those of before are no longer needed
            if model_sha256(weights_of(place)) not in began_with:
                others.append(str(place))
    if not others:
        return []
    return [
        f"{out} has begun, and not with {', '.join(others)} as it is now: it goes on from its own weights; "
        "take another --out to begin with others"
    ]


def held_out_in_vain(config: RunConfig, data: Path) -> list[str]:
    """Tell of names to be held out that no image has, of the tables that say so: a slip of the pen."""
    found: dict[tuple[str, str], bool] = {}
    for part in config.data:
        if not part.holdout:
            continue
        try:
            names = [pair.name for pair in find_pairs(part, data, len(config.bands))[0]]
        except TrainingError:  # told with whatever else is wrong when the images are read
            return []
        for first, last in part.holdout:
            there = any(first <= name <= last for name in names)
            found[first, last] = found.get((first, last), False) or there
    return [
        f"no image has a name from {first!r} to {last!r}: nothing is held out by that"
        for (first, last), there in found.items()
        if not there
    ]


def chosen_on_nothing(config: RunConfig) -> list[str]:
    """Tell of a detector that no images are held out for, so that its threshold is never chosen."""
    judged = [part for part in config.data if part.holdout and part.judged and (part.simulate or part.cloudy)]
    if config.detector is None or judged:
        return []
    return [
        f"no images are held out: the threshold stays {config.detector.threshold:g}, and nothing tells how "
        "much the detector finds; set holdout in a [[data]] table"
    ]


def untrained(config: RunConfig, out: Path, initial: tuple[Path, ...]) -> list[str]:
    """Tell of networks that a stage takes as they are and that nothing has trained, unless it has begun."""
    if (out / CHECKPOINT).exists() or config.network is None:
        return []
    taken = {"reference.": "reference"}
    if config.stage == "weight":
        taken["network.noise_net."] = "noise network"
    if config.stage not in WEIGHING and not (config.stage == "diffusion" and config.network.guided):
        return []
    given = [name for place in initial for name in read_trained(weights_of(place)).weights]
    lacking = [told for prefix, told in taken.items() if not any(name.startswith(prefix) for name in given)]
    if not lacking:
        return []
    return [
        f"no --init gives weights of the {' and the '.join(lacking)}, which stage {config.stage} leaves "
        "untrained: begin from the runs that trained them, each with --init"
    ]


def painted_nowhere(config: RunConfig, out: Path, seen: Set[str]) -> list[str]:
    """Tell of a critic that has judged nothing, because the network's cover never covered anything.

    Args:
        config: The run.
        out: Its folder; its table tells of earlier calls.
        seen: Names of the figures that were above 0 at any step of this call.
    """
    if config.critic is None or config.network is None or not seen or seen & JUDGED:
        return []
    with (out / METRICS).open(encoding="utf-8", newline="") as file:
        if any(float(row.get(name) or 0) > 0 for row in csv.DictReader(file) for name in JUDGED):
            return []
    low, _ = config.network.covered or (0.0, 0.0)
    return [
        "the critic has judged nothing, its losses were 0 at every step: nowhere does the first guess change "
        f"the image by more than {low:g}, where covered begins; train the reference first, or set that lower"
    ]
