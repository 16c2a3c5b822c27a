"""Describe a model for fewer bands as a fold of one for more: a few lines of TOML in the place of weights.

How the weights are folded is in `fewer_bands.without_band`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from decr_scene.models.errors import CheckpointError
from decr_scene.models.value_types import read_toml_text

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.model_file import ModelConfig

Mix = tuple[tuple[str, float], ...]
"""Bands and their shares of the light that stands in for that of another band."""

LEAST_SHARE = 0.001
"""Of a band in a mix; smaller ones are a slip."""

FOLD_ENDING = ".toml"
"""Of a file that has a fold in the place of weights."""

MODEL_ENDINGS = (".safetensors", FOLD_ENDING)
"""Of files with weights, and of folds."""


@dataclass(frozen=True)
class Fold:
    """A smaller model made of a larger one: the band that is left out, and the band that takes its place.

    Args:
        model: The file with the weights, in the folder of the fold's own.
        band: The band that is to go.
        into: The band that takes its place.
        name: Of the smaller model.
        about: One line about it; empty: made of the larger model's name.
        mix: What the first guess sees in its place instead, as shares of the light of bands; empty: ``into``.
    """

    model: Path
    band: str
    into: str
    name: str
    about: str = ""
    mix: Mix = ()

    def about_line(self, larger: str) -> str:
        """Return the line about the smaller model, by the larger one's name."""
        return self.about or f"{larger} without {self.band}"

    def config(self, larger: ModelConfig) -> ModelConfig:
        """Describe the smaller model.

        Raises:
            CheckpointError: The larger one lacks one of the bands, or has networks that cannot be folded.
        """
        spectrum = larger.info.get("spectrum", larger.bands)
        if isinstance(spectrum, (list, tuple)):
            spectrum = [band for band in spectrum if band != self.band]
        seen = f", seen as {mix_in_words(self.mix)}" if self.mix else ""
        info = {
            "about": self.about_line(larger.name),
            "folded": f"{self.band} into {self.into}{seen}",
            "spectrum": spectrum,
        }
        fewer = config_without_band(larger, self.band, self.into, self.mix)
        return replace(fewer, name=self.name, info={**larger.info, **info})


def read_fold(path: str | Path) -> Fold:
    """Read a fold: TOML with ``model``, ``band``, ``into``, ``about`` and, if there is one, ``mix``.

    Raises:
        CheckpointError: There is no such file, or it is none.
    """
    path = Path(path)
    keys = ("model", "band", "into", "about")
    try:
        values = tomllib.loads(read_toml_text(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no model file ({error}): name another, or copy it again") from error
    if set(values) - {"mix"} != set(keys) or not all(isinstance(value, str) for value in values.values()):
        keys_there = ", ".join(values) or "nothing"
        raise CheckpointError(
            f"{path} has {keys_there}: a model in TOML has {', '.join(keys)} and maybe mix, each a text"
        )
    if Path(values["model"]).name != values["model"] or values["model"].endswith(FOLD_ENDING):
        raise CheckpointError(
            f"{path} is made of {values['model']!r}: name a file with weights in the same folder"
        )
    try:
        mix = read_mix(values.get("mix", ""))
    except ValueError as error:
        raise CheckpointError(f"{path}: mix {error}") from None
    return Fold(
        path.parent / values["model"], values["band"], values["into"], path.stem, values["about"], mix
    )


def read_mix(text: str) -> Mix:
    """Read ``green 0.32, red 0.63``: bands and their shares; a blank text is no mix.

    Raises:
        ValueError: It is something else, a share is below `LEAST_SHARE`, or all are above 1 together.
    """
    if not text.strip():
        return ()
    try:
        named = [part.rsplit(maxsplit=1) for part in text.split(",")]
        mix = tuple((band.strip(), float(share)) for band, share in named)
    except ValueError:
        mix = ()
    least = min((share for _, share in mix), default=0.0)
    if len(dict(mix)) < len(mix) or not (least >= LEAST_SHARE and sum(dict(mix).values()) <= 1):
        raise ValueError(
            f"is {text!r}, expected bands, each once, and their shares, of {LEAST_SHARE:g} to 1 together: "
            "green 0.32, red 0.63"
        )
    return mix


def mix_in_words(mix: Mix) -> str:
    """Write a mix as `read_mix` reads it, to the last digit."""
    return ", ".join(f"{band} {share}" for band, share in mix)


def config_without_band(config: ModelConfig, band: str, stand_in: str, mix: Mix = ()) -> ModelConfig:
    """Describe a model less one band, under its old name.

    Raises:
        CheckpointError: The model lacks one of the bands, or has networks that cannot be folded.
    """
    for name in (band, stand_in, *(name for name, _ in mix)):
        if name not in config.bands:
            raise CheckpointError(f"model {config.name} has bands {', '.join(config.bands)}, no {name!r}")
    if band == stand_in or band in dict(mix):
        raise CheckpointError(f"{band!r} cannot stand in for itself: name another band")
    detector = config.detector
    published = config.reference.kind != "unet" or (detector is not None and detector.family != "unet")
    if config.network is None or published:
        raise CheckpointError(f"model {config.name} has a published reference or detector: not folded")
    fewer, grown = len(config.bands) - 1, config.network.grown
    if grown is not None:
        grown = replace(grown, trunk=replace(grown.trunk, bands=fewer))
    return replace(
        config,
        bands=tuple(name for name in config.bands if name != band),
        network=replace(config.network, bands=fewer, grown=grown),
        reference=replace(config.reference, bands=fewer),
        detector=None if detector is None else replace(detector, bands=fewer),
    )
