"""What a user may choose, checked once: values that cannot be wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.defaults import BLENDS, DETECTORS, MODEL, OVERLAP
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.names import local_files
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.mask_values import Rule
from decr_scene.pipeline.restoration.restorers import Restorer

_NAMES_OF_FILES = ("model", "mask", "aoi", "pan")

_KINDS: dict[type, tuple[str, tuple[str, ...]]] = {
    Integral: ("a whole number", ("steps", "start", "seed", "overlap", "halo", "batch_size", "samples")),
    Real: ("a number", ("weight_floor", "gain")),
    str: ("text", ("blend", "device", "precision", "bands", "mask_values", "detector", "asset")),
}
"""Of what type the other options are, in words, by that type."""

OLD_NAMES = {"reference": "other_date"}
"""Names that an option had in the release before, which are still taken."""


class Choices(TypedDict, total=False):
    """The fields of `Options` as keywords, so that a type checker sees a misspelt one."""

    model: str
    restorer: Restorer | None
    steps: int | None
    start: int | None
    weight_floor: float | None
    gain: float | None
    seed: int
    overlap: int
    halo: int | None
    blend: str
    batch_size: int | None
    device: str
    precision: str
    bands: str | None
    scale: tuple[float, float] | None
    mask: str
    mask_values: str | None
    detector: str
    samples: int
    uncertainty: bool
    other_date: str | Sequence[str] | None
    aoi: str | None
    pan: str | None
    asset: str | None


@dataclass(frozen=True)
class Options:
    """What a user may choose; the names are those of the command line.

    Args:
        model: Bundled name, model file, ``identity``, or ``fill``, the tone of the clear ground around.
        restorer: A callable in the place of a model, ``(tiles, noise) -> tiles``. With an attribute
            ``needs_noise`` that is false it is given ``None`` for noise, which need not be drawn then.
        steps: Diffusion steps; ``None``: the model's own default.
        start: Diffusion step to start at from the noised first guess; ``None``: the model's own default.
        weight_floor: Least weight of the first guess (the paper's eta); ``None``: the model's own.
        seed: Of the noise.
        overlap: Least overlap of tiles, px.
        halo: How far beyond its tile the first guess sees, px; ``None``: the model's own.
        blend: ``feather``: finished tiles are feathered; ``joint``: so are their estimates at every diffusion
            step, in squares of 4 x 4 tiles, which are then denoised as one picture.
        batch_size: Tiles in a batch; of ``feather``. ``None``: 8, or without a GPU fewer in small scenes,
            down to as many as are computed at the same time, so that less is lost when a run is killed.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        bands: What the scene's bands are, such as ``blue,green,red,nir``, where the file does not say.
        scale: ``(low, high)`` DN for all bands instead of the fitted limits.
        mask: A raster that says where cloud is: 0 clear and else cloud, probabilities from 0.5 on, or one of
            the conventions in `regions.conventions`; ``none``: whatever the model changes; ``auto``: where
            the detector sees cloud or shadow; without one, wherever the model changes more than a little.
        mask_values: Which values of the mask are cloud, such as ``3,8-10``, ``bit3,bit4``, or ``6:1`` of band
            6; ``None``: as the mask itself tells.
        detector: Who looks at the scene as a whole. ``model``: the model's own detector; ``ukis``:
            ukis-csmask, on scenes with blue, green, red and nir, or, for ``rgb`` and ``fill``, without nir;
            ``none``; ``auto``: on pixels of 5 m and more ukis, if it is installed and the scene has its
            bands, else the model's own if it has one, for ``fill`` that of ``default`` or, without nir, of
            ``rgb``; else ukis. With ``auto``, where ukis looks, and where the model's file says that its
            detector overlooks veils, what the model itself changes much is changed as well; where ukis looks
            at 7 m and more, only as far as it darkens.
        samples: Results of each tile, of as many seeds. The output is that of ``seed``, whatever their
            number; how far they differ is written beside it.
        uncertainty: Write the error to be expected of each pixel beside it, which the model file tells of.
        other_date: A raster of the same ground at another date, or several. They are laid over the scene,
            brought into its colours, and taken for the first guess where that sees cloud or shadow, but where
            they have cloud of their own, if a detector looks. The scene itself among them is left out.
        aoi: A vector file with polygons: only inside does anything change, whatever the mask.
        pan: The panchromatic raster that goes with the scene, which is then sharpened with it on the fly;
            ``none``: not even the one in the scene's folder.
        asset: Of a STAC Item in the place of the scene: the name of the asset to take, where it is not the
            only one of role ``data``.
        gain: Factor of the detail that sampling adds to the first guess; ``None``: the model's own, 1 with
            other steps.
    """

    model: str = MODEL
    restorer: Restorer | None = None
    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    seed: int = 0
    overlap: int = OVERLAP
    halo: int | None = None
    blend: str = "feather"
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    bands: str | None = None
    scale: tuple[float, float] | None = None
    mask: str = "auto"
    mask_values: str | None = None
    detector: str = "auto"
    samples: int = 1
    uncertainty: bool = False
    other_date: str | Sequence[str] | None = None
    aoi: str | None = None
    pan: str | None = None
    asset: str | None = None
    gain: float | None = None

    def __post_init__(self) -> None:
        for name in _NAMES_OF_FILES:
            object.__setattr__(self, name, as_text(name, getattr(self, name)))
        object.__setattr__(self, "other_date", _plain_names("other_date", self.other_date))
        for kind, (words, names) in _KINDS.items():
            for name in names:
                _check_kind(name, getattr(self, name), kind, words)
        if self.restorer is not None and not callable(self.restorer):
            raise OptionError(
                f"restorer is a {type(self.restorer).__name__}, expected a callable: name a model with model"
            )
        for name in (*_NAMES_OF_FILES, "other_date", "bands", "asset"):
            if "" in (getattr(self, name), *(self.other_dates if name == "other_date" else ())):
                raise OptionError(f"{name} is empty: leave it out, or is a variable of the shell not set?")
        _check_range("steps", self.steps, 1, 1000)
        _check_range("weight_floor", self.weight_floor, 0, 1)
        _check_range("gain", self.gain, 0, 8)
        _check_range("overlap", self.overlap, 0, 128)
        _check_range("halo", self.halo, 0, 512)
        _check_range("batch_size", self.batch_size, 1, 4096)
        _check_range("samples", self.samples, 1, 1000)
        if self.blend not in BLENDS:
            raise OptionError(f"blend must be {' or '.join(BLENDS)}, got {self.blend}")
        if self.detector not in DETECTORS:
            raise OptionError(f"detector must be {', '.join(DETECTORS[:-1])} or none, got {self.detector}")
        if self.mask_values is not None:
            Rule.parse(self.mask_values)
            if self.mask in ("auto", "none"):
                raise OptionError(
                    f"mask_values {self.mask_values} says what a raster's values mean, but mask is "
                    f"{self.mask}: name the raster with mask, or leave mask_values out"
                )
        if self.scale is not None and not _is_range(self.scale):
            raise OptionError(
                f"scale must be low,high with low < high, apart and finite in 32 bits, got {self.scale}"
            )
        self._make_plain()

    def _make_plain(self) -> None:
        """Convert numbers of numpy to Python's: options go into JSON."""
        for kind, plain in ((Integral, int), (Real, float)):
            for name in _KINDS[kind][1]:
                if (value := getattr(self, name)) is not None:
                    object.__setattr__(self, name, plain(value))
        if self.scale is not None:
            object.__setattr__(self, "scale", tuple(map(float, self.scale)))

    @property
    def other_dates(self) -> tuple[str, ...]:
        """List the rasters of other dates."""
        return several(self.other_date)

    @property
    def uncertainty_of(self) -> str:
        """Name what the uncertainty is the standard deviation of, or nothing if none is written."""
        both = [("expected error", self.uncertainty), ("samples", self.samples > 1)]
        return " and ".join(what for what, is_asked in both if is_asked)

    @staticmethod
    def given(
        options: Options | None, named: Mapping[str, Any], others: Iterable[str] | None = None
    ) -> Options:
        """Join options given as one value with those given by name, which take precedence.

        Args:
            options: All of them; ``None``: the defaults.
            named: Fields by name.
            others: Names that the caller takes besides, to suggest where one is misspelt.

        Raises:
            OptionError: A name is none of an option, or a value is out of range.
        """
        if not isinstance(options, (Options, type(None))):
            raise OptionError(f"options is a {type(options).__name__}, expected an Options")
        names = [field.name for field in fields(Options)]
        values = {}
        for name, value in named.items():
            current = OLD_NAMES.get(name, name)
            if current not in names:
                raise OptionError(_unknown(name, [*names, *(others or ())]))
            if current != name:
                warnings.warn(f"option {name} is now called {current}", DeprecationWarning, stacklevel=3)
            values[current] = value
        return replace(options or Options(), **values)


def _unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"take some of {', '.join(sorted(known))}"
    return f"there is no option {name}: {hint}"


def as_text(name: str, value: Any) -> str | None:
    """Convert the name of a file, which may be a path, to text; ``None`` is one where it is the default.

    Raises:
        OptionError: It is neither.
    """
    if value is None and name in ("aoi", "pan", "polygons"):
        return None
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise OptionError(f"{name} is a {type(value).__name__}, expected a path or a name")
    return text


def several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """List the values of an option that may have none, one or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain_names(name: str, value: Any) -> str | tuple[str, ...] | None:
    """Convert names of files, of which there may be none, one or several, to text.

    Raises:
        OptionError: One is none.
    """
    if not isinstance(value, (list, tuple)):
        return None if value is None else as_text(name, value)
    names = tuple(str(as_text(name, each)) for each in value)
    return names[0] if len(names) == 1 else names or None


def _check_kind(name: str, value: Any, kind: type, words: str) -> None:
    """Refuse a value of another type; ``None`` is one where it is the default."""
    if value is None and getattr(Options, name) is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise OptionError(f"{name} is a {type(value).__name__}, expected {words}")


def _is_range(scale: Any) -> bool:
    """Return whether these are two numbers, the lower one first, and finite and apart in 32 bits."""
    try:
        low, high = map(float, scale)
    except (TypeError, ValueError):
        return False
    with np.errstate(over="ignore"):
        return bool(-np.inf < np.float32(low) < np.float32(high) < np.inf)


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise OptionError(f"{name} must be in {low} to {high}, got {value}")


_ROLES = {
    "pan": "the input itself",
    "aoi": "the area of interest itself",
    "other_date": "the raster of another date itself",
}
"""What an input is to a reader of an error; else by the name of its option."""


def named_inputs(src: str | Path, chosen: Options) -> list[tuple[str, str | Path | None]]:
    """List the files that the options name, with what each is, before anything is opened."""
    named: list[tuple[str, str | Path | None]] = [("the input itself", path) for path in local_files(src)]
    for option in ("mask", "other_date", "pan", "model", "aoi"):
        role = _ROLES.get(option, f"the {option} itself")
        for value in several(getattr(chosen, option)):
            named += [(role, file) for file in local_files(value.partition("|layername=")[0])]
    return named


def other_rasters(mask: str, other_date: str | Sequence[str] | None) -> list[str]:
    """List the files that mask and other dates are made of, their links followed."""
    paths = []
    for name in (*(() if mask in ("auto", "none") else (mask,)), *several(other_date)):
        paths += local_files(name)
        with suppress(DecrSceneError):  # whoever needs it will say what is wrong with it
            paths += RasterioScene.open(name).other_files()
    return [os.path.realpath(path) for path in paths]


def state_of_named_files(
    mask: str, other_date: str | Sequence[str] | None, aoi: str | None
) -> list[list[Any]]:
    """Return name, bytes and time of change (ns) of the files that decide what is changed.

    Their folder does not count: it may be mounted elsewhere.
    """
    area = [] if aoi is None else local_files(aoi.partition("|layername=")[0])
    paths = [*other_rasters(mask, other_date), *area]
    states = [(os.path.basename(path), os.stat(path)) for path in dict.fromkeys(paths)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in states]
