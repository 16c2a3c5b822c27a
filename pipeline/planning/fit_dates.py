"""Lay other dates over a scene, look for their cloud, and fit their colours to its clear ground."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from decr_scene.pipeline.dates.clearness import clearness
from decr_scene.pipeline.dates.on_grid import OnGrid
from decr_scene.pipeline.dates.other_date import HARDLY, NOT, OtherDate, Place, bands_of
from decr_scene.pipeline.dates.other_dates import OtherDates
from decr_scene.pipeline.errors import OptionError, OtherDateError, SceneError
from decr_scene.pipeline.inputs.names import resolved_name
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import Coverage, Places, read_coverage, write_look
from decr_scene.pipeline.look.detectors import Lookout, UkisLookout
from decr_scene.pipeline.look.ground import ground_side
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.reflectance import Reflectance, sample_of
from decr_scene.pipeline.planning.detect_clouds import Ask, open_lookout
from decr_scene.pipeline.planning.detector import look_of
from decr_scene.pipeline.planning.frame import scaling_fit
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.radiometry import Radiometry
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
    scene: RasterioScene,
    bands: Sequence[str],
    indexes: tuple[int, ...],
    spec: RestorerSpec,
    options: Options,
) -> tuple[OtherDates, list[str]]:
    """Lay rasters of other dates over a scene, and choose who looks for their cloud; nothing is fitted yet.

    Args:
        scene: The scene.
        bands: Names of its bands.
        indexes: Those that the model sees, 0-based, in its order.
        spec: The restorer.
        options: Those that name the dates. The scene's own file may be one of them and is left out, so that a
            folder of dates can be given for each of its own.

    Returns:
        Those that can be laid over it, and a warning of each other one.

    Raises:
        OptionError: The restorer has no first guess; or the scene is the only one of them.
        SceneReadError: One cannot be read.
        OtherDateError: Each lacks a band, has a border that is not declared, lies elsewhere, or cannot be
            laid over the scene.
    """
    if spec.bands is None:
        raise OptionError(
            f"--other-date stands in for a first guess, which {spec.name} has no use for: take a model"
        )
    names = tuple(bands[index] for index in indexes)
    alone = replace(options, mask="auto", mask_values=None)
    look = look_of(spec, alone, names, scene.shape, pixel_of(scene))
    dates: list[OtherDate] = []
    warnings: list[str] = []
    seen = [_identity(path) for path in (scene.path, *scene.other_files())]
    for path in map(resolved_name, options.other_dates):
        if (identity := _identity(path)) in seen:
            continue
        seen.append(identity)
        try:
            dates.append(OtherDate(_laid(path, scene, bands, indexes), look))
        except OtherDateError as error:
            warnings.append(str(error))
    if not dates and not warnings:
        raise OptionError(f"the other date of {scene.path} is that scene itself: name another, or none")
    if not dates:
        raise OtherDateError(warnings[0])
    return OtherDates(tuple(dates)), [f"{warning} (it is left out)" for warning in warnings]


def _identity(path: str) -> object:
    """Tell files apart, whatever their names; what is no file goes by its name."""
    return tuple(os.stat(path)[1:3]) if os.path.exists(path) else path


def _laid(path: str, scene: RasterioScene, bands: Sequence[str], indexes: tuple[int, ...]) -> OnGrid:
    """Open a date on the grid of a scene.

    Raises:
        OtherDateError: It lacks a band, has a border that is not declared, or shows nothing of the scene.
    """
    opened = RasterioScene.open(path)
    source = OnGrid(opened.path, scene, bands_of(opened, bands, indexes))
    if has_border(opened, source.indexes):
        raise OtherDateError(
            f"other date {path} is 0 in all bands in a corner, expected ground or declared nodata: if "
            "nothing was imaged there, declare it with gdal_edit -a_nodata 0; if it is water, do so, too"
        )
    if not any(np.isfinite(source.read(span)).any() for span in _samples(scene)):
        raise OtherDateError(
            f"other date {path} shows nothing of the scene: compare their places, or choose another"
        )
    return source


def _samples(scene: RasterioScene) -> list[Span]:
    """Return windows all over a scene; the whole of one that is no larger than they are together."""
    spans = sample_spans(scene.shape)
    whole = Span(0, 0, *scene.shape)
    return [whole] if whole.height * whole.width <= spans[0].height * spans[0].width * len(spans) else spans


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
    left_out: list[str] = []
    warnings: list[str] = []
    for number, laid in enumerate(plan.other.dates, start=1):
        try:
            looked_at = _with_clouds(laid, planned, places.of_date(number), again, ask)
            date, told = _fitted(looked_at, windows, plan.mask is None)
        except OtherDateError as error:
            left_out.append(str(error))
            continue
        warnings += told
        if date.trust < NOT:
            left_out.append(
                f"other date {date.path} does not go with the scene: {date.describe(names)}, expected "
                f"{100 * NOT:.0f} % at least: take one of a nearer season or year, check that it lies in the "
                "right place, or take none"
            )
            continue
        if not date.explained or date.trust < HARDLY:
            warnings.append(
                f"other date {date.path} hardly goes with the scene: {date.describe(names)}; compare the "
                "output with one that was made without it"
            )
        taken.append(date)
    if not taken:
        more = f" (and {len(left_out) - 1} more, none of which can be taken)" if len(left_out) > 1 else ""
        raise OtherDateError(left_out[0] + more)
    warnings += [f"{reason} (it is left out)" for reason in left_out]
    return replace(planned, plan=replace(plan, other=OtherDates(tuple(taken)))).warning(*warnings)


def _clear_windows(plan: Plan, scene: RasterioScene, options: Options) -> Iterator[Place]:
    """Read windows of a scene, each with the weight of clear ground."""
    source, indexes = FileSource(scene.path, options.bands), list(plan.indexes)
    for span in _samples(scene):
        pixels = source.read(span)
        valid = np.asarray(source.valid(span, pixels)[indexes].all(axis=0))
        clear = np.asarray(clearness(plan.mask, span), np.float32)
        yield Place(span, plan.radiometry.to_model(pixels[indexes]), clear, valid)


def _fitted(date: OtherDate, windows: Sequence[Place], unseen: bool) -> tuple[OtherDate, list[str]]:
    """Fit a date, and say if what was taken for its cloud must be ground.

    Where nobody has looked at the scene, it is fitted to the squares that are alike on both, if any are.
    """
    if unseen:
        alike = [date.alike(window) for window in windows]
        if any(window.clear.any() for window in alike):
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
    date: OtherDate, planned: Planned, places: Places, again: bool, ask: Ask | None
) -> OtherDate:
    """Look for the cloud of a date, as at a scene of its own; nobody looks where nobody would."""
    scene, plan, look = date.source.scene, planned.plan, date.look
    names, pixel = tuple(planned.bands[index] for index in plan.indexes), pixel_of(scene)
    fit = scaling_fit(plan.spec, look, names, pixel, scene.shape)
    try:
        radiometry = _radiometry(date, fit)
    except SceneError as error:
        raise OtherDateError(
            f"other date {date.path} has values that cannot be ground ({str(error).split(':')[0]}): declare "
            "them as nodata with gdal_edit -a_nodata, or take another"
        ) from error
    if look is None:
        return date
    coverage = read_coverage(places.cloud) if again else None
    if coverage is None:
        coverage = _look(date, planned, look, radiometry, places, ask)
    sides = [-(-side // look.factor) for side in scene.shape]
    clouds = look.mask(FileField(str(places.cloud.resolve()), (sides[0], sides[1])), scene.shape)
    least = max(clouds.least, round(255 * SURE))
    return replace(date, clouds=replace(clouds, rim=CLOSE_RIM, least=least), cloudy=coverage.restore)


def _radiometry(date: OtherDate, fit: Fit) -> Radiometry:
    """Fit the scaling by which a date is looked at.

    Raises:
        SceneError: Its values are absurd, or some stand for no data and are not declared so.
    """
    source, spans = date.source, _samples(date.source.scene)
    dtype, own = RasterioScene.open(source.path).dtype, tuple(range(len(source.indexes)))
    known = radiometry_without_pixels(dtype, len(own), None, fit)
    return known or fit_samples(dtype, own, [source] * len(spans), spans, fit)


def _look(
    date: OtherDate,
    planned: Planned,
    look: LookPlan,
    radiometry: Radiometry,
    places: Places,
    ask: Ask | None,
) -> Coverage:
    """Write where a date has cloud and shadow, on the grid of the scene."""
    source, scene, own = date.source, date.source.scene, tuple(range(len(date.source.indexes)))
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
    spans = _samples(source.scene)
    sample = sample_of([source] * len(spans), spans, look.bands, look.factor)
    return UkisLookout(Reflectance.of(look.bands, scales, offsets, sample))
