"""From a scene and the options to a plan: bands, scaling, tiles, restorer. Reads a sample, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decr_scene.pipeline.defaults import BATCH_SIZE
from decr_scene.pipeline.errors import BandError, OptionError
from decr_scene.pipeline.inputs.identity import FileIdentity
from decr_scene.pipeline.inputs.names import full_name, refuse_pipe
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.choice import FILLED_FROM, THRESHOLD, LookPlan, coarse_factor, pixel_size
from decr_scene.pipeline.look.detection import Coverage
from decr_scene.pipeline.look.ground import Ground
from decr_scene.pipeline.raster.bands import label, resolve_names, select_bands
from decr_scene.pipeline.raster.radiometry import (
    Radiometry,
    fit_samples,
    radiometry_without_pixels,
    sample_spans,
)
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource, Source
from decr_scene.pipeline.regions import clear_ground
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.restoration.options import BATCH_SHARE, Options
from decr_scene.pipeline.restoration.other_date import OtherDate
from decr_scene.pipeline.restoration.restorers import RestorerSpec, on_gpu
from decr_scene.pipeline.restoration.spec import error_told, spec_of
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, TileGrid
from decr_scene.pipeline.tiling.windows import windows

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.expected_error import ExpectedError

COVERED = 0.999
"""Least valid share of a mask that covers its scene: warped ones lack some pixels at the rim."""


@dataclass(frozen=True)
class Plan:
    """What is done to a scene; the same for every worker.

    Args:
        grid: The tiles.
        indexes: Bands of the scene that the restorer sees, 0-based, in its order.
        radiometry: The scaling of those bands.
        spec: The restorer.
        seed: Of the noise.
        mask: Where anything may change; ``None``: everywhere.
        keeps_clear_ground: Leave alone what the restorer hardly changes.
        veils: What the restorer changes much is changed though it lies outside the mask. Tiles that have
            neither are given a first guess, and are not sampled.
        samples: Results of each tile, of as many seeds; the first is the output, all tell the uncertainty.
        aoi: The area of interest, which restricts as the mask does; ``None``: everywhere.
        joint: The tiles that are restored in one call are denoised as one picture.
        other: What is taken for the first guess where that sees cloud; ``None``: the guess itself.
        files: What is opened for it, each in the state that is meant.
        fills: Cloud that the first guess leaves where the mask is gives way to the ground's tone.
        tones: The first guess is held to the ground's tone, which the network does not see.
        ground: The ground of the scene as a whole; ``None``: there was no look at it.
        error: The error to be expected of the restorer; ``None``: it is not asked for.
    """

    grid: TileGrid
    indexes: tuple[int, ...]
    radiometry: Radiometry
    spec: RestorerSpec
    seed: int = 0
    mask: Region | None = None
    keeps_clear_ground: bool = False
    veils: bool = False
    samples: int = 1
    aoi: Aoi | None = None
    joint: bool = False
    other: OtherDate | None = None
    files: tuple[FileIdentity, ...] = ()

    def check_files(self) -> None:
        """Refuse to go on with other files than the run was started with.

        Raises:
            SceneReadError: One is not there, or is another one.
        """
        for file in self.files:
            file.check()

    ground: Ground | None = None
    fills: bool = False
    tones: bool = False
    error: ExpectedError | None = None

    @property
    def regions(self) -> tuple[Region, ...]:
        """List the regions that all restrict where anything may change."""
        return tuple(region for region in (self.mask, self.aoi) if region is not None)

    @property
    def tells_uncertainty(self) -> bool:
        """Return whether a standard deviation of every pixel is written."""
        return self.samples > 1 or self.error is not None

    @property
    def weighs_change(self) -> bool:
        """Return whether the size of the change, in its neighbourhood, decides where it is applied."""
        return self.keeps_clear_ground or self.veils

    def sight(self, span: Span) -> Span:
        """Grow a window to that of the change that must be known to blend it."""
        alone = not self.weighs_change and self.error is None
        return span if alone else clear_ground.around(span, self.grid.shape)


@dataclass(frozen=True)
class Planned:
    """A `Plan` of one scene, the tiles that it restores, and what a user should know of it.

    Args:
        plan: The plan.
        bands: Names of the scene's bands.
        model_sha256: Of the model file.
        chosen: The tiles to restore; ``None``: all.
        warnings: What a user should know.
        look: What is to look at the scene before anything is restored; ``None``: nothing.
        coverage: What it found; ``None``: it has not looked.
    """

    plan: Plan
    bands: tuple[str, ...]
    model_sha256: str | None = None
    chosen: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = field(default=())
    look: LookPlan | None = None
    coverage: Coverage | None = None

    def batches(self, size: int | None) -> Batches:
        """List the tiles to restore, ``size`` at a time or as many as are denoised together.

        ``None`` is the usual size, see `Options`.
        """
        return Batches.of(self.plan.grid, size or self._usual_size(), self.chosen, self.plan.joint)

    def _usual_size(self) -> int:
        if on_gpu(self.plan.spec):
            return BATCH_SIZE
        return min(BATCH_SIZE, max(1, self.tiles_to_restore // BATCH_SHARE))

    def warning(self, *more: str) -> Planned:
        """Add something to know that comes before the rest."""
        return replace(self, warnings=(*more, *self.warnings))

    @property
    def mask_meaning(self) -> str | None:
        """Name the convention by which the user's mask is read; ``None``: there is none."""
        mask = self.plan.mask
        return mask.rule.name if isinstance(mask, MaskFile) else None

    @property
    def tiles_to_restore(self) -> int:
        """Count the tiles to restore."""
        return len(self.plan.grid) if self.chosen is None else len(self.chosen)


