"""What makes two runs the same, so that one may go on with what the other left."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.dates import clearness, colours, likeness, other_date, other_dates
from decr_scene.pipeline.look.detectors import BARE_LIGHT, BARE_RATIO, LEAST_SEEN
from decr_scene.pipeline.look.ground import TYPICAL
from decr_scene.pipeline.look.insides import AS_LIGHT, DARK, DEPTH, ENCLOSED, LEAST_LIGHT, LIKELY, RIMMED
from decr_scene.pipeline.look.tone import SIGMA
from decr_scene.pipeline.planning.fit_dates import SURE
from decr_scene.pipeline.raster.fingerprint import fingerprint
from decr_scene.pipeline.raster.radiometry import SATURATED
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions import clear_ground
from decr_scene.pipeline.regions.masks import BARE_SIGMA, CLOSE_RIM, MaskFile
from decr_scene.pipeline.restoration.blending import WHITE_RIM
from decr_scene.pipeline.restoration.plan import Planned
from decr_scene.pipeline.restoration.remnants import (
    BELOW,
    DENSE,
    DETAIL_SIDE,
    LEVEL_PIXEL,
    LEVEL_SIDE,
    MOST,
    RIM,
    WIDE,
)
from decr_scene.pipeline.restoration.restorers import RestorerSpec, computing_values
from decr_scene.pipeline.tiling.windows import SIDE


def run_guard(scene: RasterioScene, planned: Planned, compress: str, blocksize: int) -> dict[str, Any]:
    """Gather what makes two runs the same: everything that the pixels depend on, and nothing else."""
    plan, spec = planned.plan, planned.plan.spec
    # only where there are any: what earlier versions have left of other runs is gone on with
    guessed: dict[str, Any] = {"windows of the first guess": SIDE} if spec.windows else {}
    look = {} if planned.look is None else dict(vars(planned.look))
    if (lender := look.pop("lender", None)) is not None:
        guessed["detector lent by"] = _name_and_digest(lender)
    if look.pop("tones", False):
        guessed["low pass of the first guess's tone"] = SIGMA
    if look.get("fills", False):
        guessed["rim of the mask"] = list(CLOSE_RIM)
        guessed["rims of remnants"] = [RIM, LEVEL_PIXEL, LEVEL_SIDE, TYPICAL]
        guessed["detail of the ground in what gives way"] = [DETAIL_SIDE, *BELOW, *WIDE, *DENSE, MOST]
        if look["veils"]:
            limits = clear_ground.DARKER_LIMITS
            bare = (*BARE_RATIO, *BARE_LIGHT, BARE_SIGMA)
            guessed["veils that are believed"] = [*limits, clear_ground.CELL, clear_ground.WIDE, *bare]
    if look.get("kind") == "model":
        guessed["insides of clouds"] = [LIKELY, DARK, AS_LIGHT, LEAST_LIGHT, ENCLOSED, RIMMED, DEPTH]
    if look.get("kind") == "ukis" and scene.dtype == np.uint8:
        guessed["what is saturated"] = [SATURATED, LEAST_SEEN, WHITE_RIM]
    if plan.radiometry.of_bytes:
        guessed["limits are fitted to 8 bits"] = True
    if isinstance(plan.mask, MaskFile) and (made_of := _made_of(plan.mask.path)):
        guessed["files of the mask"] = made_of
    paths = [] if plan.other is None else [date.path for date in plan.other.dates]
    if made_of := [file for path in paths for file in _made_of(path)]:
        guessed["files of the other date"] = made_of
    if spec.gain not in (None, 1):
        guessed["gain"] = spec.gain
    if plan.radiometry.gamma < 1:
        guessed["curve of the scaling"] = [plan.radiometry.gamma, plan.radiometry.black]
    if plan.other is not None:
        rooms = (colours, clearness, likeness, other_date, other_dates)
        guessed["how other dates are taken"] = [*(room.SETTINGS for room in rooms), SURE, list(CLOSE_RIM)]
        looks = [date.look for date in plan.other.dates]
        guessed["who looks at other dates"] = [
            None if who is None else list(vars(who).values()) for who in looks
        ]
    if plan.aoi is not None and spec.bands is not None:
        guessed["ground that is seen around the area"] = clear_ground.REACH
    expected = {} if plan.error is None else {"expected error": list(vars(plan.error).values())}
    mask = [fingerprint(plan.mask.path), repr(plan.mask.rule)] if isinstance(plan.mask, MaskFile) else None
    return {
        "program": version("decr-scene"),
        "input": fingerprint(scene.path),
        "files of the input": [[name, *_state(name)] for name in scene.other_files()],
        "values of the input": scene.meaning_of_values,
        "model": [
            _model_path(spec),
            planned.model_sha256,
            spec.steps,
            spec.start,
            spec.weight_floor,
            spec.halo,
        ],
        "computing": None if spec.computing is None else computing_values(spec.computing),
        "seed": plan.seed,
        "samples": plan.samples,
        "tiles": [plan.grid.size, plan.grid.overlap, plan.joint],
        "bands": [list(plan.indexes), list(planned.bands)],
        "scaling": [plan.radiometry.low, plan.radiometry.high],
        "mask": [mask, plan.keeps_clear_ground],
        "look": list(look.values()) or None,
        "reference": [fingerprint(path) for path in paths] or None,
        "aoi": None if plan.aoi is None else plan.aoi.digest,
        "compress": compress,
        "blocksize": blocksize,
        **guessed,
        **expected,
    }


def _model_path(spec: RestorerSpec) -> str:
    """Find the file of the model.

    A built-in restorer has its name alone.
    """
    if spec.sha256 is None:
        return spec.name
    from decr_scene.models.bundled import find_model

    return str(find_model(spec.name))


def _name_and_digest(model: str) -> list[str]:
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import model_sha256

    return [model, model_sha256(find_model(model))]


def _made_of(path: str) -> list[list[str | int]]:
    """List what a raster is made of besides its own file, such as the sources of a VRT, in its state."""
    with suppress(DecrSceneError):  # a mask of a kind that is no scene
        return [[name, *_state(name)] for name in RasterioScene.open(path).other_files()]
    return []


def _state(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
