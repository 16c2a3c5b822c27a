"""From the changes of tiles to a finished window: its digital numbers, classes and standard deviations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from decr_scene.models.arrays import Bool, Float, Pixels
from decr_scene.pipeline.raster.radiometry import SATURATED
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.regions.clear_ground import believed_share, change_share
from decr_scene.pipeline.regions.masks import DetectedMask
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.provenance import NODATA, ORIGINAL, Classes, classify, untouched
from decr_scene.pipeline.restoration.tile_results import (
    Results,
    bands_of,
    last_band,
    picklable_errors,
    tiles_over,
)
from decr_scene.pipeline.tiling.feather import blend, spread
from decr_scene.pipeline.tiling.grid import Span, Tile

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.expected_error import ExpectedError


WHITE_RIM = 6
"""How near to what is saturated and is no cloud a change does not count as that of a veil, px."""


class Blended(NamedTuple):
    """A finished window: ``(bands, h, w)`` digital numbers, ``(1, h, w)`` classes and standard deviations."""

    pixels: Pixels
    provenance: Classes
    uncertainty: Float | None


class _Around(NamedTuple):
    """A window and what is around it, read at once: all bands, and which values of the plan's are valid."""

    span: Span
    pixels: Pixels
    valid: Bool

    @classmethod
    def read(cls, plan: Plan, source: Source, span: Span) -> _Around:
        """Read it."""
        pixels = source.read(span)
        return cls(span, pixels, source.valid(span, pixels)[list(plan.indexes)])

    def scaled(self, plan: Plan) -> Float:
        """Return the plan's bands on the [-1, 1] scale, ``(C, H, W)``, filled where they are not valid."""
        return plan.radiometry.to_model(self.pixels[list(plan.indexes)], self.valid)


@picklable_errors
def blend_tiles(plan: Plan, source: Source, span: Span, *changes: Results) -> Blended:
    """Make a window of the result: the input plus the feathered change of the tiles that touch it."""
    own_changes, seen, bands = tiles_over(plan, span, changes), plan.sight(span), list(plan.indexes)
    around = _Around.read(plan, source, seen if own_changes and plan.compares_around else span)
    here = (slice(None), *span.inside(around.span))
    pixels, valid = np.ascontiguousarray(around.pixels[here]), around.valid[here]
    if not own_changes:
        classes = untouched(valid)
        return Blended(pixels, classes, _no_uncertainty(classes) if plan.tells_uncertainty else None)
    in_sight = own_changes if seen == span else tiles_over(plan, seen, changes)
    wide = blend(plan.grid, seen, bands_of(in_sight, slice(len(bands))), len(bands))
    change = np.ascontiguousarray(wide[(slice(None), *span.inside(seen))])
    share = _share(plan, around, span, wide, seen)
    taken = change if share is None else change * share
    restored = plan.radiometry.apply(pixels[bands], taken, valid, source.nodata)
    other = None if plan.other is None else last_band(plan, span, own_changes)
    classes = classify(pixels[bands], restored, valid, share, other)
    uncertainty = None
    if plan.tells_uncertainty:
        variance = np.zeros_like(change) if plan.samples == 1 else _variance(plan, span, own_changes, change)
        if plan.error is not None:
            variance = variance + _expected_variance(plan.error, plan, around, span, wide)
        deviation = plan.radiometry.deviation(variance, restored) * (1 if share is None else share)
        uncertainty = _no_uncertainty(classes)
        np.copyto(uncertainty, deviation, where=classes > ORIGINAL)
    if len(bands) == len(pixels) and bands == sorted(bands):
        return Blended(restored, classes, uncertainty)
    result = pixels.copy()
    result[bands] = restored
    return Blended(result, classes, uncertainty)


def _share(plan: Plan, around: _Around, span: Span, change: Float, seen: Span) -> Float | None:
    """Return the share of the change in ``seen`` that is applied, ``(h, w)``, or ``None`` for all of it."""
    shares = [region.soft(span) for region in plan.regions]
    if plan.weighs_change:
        much = change_share(change, seen, span)
        if plan.veils and plan.mask is not None:
            if plan.doubts_veils and much.any():
                valid: Bool = np.all(around.valid[plan.visible], axis=0)
                outside = valid & (plan.mask.soft(seen) == 0) & ~_near_white(plan, around)
                much = much * believed_share(change[plan.visible].mean(axis=0), outside, seen, span)
                if isinstance(plan.mask, DetectedMask):
                    much = much * (1 - plan.mask.bare(span))
            shares[0] = np.maximum(shares[0], much)
        else:
            shares.append(much)
    return reduce(np.multiply, shares) if shares else None


def _near_white(plan: Plan, around: _Around) -> Bool:
    """Tell where 8 bits are saturated, and near: white that is no cloud tells nothing of a veil."""
    from scipy.ndimage import maximum_filter

    if not plan.radiometry.of_bytes:
        return np.zeros(around.valid.shape[1:], np.bool_)
    visible = [plan.indexes[place] for place in plan.visible]
    white = (around.pixels[visible] > SATURATED).all(axis=0)
    return np.asarray(maximum_filter(white, 2 * WHITE_RIM + 1))


def _variance(plan: Plan, span: Span, found: Sequence[tuple[Tile, Float]], change: Float) -> Float:
    """Return the variance of samples and of tiles around their blend, ``(C, h, w)``."""
    bands = len(plan.indexes)
    of_samples = blend(plan.grid, span, bands_of(found, slice(bands, None)), bands)
    return of_samples + spread(plan.grid, span, bands_of(found, slice(bands)), change)


def _expected_variance(error: ExpectedError, plan: Plan, around: _Around, span: Span, change: Float) -> Float:
    """Return the variance expected of the model's error, ``(1, h, w)``, from its change of what is around."""
    cloudy = around.scaled(plan)
    answer = np.clip(cloudy + change, -1, 1)
    return np.square(error.deviation(cloudy, answer)[span.inside(around.span)])[None]


def _no_uncertainty(classes: Classes) -> Float:
    return np.where(classes == NODATA, np.float32(np.nan), np.float32(0))