@dataclass(frozen=True)
class Frame:
    """What of a plan is known before a pixel is read, of a raster as of an array.

    Args:
        spec: The restorer.
        model_sha256: Of the model file.
        bands: Names of the scene's bands.
        indexes: Those that the restorer sees, 0-based, in its order.
        grid: The tiles.
        joint: The tiles that are restored in one call are denoised as one picture.
        look: What is to look at the scene; ``None``: nothing.
        keeps_clear_ground: As `Plan`.
        warnings: What a user should know.
        error: As `Plan`.
    """

    spec: RestorerSpec
    model_sha256: str | None
    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    grid: TileGrid
    joint: bool
    look: LookPlan | None
    keeps_clear_ground: bool
    warnings: tuple[str, ...]
    error: ExpectedError | None

    @staticmethod
    def of(
        found: Sequence[str],
        shape: tuple[int, int],
        pixel: float | None,
        options: Options,
        elsewhere: bool = False,
    ) -> Frame:
        """Choose restorer, bands and detector, and lay the tiles.

        Args:
            found: Names of the scene's bands, as far as it tells them.
            shape: ``(height, width)`` of the scene, px.
            pixel: Side of a pixel, m; ``None``: unknown.
            options: The options.
            elsewhere: As in `spec_of`.

        Raises:
            DecrSceneError: As `plan_scene`.
        """
        spec, digest = spec_of(options, elsewhere)
        error = error_told(spec) if options.uncertainty else None
        bands, indexes, warnings = choose_bands(found, spec, options)
        grid, joint = TileGrid(shape, overlap=options.overlap), is_joint(spec, options)
        look = look_of(spec, options, bands, shape, pixel)
        quiet = keeps_clear_ground(spec, options, look)
        return Frame(spec, digest, bands, indexes, grid, joint, look, quiet, warnings, error)

    def plan(
        self, radiometry: Radiometry, options: Options, mask: Region | None = None, aoi: Aoi | None = None
    ) -> Plan:
        """Make the plan, with the scaling that the pixels have and the regions that the options name."""
        return Plan(
            self.grid,
            self.indexes,
            radiometry,
            self.spec,
            options.seed,
            mask,
            self.keeps_clear_ground,
            samples=options.samples,
            aoi=aoi,
            joint=self.joint,
            error=self.error,
        )


