"""From a scene and the options to a plan: bands, scaling, tiles, restorer. Reads a sample, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decr_scene.pipeline.aoi import Aoi
from decr_scene.pipeline.batches import Batches
from decr_scene.pipeline.errors import BandError, OptionError
from decr_scene.pipeline.grid import Span, TileGrid
from decr_scene.pipeline.masks import Mask, MaskFile
from decr_scene.pipeline.otherdate import OtherDate
from decr_scene.pipeline.radiometry import Radiometry, fit_radiometry
from decr_scene.pipeline.restorers import Restorer, RestorerSpec, file_sha256
from decr_scene.pipeline.scene import RasterioScene, resolve_names, select_bands
from decr_scene.pipeline.source import FileSource
from decr_scene.pipeline.tiles import Plan, Source

if TYPE_CHECKING:
    from decr_scene.models.detector import DetectorConfig

SAMPLE_WINDOWS = 8
"""Windows a side of the lattice that the scaling is fitted to."""

SAMPLE_SIDE = 128
"""Side of such a window, px."""

BATCH_SIZE = 8

BLENDS = ("feather", "joint")


@dataclass(frozen=True)
class Options:
    """What a user may choose; the names are those of the command line.

    Args:
        model: Bundled name, model file, or ``identity``.
        restorer: A callable in the place of a model.
        steps: Diffusion steps; ``None``: the model's own default.
        start: Diffusion step to start at from the noised first guess; ``None``: the model's own default.
        weight_floor: Least weight of the first guess (the paper's eta); ``None``: the model's own.
        seed: Of the noise.
        overlap: Least overlap of tiles, px.
        halo: How far beyond its tile the first guess sees, px; ``None``: the model's own.
        blend: ``feather``: finished tiles are feathered; ``joint``: so are their estimates at every diffusion
            step, in squares of 4 x 4 tiles, which are then denoised as one picture.
        batch_size: Tiles in a batch; of ``feather``.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        bands: What the scene's bands are, such as ``blue,green,red,nir``, where the file does not say.
        scale: ``(low, high)`` DN for all bands instead of the fitted limits.
        mask: A raster whose non-zero pixels are cloud; ``none``: whatever the model changes; ``auto``: where
            the model's cloud detector sees cloud or shadow, or everywhere if it has none, and what the model
            hardly changes there, which is clear ground, keeps its bits.
        samples: Results of each tile, of as many seeds. The output is that of ``seed``, whatever their
            number; how far they differ is written beside it.
        reference: A raster of the same ground at another date, which is to be clear. It is laid over the
            scene, brought into its tone, and taken for the first guess where that sees cloud or shadow.
        aoi: A vector file with polygons: only inside does anything change, whatever the mask.
        pan: The panchromatic raster that goes with the scene, which is then sharpened with it on the fly;
            ``none``: not even the one in the scene's folder.
    """

    model: str = "default"
    restorer: Restorer | None = None
    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    seed: int = 0
    overlap: int = 64
    halo: int | None = None
    blend: str = "feather"
    batch_size: int = BATCH_SIZE
    device: str = "auto"
    precision: str = "auto"
    bands: str | None = None
    scale: tuple[float, float] | None = None
    mask: str = "auto"
    samples: int = 1
    reference: str | None = None
    aoi: str | None = None
    pan: str | None = None

    def __post_init__(self) -> None:
        _check_range("steps", self.steps, 1, 1000)
        _check_range("weight_floor", self.weight_floor, 0, 1)
        _check_range("overlap", self.overlap, 0, 128)
        _check_range("halo", self.halo, 0, 512)
        _check_range("batch_size", self.batch_size, 1, 4096)
        _check_range("samples", self.samples, 1, 1000)
        if self.blend not in BLENDS:
            raise OptionError(f"blend must be {' or '.join(BLENDS)}, got {self.blend}")
        if self.scale is not None and not -np.inf < self.scale[0] < self.scale[1] < np.inf:
            raise OptionError(f"scale must be low,high with low < high, got {self.scale}")


@dataclass(frozen=True)
class Coverage:
    """How cloudy a scene is, over its valid pixels.

    Args:
        cloud: Mean probability of cloud or thin cloud: the paper's cloud coverage probability.
        restore: Share that is taken to need restoring, for cloud or shadow.
        valid: Share of the scene that is valid.
    """

    cloud: float
    restore: float
    valid: float


@dataclass(frozen=True)
class ScenePlan:
    """A plan and what a user should know of it.

    Args:
        plan: The plan.
        bands: Names of the scene's bands.
        model_sha256: Of the model file.
        chosen: The tiles to restore; ``None``: all.
        warnings: What a user should know.
        detector: What is to look for cloud before anything is restored; ``None``: nothing.
        coverage: What it found; ``None``: it has not looked.
    """

    plan: Plan
    bands: tuple[str, ...]
    model_sha256: str | None = None
    chosen: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = field(default=())
    detector: DetectorConfig | None = None
    coverage: Coverage | None = None

    def batches(self, size: int) -> Batches:
        """The tiles to restore, ``size`` at a time or as many as are denoised together."""
        return Batches.of(self.plan.grid, size, self.chosen, self.plan.joint)

    @property
    def tiles_to_restore(self) -> int:
        """How many tiles will be restored."""
        return len(self.plan.grid) if self.chosen is None else len(self.chosen)


def plan_scene(scene: RasterioScene, options: Options) -> ScenePlan:
    """Choose bands and scaling, and lay the tiles.

    Raises:
        BandError: The scene lacks a band of the model, or does not say which band is which.
        UnknownModelError: There is no such model.
    """
    spec, digest = spec_of(options)
    bands, indexes, warnings = choose_bands(scene.bands, spec, options)
    source, spans = FileSource(scene.path, options.bands), sample_spans(scene.shape)
    if spec.name == "identity" and options.restorer is None:
        radiometry = Radiometry((0.0,) * len(indexes), (1.0,) * len(indexes))
    else:
        radiometry = known_radiometry(scene.dtype, len(indexes), options.scale) or fit_samples(
            scene.dtype, indexes, [source] * len(spans), spans
        )
    grid = TileGrid(scene.shape, overlap=options.overlap)
    mask = None if options.mask in ("auto", "none") else MaskFile(_absolute(options.mask), scene)
    aoi = None if options.aoi is None else Aoi.read(options.aoi, scene)
    quiet = options.mask == "auto" and spec.bands is not None
    joint = is_joint(spec, options)
    plan = Plan(grid, indexes, radiometry, spec, options.seed, mask, quiet, options.samples, aoi, joint)
    if options.reference is not None:
        plan = replace(plan, other=_other_date(options.reference, scene, bands, plan, source))
    chosen = _tiles_to_restore(plan)
    if aoi is not None and not chosen:
        warnings += ("no pixel is in the area of interest and in the mask: nothing will change",)
    return ScenePlan(plan, bands, digest, chosen, warnings, _detector_of(spec, options))


def gated(planned: ScenePlan, mask: Mask) -> ScenePlan:
    """The same plan, restoring only where a mask says."""
    plan = replace(planned.plan, mask=mask)
    return replace(planned, plan=plan, chosen=_tiles_to_restore(plan))


def _detector_of(spec: RestorerSpec, options: Options) -> DetectorConfig | None:
    """The detector that ``--mask auto`` asks for: that of the model, if it has one."""
    if options.mask != "auto" or spec.bands is None:
        return None
    from decr_scene.models.checkpoint import read_model_config

    return read_model_config(spec.name).detector


def _tiles_to_restore(plan: Plan) -> tuple[int, ...] | None:
    """Tiles over anything that mask and area of interest both let change; ``None``: all."""
    gates = [gate.touched_cells(plan.grid) for gate in (plan.mask, plan.aoi) if gate is not None]
    return tuple(plan.grid.over(np.logical_and.reduce(gates))) if gates else None


def known_radiometry(
    dtype: np.dtype[Any], bands: int, scale: tuple[float, float] | None
) -> Radiometry | None:
    """The scaling where no pixel needs to be seen for it: given by option, or uint8; else ``None``."""
    if scale is not None:
        return Radiometry((scale[0],) * bands, (scale[1],) * bands)
    return Radiometry((0.0,) * bands, (255.0,) * bands) if dtype == np.uint8 else None


def sample_spans(shape: tuple[int, int]) -> list[Span]:
    """A lattice of small windows over a scene, for the fit of its scaling."""
    height, width = (min(SAMPLE_SIDE, side) for side in shape)
    return [Span(row, col, height, width) for row in _lattice(shape[0]) for col in _lattice(shape[1])]


def fit_samples(
    dtype: np.dtype[Any], indexes: tuple[int, ...], sources: Sequence[Source], spans: Sequence[Span]
) -> Radiometry:
    """Fit the scaling of some bands to windows, each from its own source."""
    bands = list(indexes)
    pixels, valid = [], []
    for source, span in zip(sources, spans, strict=True):
        window = source.read(span)
        pixels.append(window[bands].reshape(len(bands), -1))
        valid.append(source.valid(span, window)[bands].reshape(len(bands), -1))
    return fit_radiometry(dtype, len(bands), np.concatenate(pixels, axis=1), np.concatenate(valid, axis=1))


def spec_of(options: Options) -> tuple[RestorerSpec, str | None]:
    """The restorer that the options ask for, and the digest of its model file."""
    if options.restorer is not None:
        name = getattr(options.restorer, "__name__", type(options.restorer).__name__)
        return RestorerSpec(name, device=options.device, precision=options.precision), None
    if options.model == "identity":
        return RestorerSpec("identity"), None
    from decr_scene.models.checkpoint import read_model_config
    from decr_scene.models.model import find_model, pick_device
    from decr_scene.models.schedule import Schedule

    path = find_model(options.model)
    config = read_model_config(path)
    sampling = config.sampling
    steps = sampling.steps if options.steps is None else options.steps
    start = sampling.start if options.start is None else options.start
    floor = sampling.weight_floor if options.weight_floor is None else options.weight_floor
    halo = sampling.halo if options.halo is None else options.halo
    try:
        pick_device(options.device)
        Schedule().pairs(steps, None if start == 1000 else start)
    except ValueError as error:
        raise OptionError(str(error)) from error
    spec = RestorerSpec(
        str(path), tuple(config.bands), steps, start, floor, halo, options.device, options.precision
    )
    return spec, file_sha256(Path(path))


def _other_date(
    path: str, scene: RasterioScene, bands: tuple[str, ...], plan: Plan, source: Source
) -> OtherDate:
    """The reference of another date, in the tone of the scene.

    Raises:
        OptionError: The restorer has no first guess.
        OtherDateError: As `OtherDate.fit`.
    """
    if plan.spec.bands is None:
        raise OptionError(
            f"a reference is a first guess, which {plan.spec.name} has no use for: take a model"
        )
    indexes, windows = list(plan.indexes), []
    for span in sample_spans(scene.shape):
        pixels = source.read(span)
        valid = np.asarray(source.valid(span, pixels)[indexes].all(axis=0))
        windows.append((span, plan.radiometry.to_model(pixels[indexes]), valid))
    return OtherDate.fit(_absolute(path), scene, bands, plan.indexes, windows)


def is_joint(spec: RestorerSpec, options: Options) -> bool:
    """Whether tiles are denoised together.

    Raises:
        OptionError: A callable cannot be asked to.
    """
    if options.blend == "joint" and options.restorer is not None:
        raise OptionError(
            f"blend joint is of diffusion steps, which the callable {spec.name} does not tell of: "
            "take blend feather, or a model"
        )
    return options.blend == "joint" and spec.bands is not None


def choose_bands(
    found: Sequence[str], spec: RestorerSpec, options: Options
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Names of a scene's bands, 0-based positions of those the restorer takes, and warnings.

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
    rest = [names[i] or f"band {i + 1}" for i in range(len(names)) if i not in indexes]
    rest = [name for name in rest if name != "alpha"]
    warnings = (f"the model has no use for {', '.join(rest)}: passed through unchanged",) if rest else ()
    return names, indexes, warnings


def _lattice(extent: int) -> list[int]:
    last = max(0, extent - SAMPLE_SIDE)
    return sorted({int(v) for v in np.linspace(0, last, SAMPLE_WINDOWS)})


def _absolute(path: str) -> str:
    """Workers may run elsewhere; what is no file here, GDAL may know."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise OptionError(f"{name} must be in {low} to {high}, got {value}")
