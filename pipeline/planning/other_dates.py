"""Lay other dates over a scene, look for their cloud, and fit their colours to its clear ground."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.dates.clearness import clearness
from decr_scene.pipeline.dates.likeness import Window
from decr_scene.pipeline.dates.on_grid import OnGrid
from decr_scene.pipeline.dates.other_date import HARDLY, NOT, OtherDate, bands_of
from decr_scene.pipeline.dates.other_dates import OtherDates
from decr_scene.pipeline.errors import OptionError, OtherDateError
from decr_scene.pipeline.inputs.names import full_name, refuse_pipe
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import Coverage, Places, read_coverage, write_look
from decr_scene.pipeline.look.detectors import Lookout, UkisLookout
from decr_scene.pipeline.look.ground import ground_side
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.reflectance import Reflectance, sample_of
from decr_scene.pipeline.planning.detect_clouds import Ask, open_lookout
from decr_scene.pipeline.planning.detector import look_of
from decr_scene.pipeline.planning.frame import Frame
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.scaling import (
    Fit,
    fit_samples,
    has_border,
    radiometry_without_pixels,
    sample_spans,
)
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.raster.warp import pixel_of
from decr_scene.pipeline.regions.fields import FileField
from decr_scene.pipeline.regions.masks import CLOSE_RIM
from decr_scene.pipeline.restoration.plan import Plan, Planned
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.tiling.grid import Span

SURE = 0.8
"""Least probability of cloud or shadow of what is left out of another date: its ground is no guess."""


def lay_over(
    paths: Sequence[str],
    scene: RasterioScene,
    bands: Sequence[str],
    indexes: tuple[int, ...],
    spec: RestorerSpec,
) -> OtherDates:
    """Lay rasters of other dates over a scene; nothing is fitted yet.

    Args:
        paths: Rasters. The scene itself may be one of them and is left out, so that a folder of dates can be
            given for each of its own.
        scene: The scene.
        bands: Names of its bands.
        indexes: Those that the model sees, 0-based, in its order.
        spec: The restorer.

    Raises:
        OptionError: The restorer has no first guess; or the scene is the only one of them.
        SceneReadError: One cannot be read.
        OtherDateError: One lacks a band, has a border that is not declared, or cannot be laid over the scene.
    """
    if spec.bands is None:
        raise OptionError(
            f"--other-date stands in for a first guess, which {spec.name} has no use for: take a model"
        )
    dates = []
    for path in dict.fromkeys(absolute(path) for path in paths):
        if os.path.exists(path) and os.path.exists(scene.path) and os.path.samefile(path, scene.path):
            continue
        opened = RasterioScene.open(path)
        source = OnGrid(opened.path, scene, bands_of(opened, bands, indexes))
        if has_border(opened, source.indexes):
            raise OtherDateError(
                f"other date {path} is 0 in all bands in a corner, expected ground or declared nodata: if "
                "nothing was imaged there, declare it with gdal_edit -a_nodata 0; if it is water, do so, too"
            )
        if not any(np.isfinite(source.read(span)).any() for span in sample_spans(scene.shape)):
            raise OtherDateError(
                f"other date {path} shows nothing of the scene: compare their places, or choose another"
            )
        dates.append(OtherDate(source))
    if not dates:
        raise OptionError(f"the other date of {scene.path} is that scene itself: name another, or none")
    return OtherDates(tuple(dates))


def fit_other_dates(
    planned: Planned,
    scene: RasterioScene,
    options: Options,
    places: Places,
    again: bool = False,
    ask: Ask | None = None,
) -> Planned:
    """Look for the cloud of other dates, and fit their colours to ground that is clear on both.

    Args:
        planned: The plan, after the look at the scene.
        scene: The scene.
        options: Those that the plan was made of.
        places: Where the rasters of the look at the scene are; those of the dates lie beside them.
        again: As `detect_clouds`.
        ask: As `detect_clouds`.

    Returns:
        The plan with the dates that go with the scene, and with a warning of each that does not or hardly
        does; the very same without other dates.

    Raises:
        OtherDateError: None of them does.
    """
    plan = planned.plan
    if plan.other is None:
        return planned
    windows, names = list(_clear_windows(plan, scene, options)), [planned.bands[i] for i in plan.indexes]
    taken: list[OtherDate] = []
    warnings: list[str] = []
    for number, laid in enumerate(plan.other.dates, start=1):
        try:
            date, told = _fitted(
                _with_clouds(laid, planned, options, places.of_date(number), again, ask),
                windows,
                plan.mask is None,
            )
        except OtherDateError as error:
            if len(plan.other.dates) == 1:
                raise
            warnings.append(f"{error}; it is left out")
            continue
        warnings += told
        if date.trust < NOT:
            warnings.append(f"other date {date.path} does not go with the scene: {date.describe(names)}")
            continue
        if date.trust < HARDLY:
            warnings.append(
                f"other date {date.path} hardly goes with the scene: {date.describe(names)}; compare the "
                "output with one that was made without it"
            )
        taken.append(date)
    if not taken:
        raise OtherDateError(
            f"{'; '.join(warnings)}, expected {100 * NOT:.0f} % at least: take dates of a nearer season or "
            "year, check that they lie in the right place, or take none"
        )
    return replace(planned, plan=replace(plan, other=OtherDates(tuple(taken)))).warning(*warnings)


def _clear_windows(plan: Plan, scene: RasterioScene, options: Options) -> Iterator[tuple[Span, Float, Float]]:
    """Read windows of a scene on the [-1, 1] scale, each with the weight of clear ground, ``(h, w)``."""
    source, indexes = FileSource(scene.path, options.bands), list(plan.indexes)
    for span in dict.fromkeys(sample_spans(scene.shape)):
        pixels = source.read(span)
        valid = source.valid(span, pixels)[indexes].all(axis=0)
        clear = np.asarray(valid * clearness(plan.mask, span), np.float32)
        yield span, plan.radiometry.to_model(pixels[indexes]), clear


def _fitted(
    date: OtherDate, windows: Sequence[tuple[Span, Float, Float]], unseen: bool
) -> tuple[OtherDate, list[str]]:
    """Fit a date, and say if what was taken for its cloud must be ground.

    Where nobody has looked at the scene, it is fitted to the squares that are alike on both, if any are.
    """
    if unseen:
        alike = [
            (span, image, clear * Window(image, np.nan_to_num(date.source.read(span)), clear).alike())
            for span, image, clear in windows
        ]
        if any(clear.any() for *_, clear in alike):
            windows = alike
    try:
        return date.fitted(windows), []
    except OtherDateError:
        if date.clouds is None:
            raise
        whole = replace(date, clouds=None).fitted(windows)
        if not whole.explained or whole.trust < HARDLY:
            raise
    said = "looks like cloud all over to the detector, and shows the scene's ground: all is taken for clear"
    return whole, [f"other date {date.path} {said}"]


def _with_clouds(
    date: OtherDate, planned: Planned, options: Options, places: Places, again: bool, ask: Ask | None
) -> OtherDate:
    """Look for the cloud of a date, as at a scene of its own; nobody looks where nobody would."""
    scene, plan = date.source.scene, planned.plan
    names, pixel = tuple(planned.bands[index] for index in plan.indexes), pixel_of(scene)
    look = look_of(plan.spec, replace(options, mask="auto", mask_values=None), names, scene.shape, pixel)
    if look is None:
        return date
    coverage = read_coverage(places.cloud) if again else None
    if coverage is None:
        own = tuple(range(len(names)))
        frame = Frame(plan.spec, None, names, own, plan.grid, plan.joint, look, False, (), None, pixel)
        coverage = _look(date, planned, look, frame.fit(), places, ask)
    sides = [-(-side // look.factor) for side in scene.shape]
    clouds = look.mask(FileField(str(places.cloud.resolve()), (sides[0], sides[1])), scene.shape)
    least = max(clouds.least, round(255 * SURE))
    return replace(date, clouds=replace(clouds, rim=CLOSE_RIM, least=least), cloudy=coverage.restore)


def _look(
    date: OtherDate, planned: Planned, look: LookPlan, fit: Fit, places: Places, ask: Ask | None
) -> Coverage:
    """Write where a date has cloud and shadow, on the grid of the scene."""
    source, scene = date.source, date.source.scene
    spans, own = sample_spans(scene.shape), tuple(range(len(source.indexes)))
    dtype = RasterioScene.open(source.path).dtype
    known = radiometry_without_pixels(dtype, len(own), None, fit)
    radiometry = known or fit_samples(dtype, own, [source] * len(spans), spans, fit)
    split, _ = ground_side(scene.shape, look.factor)
    lookout = _lookout(date, planned, look, ask)
    reader = CoarseReader(scene.shape, source, own, radiometry, look.factor, lookout.sight, split)
    return write_look(lookout, scene, reader, look.threshold, places)


def _lookout(date: OtherDate, planned: Planned, look: LookPlan, ask: Ask | None) -> Lookout:
    """Choose who looks at a date: the same as at the scene, in the date's own reflectance."""
    if look.kind != "ukis":
        return open_lookout(planned.plan.spec, ask)
    source = date.source
    with RasterioScene.open(source.path).dataset() as dataset:
        scales, offsets = (
            [values[i] for i in source.indexes] for values in (dataset.scales, dataset.offsets)
        )
    spans = sample_spans(source.scene.shape)
    sample = sample_of([source] * len(spans), spans, look.bands, look.factor)
    return UkisLookout(Reflectance.of(look.bands, scales, offsets, sample))


def absolute(path: str) -> str:
    """Name a file so that workers elsewhere find it.

    What is no file here GDAL may know.
    """
    refuse_pipe(path)
    return str(Path(path).resolve()) if Path(path).exists() else full_name(path)