def plan_scene(scene: RasterioScene, options: Options, elsewhere: bool = False) -> Planned:
    """Choose bands and scaling, and lay the tiles; ``elsewhere`` as in `spec_of`.

    Raises:
        BandError: The scene lacks a band of the model, or does not say which band is which.
        UnknownModelError: There is no such model.
    """
    pixel = pixel_size(scene.crs, scene.transform, scene.shape)
    frame = Frame.of(scene.bands, scene.shape, pixel, options, elsewhere)
    spec, indexes = frame.spec, frame.indexes
    source, spans = FileSource(scene.path, options.bands), sample_spans(scene.shape)
    if spec.name == "identity":
        radiometry = Radiometry((0.0,) * len(indexes), (1.0,) * len(indexes))
    else:
        radiometry = radiometry_without_pixels(scene.dtype, len(indexes), options.scale) or fit_samples(
            scene.dtype, indexes, [source] * len(spans), spans
        )
    mask, aoi = regions_of(options, scene)
    plan = frame.plan(radiometry, options, mask, aoi)
    if options.other_date is not None:
        plan = replace(plan, other=_other_date(options.other_date, scene, frame.bands, plan, source))
    chosen = chosen_tiles(plan)
    warnings = frame.warnings + _warnings_of(mask, aoi, chosen)
    if plan.other is not None and (trouble := plan.other.warning([label(frame.bands, i) for i in indexes])):
        warnings = (*warnings, trouble)
    return Planned(plan, frame.bands, frame.model_sha256, chosen, warnings, frame.look)


def regions_of(options: Options, scene: RasterioScene) -> tuple[MaskFile | None, Aoi | None]:
    """Lay the mask and the area of interest that the options name over a scene.

    Raises:
        MaskError: One of them cannot be read or laid over it, or does not touch it.
    """
    mask = None
    if options.mask not in ("auto", "none"):
        mask = MaskFile.read(_absolute(options.mask), scene, options.mask_values)
    return mask, None if options.aoi is None else Aoi.read(options.aoi, scene)


def _warnings_of(mask: MaskFile | None, aoi: Aoi | None, chosen: tuple[int, ...] | None) -> tuple[str, ...]:
    """List what a user should know of where anything may change."""
    warnings = []
    if mask is not None and mask.share < COVERED:
        warnings.append(
            f"the mask {mask.path} says something of {100 * mask.share:.1f} % of the scene: the rest, where "
            "it does not reach or is nodata, stays as it is"
        )
    if chosen is not None and not chosen:
        nowhere = "in the area of interest and in the mask" if aoi is not None else "cloud in the mask"
        warnings.append(f"no pixel is {nowhere}: nothing will change")
    return tuple(warnings)


def look_of(
    spec: RestorerSpec,
    options: Options,
    bands: Sequence[str],
    shape: tuple[int, int],
    pixel: float | None,
) -> LookPlan | None:
    """Choose what is to look at a scene.

    Args:
        spec: The restorer.
        options: The options.
        bands: Names of the scene's bands.
        shape: Of the scene, px.
        pixel: Side of a pixel, m; ``None``: unknown.

    Raises:
        OptionError: The detector that is asked for is not there; or the restorer needs one.
        BandError: The scene lacks a band of it.
    """
    needed = spec.context or spec.name == "fill"
    if options.mask not in ("auto", "none"):
        return LookPlan("mask", coarse_factor(shape, pixel), 0.5, gates=False) if needed else None
    gates = options.mask == "auto"
    look = None if not (gates or needed) else _detector(spec, options, bands, coarse_factor(shape, pixel))
    if spec.name == "fill" and look is None:
        raise OptionError(
            "fill needs to know where cloud is, and nothing looks: take a scene with blue, green, red and "
            "nir (name them with --bands), or give a mask"
        )
    if look is None:
        return None
    fills = gates and look.kind == "ukis" and pixel is not None and pixel >= FILLED_FROM
    tones = gates and not spec.context and (fills or look.kind == "model")
    return replace(look, gates=gates, veils=look.veils and gates, fills=fills, tones=tones)


def _detector(spec: RestorerSpec, options: Options, bands: Sequence[str], factor: int) -> LookPlan | None:
    """Choose the detector of ``--detector``; ``auto`` lets callables and ``identity`` change everything."""
    if options.detector == "none":
        return None
    own = _own_detector(spec) if options.detector != "ukis" else None
    if own is not None or options.detector == "model":
        if own is None:
            raise OptionError(f"model {options.model} has no detector of its own: take --detector auto")
        return own
    has_bands = all(bands.count(band) == 1 for band in ukis.BANDS)
    if options.detector == "auto":
        if (spec.bands is None and spec.name != "fill") or not has_bands:
            return None
        return _ukis(bands, factor, veils=spec.bands is not None)
    if not has_bands:
        select_bands(bands, ukis.BANDS)
    return _ukis(bands, factor, veils=False)


