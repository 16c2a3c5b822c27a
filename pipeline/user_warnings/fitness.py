"""Whether a scene is of the kind that its model was made for: its pixels' size, its bands, its scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import ground_size
from decr_scene.pipeline.restoration.plan import Planned

SLACK = 1.25
"""Factor by which pixels may be smaller or larger than a model's without a warning."""

OF_BUNDLED = {"default": (0.3, 5.0), "rgb": (0.3, 5.0), "rice2": (30.0, 30.0)}
"""Sides of pixels, m, from the cards of models whose files do not tell."""

LEFT_OR_OF_WRONG_SIZE = (
    "cloud may be left, and what is put in its place may be of the wrong size; take another model, or check "
    "the result"
)
"""What comes of pixels of another size where a model restores."""

OVERLOOKED = "its detector, which looks here, may overlook cloud; check decr-scene mask, or give --mask FILE"
"""What comes of them where it only lends its detector."""


def misfits(planned: Planned, scene: RasterioScene) -> tuple[str, ...]:
    """List where a scene is not of the kind that its model was made for, one sentence each.

    A restorer without weights fits any; the detector that is lent to it does not.
    """
    spec, lender = planned.plan.spec, None if planned.look is None else planned.look.lender
    name = lender if spec.bands is None else spec.name
    if name is None:
        return ()
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    config = read_model_config(find_model(name))
    if spec.bands is None:
        text = _pixels(name, config.info, ground_size(scene), OVERLOOKED)
        return () if text is None else (text,)
    warnings = [
        _pixels(config.name, config.info, ground_size(scene)),
        _spectrum(config.name, config.info, planned),
        _scaling(config.name, config.scaling, planned.plan.radiometry, _is_picture(scene, planned)),
    ]
    return tuple(text for text in warnings if text is not None)


def _pixels(
    name: str, info: Mapping[str, Any], side: float | None, so: str = LEFT_OR_OF_WRONG_SIZE
) -> str | None:
    """Say that pixels are of another size than the model's, and ``so`` what may come of it."""
    stated = info.get("pixels", OF_BUNDLED.get(name))
    if stated is None:
        return None
    if (limits := _two_numbers(stated)) is None:
        return (
            f"model {name} says {_shortly(stated)} of its pixels, expected their least and greatest size in m"
        )
    low, high = limits
    if side is None or low / SLACK <= side <= high * SLACK:
        return None
    made_for = f"{low:g} m" if low == high else f"{low:g} to {high:g} m"
    return f"the scene's pixels are {side:.3g} m, and model {name} was made for {made_for}: {so}"


def _spectrum(name: str, info: Mapping[str, Any], planned: Planned) -> str | None:
    """Say that the bands are of another part of the spectrum than their names in the model stand for."""
    bands, stated = planned.plan.spec.bands or (), info.get("spectrum", ())
    if not isinstance(stated, (list, tuple)):
        return f"model {name} says {_shortly(stated)} of its spectrum, expected the names of its bands"
    spectrum = tuple(map(str, stated))
    own = {label.lower() for number, label in enumerate(planned.bands) if number not in planned.plan.indexes}
    known = [band for band in spectrum if band not in bands and any(text.startswith(band) for text in own)]
    if not known:
        return None
    theirs, ours, other = (", ".join(names) for names in (spectrum, bands, known))
    return (
        f"model {name} was made for {theirs} in the place of {ours}, and the scene has {other} as a band of "
        f"its own, so its {ours} are what they are called: take a model for these bands"
    )


def _is_picture(scene: RasterioScene, planned: Planned) -> bool:
    """Return whether a scene is a picture of 8 bits, whose limits are not fitted."""
    return bool(scene.dtype == np.uint8 and not planned.plan.radiometry.of_bytes)


def _scaling(name: str, stated: Mapping[str, Any], radiometry: Radiometry, is_picture: bool) -> str | None:
    """Say that a model was trained on images of another scaling than the scene gets, or does not tell which.

    It tells two DN, or in words how they are found; of pictures as ``uint8``, of all else as ``other``.
    """
    key = "uint8" if is_picture else "other"
    by_kind = {name: value for name, value in stated.items() if name in ("uint8", "other")}
    value = by_kind.get(key, "" if by_kind else stated or None)
    limits = _two_numbers(value)
    if isinstance(value, str) or (limits is not None and set(_limits_of(radiometry)) == {limits}):
        return None
    advice = "take limits that fit with --scale, or export the model anew"
    if limits is None:
        found = f"says {_shortly(value)}" if stated else "says nothing"
        return (
            f"model {name} {found} of the scaling ({key}) that it was trained with, expected two DN such as "
            f"[0, 255]: it may be another than this scene's; {advice}"
        )
    low, high = limits
    return (
        f"model {name} was trained on DN of {low:g} to {high:g}, and this scene is scaled by "
        f"{_range_of(radiometry)}: take --scale {low:g},{high:g}"
    )


def _limits_of(radiometry: Radiometry) -> list[tuple[float, float]]:
    return list(zip(radiometry.low, radiometry.high, strict=True))


def _range_of(radiometry: Radiometry) -> str:
    return f"{min(radiometry.low):g} to {max(radiometry.high):g}"


def _two_numbers(value: Any) -> tuple[float, float] | None:
    """Read two finite numbers, the lower one first, or return ``None`` for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        return None
    with suppress(OverflowError):
        low, high = float(value[0]), float(value[1])
        return (low, high) if -math.inf < low <= high < math.inf else None
    return None


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
