"""Which restorer the options ask for, as a task carries it: name, digest, how it samples and computes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from decr_scene.pipeline.defaults import BATCH_SIZE
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.restoration.restorers import BUILT_IN, GPU_BATCH, Restorer, RestorerSpec

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.expected_error import ExpectedError
    from decr_scene.models.checkpoints.model_file import ModelConfig

DEEPEST = 8
"""Levels of lists, dictionaries and the like that count in the name of a callable."""

SAMPLING = ("steps", "start", "weight_floor", "gain")
"""Options of how a noise network samples."""


def _name_of(restorer: Restorer) -> str:
    """Name a callable, so that runs differ by it.

    A lambda has no name, so its code is hashed, as are the plain arguments of a partial and the plain fields
    by which a dataclass compares; the name of a built-in restorer gets a prefix.
    """
    name = str(getattr(restorer, "__name__", type(restorer).__name__))
    if name == "<lambda>":
        from distributed.protocol.pickle import dumps

        return f"{name} {hashlib.sha256(dumps(restorer)).hexdigest()[:12]}"
    if isinstance(restorer, partial) or is_dataclass(restorer):
        return f"{name} {hashlib.sha256(_plainly(restorer).encode()).hexdigest()[:12]}"
    return f"callable {name}" if name in BUILT_IN else name


def _plainly(value: object, depth: int = 0) -> str:
    """Tell a value in the same words in every process: of what is not plain or lies deep, its type alone."""

    def told(part: object) -> str:
        return _plainly(part, depth + 1)

    kind = type(value).__qualname__
    if depth > DEEPEST:
        return kind
    if isinstance(value, partial):
        return f"partial{[told(part) for part in (value.func, value.args, value.keywords)]}"
    if isinstance(value, dict):
        return f"dict{sorted((told(key), told(held)) for key, held in value.items())}"
    if isinstance(value, (set, frozenset)):
        return f"set{sorted(map(told, value))}"
    if isinstance(value, (list, tuple)):
        return f"list{[told(part) for part in value]}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array {value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if is_dataclass(value) and not isinstance(value, type):
        compared = [field.name for field in fields(value) if field.compare]
        return f"{kind}{[told(getattr(value, name, None)) for name in compared]}"
    if value is None or isinstance(value, (str, bytes, int, float, complex, np.generic, os.PathLike)):
        return repr(value)
    return str(getattr(value, "__qualname__", kind))


def spec_of(options: Options, elsewhere: bool = False) -> tuple[RestorerSpec, str | None]:
    """Describe the restorer that the options ask for, and give the digest of its model file.

    Args:
        options: The options.
        elsewhere: The model will run on other machines, so it is they that have the device or not.

    Raises:
        OptionError: No such device or precision here, or the schedule has no such steps.
        UnknownModelError: There is no such model.
    """
    if options.restorer is not None:
        return RestorerSpec(
            _name_of(options.restorer), device=options.device, precision=options.precision
        ), None
    if options.model in BUILT_IN:
        return RestorerSpec(options.model), None
    return _spec_of_model(options, elsewhere)


def _spec_of_model(options: Options, elsewhere: bool) -> tuple[RestorerSpec, str]:
    """Describe a bundled model or a model file as a restorer, and give its digest."""
    from decr_scene.models.bundled import bundled_models, find_model
    from decr_scene.models.checkpoints.model_file import model_sha256, read_model_config
    from decr_scene.models.devices import computing_of
    from decr_scene.models.diffusion.schedule import Schedule

    path = find_model(options.model)
    config = read_model_config(path)
    try:
        computing = None if elsewhere else computing_of(options.device, options.precision)
        sampling = config.sampling.replaced(
            options.steps, options.start, options.weight_floor, options.halo, options.gain
        )
        Schedule().pairs(sampling.steps, sampling.first_step)
    except ValueError as error:
        raise OptionError(str(error)) from error
    digest = model_sha256(path)
    name = options.model if options.model in bundled_models() else os.path.abspath(path)
    spec = RestorerSpec(
        name,
        tuple(config.bands),
        sampling.steps,
        sampling.start,
        sampling.weight_floor,
        sampling.halo,
        options.device,
        options.precision,
        computing,
        min(options.batch_size or BATCH_SIZE, GPU_BATCH),
        sha256=digest,
        context=config.reference.context,
        windows=config.reference.takes_windows and sampling.halo > 0,
        side_by_side=config.network is not None and config.network.grown is not None,
        alone=config.network is None,
        error=config.error,
        gain=sampling.gain,
        natural=in_natural_colour(config),
    )
    return spec, digest


def in_natural_colour(config: ModelConfig) -> bool:
    """Return whether a model says that blue, green and red among its bands are what they are called."""
    stated = config.info.get("spectrum", ())
    own = zip(config.bands, stated, strict=False) if isinstance(stated, (list, tuple)) else ()
    return {"blue", "green", "red"} <= {band for band, light in own if band == light}


def check_tile_side(spec: RestorerSpec, side: int) -> None:
    """Refuse a model that takes images of one size alone, which is not that of the tiles.

    Raises:
        OptionError: It takes no such tiles.
    """
    if not spec.alone:  # torch, which nothing else may need, takes a second to import
        return
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    only = read_model_config(find_model(spec.name)).reference.only_side
    if only not in (None, side):
        raise OptionError(
            f"model {spec.name} takes images of {only} x {only} px alone, tiles are {side} x {side}: train "
            "one of that side, or measure this one with decr-scene evaluate"
        )


def expected_error_of(spec: RestorerSpec) -> ExpectedError:
    """Return the error to be expected of a restorer's answers, which its model file tells.

    Raises:
        OptionError: It has no model file, or the file states none.
    """
    if spec.error is not None:
        return spec.error
    if spec.bands is None:
        raise OptionError(
            f"{spec.name} has no model file to tell the error to be expected: drop --uncertainty"
        )
    raise OptionError(
        f"model {spec.name} states no error to be expected: drop --uncertainty, or fit one on pairs that it "
        "has not seen with decr-scene models calibrate"
    )


def sampling_warnings(spec: RestorerSpec, options: Options) -> tuple[str, ...]:
    """Warn of options of sampling without effect, or that the error to be expected knows nothing of."""
    given = [name for name in SAMPLING if getattr(options, name) is not None]
    if not given:
        return ()
    names = ", ".join(name.replace("_", "-") for name in given)
    if spec.bands is None or spec.alone:
        return (f"{names}: without effect, as {spec.name} has no noise network that samples",)
    if options.uncertainty:
        return (f"uncertainty: what it states was fitted on the model's own sampling, not on this {names}",)
    return ()
