"""Make the plan of a scene: its frame, scaling, regions and other date. Reads a sample, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rasterio.enums import ColorInterp

from decr_scene.pipeline.inputs.names import resolved_name
from decr_scene.pipeline.planning.fit_dates import lay_over
from decr_scene.pipeline.planning.frame import Frame
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import (
    fit_samples,
    has_border,
    radiometry_without_pixels,
    sample_spans,
)
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.raster.warp import pixel_of
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.restoration.plan import Planned, chosen_tiles

COVERED = 0.999
"""Least valid share of a mask that covers its scene: warped ones lack some pixels at the rim."""

_BORDER = (
    "a corner of the scene is 0 in all bands, and that is not declared as nodata, so it may be restored like "
    "ground: if nothing was imaged there, declare it with gdal_edit -a_nodata 0"
)

_INDEXES = (
    "pixels are indexes of a colour table, which are restored like tones, so classes are made up: give a "
    "picture, as gdal_translate -expand rgb makes one"
)


def plan_scene(scene: RasterioScene, options: Options, elsewhere: bool = False) -> Planned:
    """Choose bands and scaling, and lay the tiles.

    ``elsewhere`` is as in `spec_of`.

    Raises:
        BandError: The scene lacks a band of the model, or does not say which band is which.
        UnknownModelError: There is no such model.
    """
    pixel = pixel_of(scene)
    frame = Frame.of(scene.bands, scene.shape, pixel, options, elsewhere)
    spec, indexes = frame.spec, frame.indexes
    source, spans = FileSource(scene.path, options.bands), sample_spans(scene.shape)
    if spec.name == "identity":
        radiometry = Radiometry((0.0,) * len(indexes), (1.0,) * len(indexes))
    else:
        fit = frame.fit()
        known = radiometry_without_pixels(scene.dtype, len(indexes), options.scale, fit)
        radiometry = known or fit_samples(scene.dtype, indexes, [source] * len(spans), spans, fit)
    mask, aoi = regions_of(options, scene)
    plan = frame.plan(radiometry, options, mask, aoi)
    troubles: list[str] = []
    if options.other_dates:
        other, troubles = lay_over(scene, frame.bands, plan.indexes, spec, options)
        plan = replace(plan, other=other)
    chosen = chosen_tiles(plan)
    warnings = (*frame.warnings, *_warnings_of(mask, aoi, chosen), *troubles)
    if spec.name != "identity" and has_border(scene, indexes):
        warnings = (*warnings, _BORDER)
    if spec.name != "identity" and _has_colour_table(scene, indexes):
        warnings = (*warnings, _INDEXES)
    return Planned(plan, frame.bands, frame.model_sha256, chosen, warnings, frame.look)


def _has_colour_table(scene: RasterioScene, indexes: Sequence[int]) -> bool:
    with scene.dataset() as dataset:
        return any(dataset.colorinterp[i] == ColorInterp.palette for i in indexes)


def regions_of(options: Options, scene: RasterioScene) -> tuple[MaskFile | None, Aoi | None]:
    """Lay the mask and the area of interest that the options name over a scene.

    Raises:
        MaskError: One of them cannot be read or laid over it, or does not touch it.
    """
    mask = None
    if options.mask not in ("auto", "none"):
        mask = MaskFile.read(resolved_name(options.mask), scene, options.mask_values)
    return mask, None if options.aoi is None else Aoi.read(options.aoi, scene)


def _warnings_of(mask: MaskFile | None, aoi: Aoi | None, chosen: tuple[int, ...] | None) -> tuple[str, ...]:
    """List what a user should know of where anything may change."""
    warnings = []
    if mask is not None and mask.share + mask.nan < COVERED:
        warnings.append(
            f"the mask {mask.path} says something of {100 * mask.share:.1f} % of the scene: the rest, where "
            "it does not reach or is nodata, stays as it is, but for the rims of cloud beside it"
        )
    if mask is not None and mask.nan:
        warnings.append(
            f"the mask {mask.path} is NaN or infinite on {100 * mask.nan:.2g} % of the scene, which counts "
            "as no value and stays as it is: write a number there if it is cloud"
        )
    if chosen is not None and not chosen:
        nowhere = "in the area of interest and in the mask" if aoi is not None else "cloud in the mask"
        warnings.append(f"no pixel is {nowhere}: nothing will change")
    return tuple(warnings)
