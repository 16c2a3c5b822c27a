"""Which detector looks at a scene, and what follows from what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.bands import select_bands
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.look_plan import COARSE_FROM, FILLED_FROM, THRESHOLD, LookPlan, coarse_factor
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import in_natural_colour
from decr_scene.pipeline.restoration.restorers import RestorerSpec

VISIBLE = ukis.BANDS[:3]
"""Bands of natural colour, with which `ukis-csmask` finds as much cloud, though less shadow."""

LENDERS = ("default", "rgb")
"""Bundled models whose detectors look for ``fill``: the first whose bands the scene has."""


def look_of(
    spec: RestorerSpec,
    options: Options,
    bands: Sequence[str],
    shape: tuple[int, int],
    pixel: float | None,
    lenders: Sequence[str] = LENDERS,
) -> LookPlan | None:
    """Choose what is to look at a scene.

    Args:
        spec: The restorer.
        options: The options.
        bands: Names of the scene's bands.
        shape: Of the scene, px.
        pixel: Side of a pixel, m; ``None``: unknown.
        lenders: Models that lend ``fill`` their detectors, as `LENDERS`.

    Raises:
        OptionError: The detector that is asked for is not there; or the restorer needs one.
        BandError: The scene lacks a band of it.
    """
    needed = spec.context or spec.name == "fill"
    if options.mask not in ("auto", "none"):
        return LookPlan("mask", coarse_factor(shape, pixel), 0.5, gates=False) if needed else None
    gates = options.mask == "auto"
    factor = coarse_factor(shape, pixel)
    look = _detector(spec, options, bands, factor, pixel, lenders) if gates or needed else None
    if spec.name == "fill" and look is None:
        raise OptionError(
            "fill needs to know where cloud is, and nothing looks: take a scene with blue, green and red "
            "(name them with --bands), or give a mask"
        )
    if look is None:
        return None
    fills = gates and look.kind == "ukis" and is_coarse(pixel, FILLED_FROM)
    unseen = not spec.context and (separates_ground(look, pixel) or look.kind == "model")
    tones = fills or (gates and unseen)
    return replace(look, gates=gates, veils=look.veils and gates, fills=fills, tones=tones)


def separates_ground(look: LookPlan, pixel: float | None) -> bool:
    """Return whether `ukis-csmask` looks, at pixels on which it tells small clouds from ground between."""
    return look.kind == "ukis" and is_coarse(pixel)


def is_coarse(pixel: float | None, least: float = COARSE_FROM) -> bool:
    """Return whether a pixel's side, m, is nearly ``least`` or more; by default: `ukis-csmask` sees cloud."""
    return pixel is not None and pixel >= 0.99 * least


def _detector(
    spec: RestorerSpec,
    options: Options,
    bands: Sequence[str],
    factor: int,
    pixel: float | None,
    lenders: Sequence[str],
) -> LookPlan | None:
    """Choose the detector of ``--detector``.

    ``auto`` takes the model's own, for ``fill`` that of a lender, but `ukis-csmask` on pixels that it was
    trained for; it lets callables and ``identity`` change everything.
    """
    if options.detector == "none":
        return None
    if options.detector == "model":
        own = _own_detector(spec)
        if own is None:
            raise OptionError(f"model {options.model} has no detector of its own: take --detector auto")
        return replace(own, veils=False)
    own = lent_detector(bands, lenders) if spec.name == "fill" else _own_detector(spec)
    natural = spec.natural or (own is not None and own.lender is not None and _is_natural(own.lender))
    complete = _has(bands, ukis.BANDS)
    enough = complete or (natural and _has(bands, VISIBLE))
    if options.detector == "ukis":
        if not enough:
            select_bands(bands, ukis.BANDS, "--detector ukis", "another --detector")
        return _ukis(bands, factor, veils=False)
    needed = spec.bands is not None or spec.name == "fill"
    at_home = enough and is_coarse(pixel) and ukis.installed_version() is not None
    if needed and (at_home or (complete and own is None)):
        return _ukis(bands, factor, veils=spec.bands is not None)
    return own


def _has(bands: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether a scene has one band of each of these names."""
    return all(bands.count(band) == 1 for band in wanted)


def _ukis(bands: Sequence[str], factor: int, veils: bool) -> LookPlan:
    """Plan a look by `ukis-csmask`; red stands in for near infrared where there is not one band of it."""
    seen = ukis.BANDS if _has(bands, ukis.BANDS) else (*VISIBLE, VISIBLE[-1])
    indexes = tuple(bands.index(band) for band in seen)
    return LookPlan("ukis", factor, THRESHOLD, indexes, veils=veils, version=ukis.installed_version())


def _own_detector(spec: RestorerSpec) -> LookPlan | None:
    if spec.bands is None:
        return None
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    config = read_model_config(find_model(spec.name)).detector
    if config is None:
        return None
    return LookPlan("model", config.factor, config.threshold, veils=config.veils)


def _is_natural(name: str) -> bool:
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    return in_natural_colour(read_model_config(find_model(name)))


def lent_detector(bands: Sequence[str], lenders: Sequence[str]) -> LookPlan | None:
    """Plan a look by the first of some models that has a detector and whose bands the scene has."""
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    for name in lenders:
        config = read_model_config(find_model(name))
        if config.detector is not None and _has(bands, config.bands):
            indexes = tuple(bands.index(band) for band in config.bands)
            return LookPlan("model", config.detector.factor, config.detector.threshold, indexes, lender=name)
    return None


def keeps_clear_ground(spec: RestorerSpec, options: Options, look: LookPlan | None) -> bool:
    """Return whether the model's own change must show where clear ground is, for want of a detector."""
    return options.mask == "auto" and spec.bands is not None and look is None
