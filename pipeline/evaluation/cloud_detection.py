"""Cloud detection on one image, as on a whole scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.models.model import Model
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import look_in_memory
from decr_scene.pipeline.look.detectors import Lookout, ModelLookout, UkisLookout
from decr_scene.pipeline.look.ground import Ground, ground_side
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.reflectance import Reflectance, sample_of
from decr_scene.pipeline.planning.detect_clouds import open_lent_lookout
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import sample_spans
from decr_scene.pipeline.raster.source import ArraySource
from decr_scene.pipeline.regions.masks import DetectedMask
from decr_scene.pipeline.tiling.grid import Span


@dataclass(frozen=True)
class Look:
    """Cloud and ground detected in an image.

    Args:
        mask: Where cloud and shadow are.
        ground: The ground.
        veils: As of `LookPlan`.
        doubts_veils: As of `Plan`.
    """

    mask: DetectedMask
    ground: Ground
    veils: bool = False
    doubts_veils: bool = False


def look_at_image(plan: LookPlan, cloudy: Float, model: Model | None) -> Look:
    """Detect cloud in an image ``(C, H, W)`` in [-1, 1].

    The model is needed for its own detector.
    """
    shape, bands = (cloudy.shape[1], cloudy.shape[2]), len(cloudy)
    source = ArraySource(Span(0, 0, *shape), (cloudy + 1) / np.float32(2))
    scaling = Radiometry((0.0,) * bands, (1.0,) * bands)
    lookout = _lookout(plan, source, scaling, shape, model)
    split, _ = ground_side(shape, plan.factor)
    reader = CoarseReader(shape, source, tuple(range(bands)), scaling, plan.factor, lookout.sight, split)
    detected = look_in_memory(lookout, reader, plan.threshold)
    mask = plan.mask(detected.cloud, shape)
    return Look(mask, detected.ground, plan.veils, plan.veils and plan.fills)


def _lookout(
    plan: LookPlan, source: ArraySource, scaling: Radiometry, shape: tuple[int, int], model: Model | None
) -> Lookout:
    if plan.kind == "ukis":
        spans = sample_spans(shape)
        sample = sample_of([source] * len(spans), spans, plan.bands, plan.factor)
        count = max(plan.bands) + 1
        return UkisLookout(Reflectance.of(plan.bands, [1.0] * count, [0.0] * count, sample))
    if plan.lender is not None:
        return open_lent_lookout(plan, range(len(scaling.low)), scaling)
    assert model is not None, "fill has no detector"
    assert model.detector is not None, "the plan says that there is one"
    return ModelLookout(model.detector)