def _ukis(bands: Sequence[str], factor: int, veils: bool) -> LookPlan:
    indexes = tuple(bands.index(band) for band in ukis.BANDS)
    return LookPlan("ukis", factor, THRESHOLD, indexes, veils=veils, version=ukis.installed_version())


def _own_detector(spec: RestorerSpec) -> LookPlan | None:
    if spec.bands is None:
        return None
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    config = read_model_config(find_model(spec.name)).detector
    return None if config is None else LookPlan("model", config.factor, config.threshold)


def keeps_clear_ground(spec: RestorerSpec, options: Options, look: LookPlan | None) -> bool:
    """Return whether the model's own change must show where clear ground is, for want of a detector."""
    return options.mask == "auto" and spec.bands is not None and look is None


def chosen_tiles(plan: Plan) -> tuple[int, ...] | None:
    """Choose the tiles over anything that mask and area of interest both let change; ``None``: all."""
    regions = plan.regions if not plan.veils else tuple(r for r in (plan.aoi,) if r is not None)
    cells = [region.touched_cells(plan.grid) for region in regions]
    return tuple(plan.grid.over(np.logical_and.reduce(cells))) if cells else None


def guessed_together(plan: Plan, batches: Batches) -> Batches:
    """Group the tiles of all batches by the windows over which first guesses are made.

    Returns:
        The windows; the batches themselves for a restorer that guesses each tile alone.
    """
    if not plan.spec.windows:
        return batches
    numbers = sorted(tile for group in batches.groups for tile in group)
    return windows(plan.grid, plan.spec.halo, tuple(numbers))


def _other_date(
    path: str, scene: RasterioScene, bands: tuple[str, ...], plan: Plan, source: Source
) -> OtherDate:
    """Lay the raster of another date over the scene, in the tone of the scene.

    Raises:
        OptionError: The restorer has no first guess.
        OtherDateError: As `OtherDate.fit`.
    """
    if plan.spec.bands is None:
        raise OptionError(
            f"other_date stands in for a first guess, which {plan.spec.name} has no use for: take a model"
        )
    indexes, windows = list(plan.indexes), []
    for span in sample_spans(scene.shape):
        pixels = source.read(span)
        valid = np.asarray(source.valid(span, pixels)[indexes].all(axis=0))
        windows.append((span, plan.radiometry.to_model(pixels[indexes]), valid))
    return OtherDate.fit(_absolute(path), scene, bands, plan.indexes, windows)


def is_joint(spec: RestorerSpec, options: Options) -> bool:
    """Return whether tiles are denoised together.

    Raises:
        OptionError: A callable, or a reference alone, cannot be asked to.
    """
    if options.blend == "joint" and options.restorer is not None:
        raise OptionError(
            f"blend joint is of diffusion steps, which the callable {spec.name} does not tell of: "
            "take blend feather, or a model"
        )
    if options.blend == "joint" and spec.alone:
        raise OptionError(
            f"blend joint is of diffusion steps that tiles can share, which model {spec.name} has none of: "
            "take blend feather"
        )
    return options.blend == "joint" and spec.bands is not None


def choose_bands(
    found: Sequence[str], spec: RestorerSpec, options: Options
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Find the names of a scene's bands, 0-based positions of those the restorer takes, and warnings.

    Raises:
        BandError: As `plan_scene`.
    """
    if spec.bands is None:
        try:
            names = resolve_names(found, options.bands)
        except BandError:
            if options.bands is not None:
                raise
            names = ("",) * len(found)
        used = tuple(i for i in range(len(names)) if names[i] != "alpha")
        return names, used or tuple(range(len(names))), ()
    names = resolve_names(found, options.bands)
    indexes = select_bands(names, spec.bands)
    rest = [label(names, i) for i in range(len(names)) if i not in indexes]
    rest = [name for name in rest if name != "alpha"]
    warnings = (f"the model has no use for {', '.join(rest)}: passed through unchanged",) if rest else ()
    return names, indexes, warnings


def _absolute(path: str) -> str:
    """Name a file so that workers elsewhere find it; what is no file here, GDAL may know."""
    refuse_pipe(path)
    return str(Path(path).resolve()) if Path(path).exists() else full_name(path)
