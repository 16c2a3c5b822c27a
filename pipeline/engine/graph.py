"""Restore a DataArray as a lazy Dask graph, by the same steps as `process_scene`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from decr_scene.models.arrays import Float
from decr_scene.pipeline.defaults import BATCH_SIZE, BLOCKSIZE
from decr_scene.pipeline.engine.array_scene import (
    as_scene,
    check_array,
    check_order,
    names_of,
    nodata_of,
    pixel_of,
    said_of_bands,
)
from decr_scene.pipeline.engine.under_way import block_rows
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.look.coarse import Coarse, CoarseReader, ReadAlready
from decr_scene.pipeline.look.detection import look_in_memory
from decr_scene.pipeline.look.detectors import Lookout, MaskLookout, UkisLookout
from decr_scene.pipeline.look.ground import Ground, ground_side
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.reflectance import Reflectance, sample_of
from decr_scene.pipeline.planning.detect_clouds import open_lent_lookout, open_lookout
from decr_scene.pipeline.planning.frame import Frame
from decr_scene.pipeline.planning.options import Choices, Options
from decr_scene.pipeline.planning.plan_scene import regions_of
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import fit_samples, radiometry_without_pixels, sample_spans
from decr_scene.pipeline.raster.source import ArraySource, Source
from decr_scene.pipeline.regions.masks import DetectedMask, MaskFile
from decr_scene.pipeline.restoration.blending import blend_tiles
from decr_scene.pipeline.restoration.plan import Plan, chosen_tiles, guessed_together
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.restoration.tasks import guess_tiles, restore_tiles
from decr_scene.pipeline.restoration.tile_results import Results
from decr_scene.pipeline.system.forks import refuse_after_fork
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, Tile
from decr_scene.pipeline.tiling.windows import MULTIPLE, uncut

OF_FILES = frozenset(
    {
        *("workers", "scheduler", "overwrite", "compress", "blocksize", "quicklook", "stac", "polygons"),
        *("resume", "progress", "cancel", "client", "memory_limit", "dashboard"),
    }
)
"""Keywords of `process_scene` that an array has no use for."""


def restore(scene: xr.DataArray, options: Options | None = None, **named: Unpack[Choices]) -> xr.DataArray:
    """Remove the clouds of a DataArray, lazily.

    Nothing is read and nothing is sampled before the result is computed; each tile is sampled once, however
    many chunks it touches, if the result is computed at once. Where a detector looks at the scene, it looks
    at all of it before the first tile is sampled, and its coarse pixels are held in memory.

    Args:
        scene: ``(band, y, x)``, in memory or on Dask, in the digital numbers of the file; band names from
            ``long_name`` or the ``band`` coordinate (``alpha``: transparent pixels stay), nodata from
            ``.rio.nodata``, scale and offset of reflectance from the attributes of rioxarray. A mask that
            lies beside the values in its file is not known here.
        options: All options as one value; ``None``: the defaults. A mask or an area of interest is laid over
            the array by its CRS and transform; ``pan``, ``asset``, ``other_date``, ``samples`` and
            ``uncertainty`` are refused.
        **named: Fields of `Options` by name (model, restorer, steps, seed, ...), which take precedence.

    Returns:
        The same array with Dask chunks of `BLOCKSIZE` px, coordinates, attributes, CRS and nodata kept.

    Raises:
        SceneError: The array has other dimensions.
        DecrSceneError: As `process_scene`.
    """
    check_array(scene)
    refuse_after_fork()
    for name in named:
        if name in OF_FILES:
            raise OptionError(
                f"restore gives an array and takes no {name}, which is of files and how they are made: "
                "use process_scene"
            )
    chosen = Options.given(options, named)
    _check_options(chosen)
    graph = _Graph(scene, chosen)
    rows = [
        [graph.block(span) for span in row] for row in block_rows((scene.shape[1], scene.shape[2]), BLOCKSIZE)
    ]
    return scene.copy(data=da.block(rows))


def _check_options(options: Options) -> None:
    """Refuse the options that do not apply to an array.

    Raises:
        OptionError: One of them is set.
    """
    for name, is_set, why in (
        ("pan", options.pan not in (None, "none"), "which is laid over a file"),
        ("asset", options.asset is not None, "which names a raster of a STAC Item"),
        ("other_date", options.other_date is not None, "whose colours are fitted to files"),
        ("samples", options.samples > 1, "as it gives the pixels alone"),
        ("uncertainty", options.uncertainty, "as it gives the pixels alone"),
    ):
        if is_set:
            raise OptionError(f"restore takes no {name}, {why}: use process_scene")


class _Graph:
    """The delayed tasks of one array; each batch is one task, shared by all blocks that it touches."""

    def __init__(self, scene: xr.DataArray, options: Options) -> None:
        self.pixels = scene.data if isinstance(scene.data, da.Array) else da.from_array(scene.data)
        self.nodata = nodata_of(scene)
        self.units = said_of_bands(scene, "scale", 1.0), said_of_bands(scene, "offset", 0.0)
        if options.bands is None:
            check_order(scene)
        frame = Frame.of(names_of(scene), (scene.shape[1], scene.shape[2]), pixel_of(scene), options)
        spec, look, self.indexes = frame.spec, frame.look, frame.indexes
        spec = replace(spec, computing=None)  # the device is chosen when it is computed
        self.alpha = frame.bands.index("alpha") if "alpha" in frame.bands else None
        self.needs_field = spec.bands is not None
        self.halo = spec.halo
        mask, aoi = regions_of(options, as_scene(scene, options.aoi is not None))
        radiometry = self._radiometry(options, frame)
        # with a scaling in the place of the one that is fitted when the graph runs
        plan = frame.plan(Radiometry((0.0,), (1.0,)), options, mask, aoi)
        self.shown = replace(plan, veils=look is not None and look.veils)
        chosen = chosen_tiles(self.shown)
        self.batches = Batches.of(frame.grid, options.batch_size or BATCH_SIZE, chosen, frame.joint)
        around = chosen_tiles(replace(self.shown, aoi=None))
        if spec.windows:
            self.guessed = uncut(frame.grid, around)
        else:
            self.guessed = guessed_together(self.shown, self.batches)
        from_look = {} if look is None else self._look(look, radiometry, spec, mask)
        self.plan = dask.delayed(replace)(
            self.shown, radiometry=radiometry, spec=_local(spec, options), **from_look
        )
        # what a detector gates is known when the graph runs, all else is in the batches
        gates = look is not None and look.gates
        self.chosen = dask.delayed(_chosen)(self.plan) if gates else None
        self.seen = dask.delayed(_chosen)(self.plan, False) if gates else None
        self._guesses: dict[int, Delayed] = {}
        self._changes: dict[int, Delayed] = {}

    def block(self, span: Span) -> da.Array:
        """Make one chunk of the result."""
        seen = self.shown.sight(span)
        parts = [self._change(number) for number in sorted(self.batches.touching(seen))]
        shape = (len(self.pixels), span.height, span.width)
        task = dask.delayed(blend_tiles)(self.plan, self._source(seen), span, *parts).pixels
        return da.from_delayed(task, shape, self.pixels.dtype)

    def _change(self, number: int) -> Delayed:
        if number not in self._changes:
            around = self.guessed.over(self.batches[number]) if self.needs_field else set()
            guesses = [self._guess(other) for other in sorted(around)]
            tiles = self.batches[number]
            seen = self.batches.grid.union(tiles)
            self._changes[number] = self._task(_restore, tiles, seen, self.chosen, guesses)
        return self._changes[number]

    def _guess(self, number: int) -> Delayed:
        if number not in self._guesses:
            tiles = self.guessed[number]
            seen = self.guessed.grid.union(tiles, self.halo + (MULTIPLE if self.shown.spec.windows else 0))
            self._guesses[number] = self._task(_guess, tiles, seen, self.seen, [])
        return self._guesses[number]

    def _task(
        self, function: Any, tiles: list[Tile], seen: Span, chosen: Delayed | None, inputs: list[Delayed]
    ) -> Delayed:
        source = self._source(seen)
        return dask.delayed(function, pure=False)(self.plan, source, tiles, chosen, *inputs)

    def _source(self, span: Span) -> Delayed:
        """Take the pixels of a window, which the task is given when Dask has them."""
        part = self.pixels[:, span.row : span.bottom, span.col : span.right]
        return dask.delayed(ArraySource)(span, part, self.nodata, self.alpha)

    def _look(
        self, look: LookPlan, radiometry: Any, spec: RestorerSpec, mask: MaskFile | None
    ) -> dict[str, Any]:
        """Return the mask, if the detector gates, and the ground, for the plan."""
        shape, factor = (self.pixels.shape[1], self.pixels.shape[2]), look.factor
        sample = self._sample(look, shape)
        lookout = dask.delayed(_lookout)(look, spec, sample, mask, self.indexes, radiometry, self.units)
        parts, step = [], max(1, BLOCKSIZE // factor)
        height = -(-shape[0] // factor)
        for row in range(0, height, step):
            rows = range(row, min(height, row + step))
            first, end = row * factor, min(shape[0], rows.stop * factor)
            source = self._source(Span(first, 0, end - first, shape[1]))
            parts.append(
                dask.delayed(_read_rows)(shape, source, self.indexes, radiometry, factor, lookout, rows)
            )
        mask_and_ground = dask.delayed(_detect)(shape, self.indexes, radiometry, look, lookout, parts)
        return {"ground": mask_and_ground[1], "fills": look.fills, "tones": look.tones} | (
            {"mask": mask_and_ground[0]} if look.gates else {}
        )

    def _sample(self, look: LookPlan, shape: tuple[int, int]) -> Delayed | None:
        """Read what the reflectance is fitted to."""
        if look.kind != "ukis":
            return None
        spans = sample_spans(shape)
        sources = [self._source(span) for span in spans]
        return dask.delayed(sample_of)(sources, spans, look.bands, look.factor)

    def _radiometry(self, options: Options, frame: Frame) -> Any:
        """Return the scaling, of pictures and by option at once, else fitted when the graph runs."""
        dtype, bands, fit = self.pixels.dtype, len(self.indexes), frame.fit()
        radiometry = radiometry_without_pixels(dtype, bands, options.scale, fit)
        if radiometry is not None:
            return radiometry
        spans = sample_spans((self.pixels.shape[1], self.pixels.shape[2]))
        sources = [self._source(span) for span in spans]
        return dask.delayed(fit_samples)(dtype, self.indexes, sources, spans, fit)


def _chosen(plan: Plan, in_aoi: bool = True) -> frozenset[int] | None:
    """Choose the tiles to restore, as of a file, when the detector has looked; ``None``: all.

    Those outside the area of interest, too, unless ``in_aoi``.
    """
    chosen = chosen_tiles(plan if in_aoi else replace(plan, aoi=None))
    return None if chosen is None else frozenset(chosen)


def _among(tiles: list[Tile], chosen: frozenset[int] | None) -> list[Tile]:
    return tiles if chosen is None else [tile for tile in tiles if tile.number in chosen]


def _guess(plan: Plan, source: Source, tiles: list[Tile], chosen: frozenset[int] | None) -> Results:
    """Make the first guesses of the chosen ones of these tiles, over the windows of a file."""
    own = tuple(tile.number for tile in _among(tiles, chosen))
    parts = guessed_together(replace(plan, aoi=None), Batches.runs(plan.grid, len(tiles), own))
    guesses = [guess_tiles(plan, source, parts[number]) for number in range(len(parts))]
    return {number: guess for part in guesses for number, guess in part.items()}


def _restore(
    plan: Plan, source: Source, tiles: list[Tile], chosen: frozenset[int] | None, *guesses: Results
) -> Results:
    """Restore the chosen ones of these tiles."""
    own = _among(tiles, chosen)
    return restore_tiles(plan, source, own, *guesses) if own else {}


def _lookout(
    look: LookPlan,
    spec: RestorerSpec,
    sample: Float | None,
    mask: MaskFile | None,
    indexes: tuple[int, ...],
    radiometry: Radiometry,
    units: tuple[list[float], list[float]],
) -> Lookout:
    """Choose the detector of an array with these scales and offsets."""
    if look.kind == "mask":
        assert mask is not None, "the plan says that there is one"
        return MaskLookout(mask.cloud, indexes)
    if look.lender is not None:
        return open_lent_lookout(look, indexes, radiometry)
    if sample is None:
        return open_lookout(spec)
    return UkisLookout(Reflectance.of(look.bands, *units, sample))


def _read_rows(
    shape: tuple[int, int],
    source: Source,
    indexes: tuple[int, ...],
    radiometry: Radiometry,
    factor: int,
    lookout: Lookout,
    rows: range,
) -> Coarse:
    split, _ = ground_side(shape, factor)
    return CoarseReader(shape, source, indexes, radiometry, factor, lookout.sight, split).read(rows)


def _detect(
    shape: tuple[int, int],
    indexes: tuple[int, ...],
    radiometry: Radiometry,
    look: LookPlan,
    lookout: Lookout,
    parts: list[Coarse],
) -> tuple[DetectedMask, Ground]:
    """Detect cloud in averaged rows."""
    nothing = ArraySource(Span(0, 0, 0, 0), np.zeros((0, 0, 0)))
    split, _ = ground_side(shape, look.factor)
    reader = ReadAlready(shape, nothing, indexes, radiometry, look.factor, lookout.sight, split, tuple(parts))
    detected = look_in_memory(lookout, reader, look.threshold)
    return look.mask(detected.cloud, shape), detected.ground


def _local(spec: RestorerSpec, options: Options) -> RestorerSpec:
    """Keep a callable in the graph: Dask sends it wherever the graph runs."""
    return spec if options.restorer is None else replace(spec, plugin=options.restorer)
