"""From the pixels of tiles to their change: the tasks that Dask runs, each a pure function.

first guess of tiles -> one feathered field -> sampling of tiles -> their change, which `blending` turns into
digital numbers. The same functions serve files (a worker reads its own windows) and arrays (`restore` hands
the pixels in).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import compress, groupby
from typing import NamedTuple

import numpy as np

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.data.anchor import CONTEXT
from decr_scene.pipeline.errors import RestorerError
from decr_scene.pipeline.look.tone import in_tone
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.regions.clear_ground import change_share
from decr_scene.pipeline.regions.masks import DetectedMask
from decr_scene.pipeline.restoration.agreement import Agreement
from decr_scene.pipeline.restoration.memory import run_in_halves
from decr_scene.pipeline.restoration.open_restorers import detect, models_turn, open_restorer
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.remnants import without_remnants
from decr_scene.pipeline.restoration.restorers import Noise, TileModel
from decr_scene.pipeline.restoration.tile_results import (
    Batchwise,
    Results,
    last_band,
    padded,
    picklable_errors,
    tiles_over,
    unpadded,
)
from decr_scene.pipeline.tiling.feather import blend
from decr_scene.pipeline.tiling.grid import Span, Tile
from decr_scene.pipeline.tiling.noise import TileNoise
from decr_scene.pipeline.tiling.windows import window_view

SAMPLE_SEED = 0x9E3779B9
"""From the seed of a sample to that of the next, mod 2^32: far from any that a user would choose."""


class Prepared(NamedTuple):
    """Tiles that have a valid pixel: the window that is seen of each, and all on the [-1, 1] scale.

    ``images`` is ``(N, C, h, w)``, no less than a tile.
    """

    tiles: list[Tile]
    spans: list[Span]
    images: Float


@picklable_errors
def look_at_window(plan: Plan, image: Float) -> Float:
    """Run the model's own detector on averaged images, where models run."""
    return detect(plan.spec, image)


@picklable_errors
def guess_tiles(plan: Plan, source: Source, tiles: Sequence[Tile]) -> Results:
    """Make the first guess of every tile that has a valid pixel, of each alone or over one window."""
    if plan.spec.windows:
        return _guess_window(plan, source, tiles)
    own_tiles, views, images = _prepare(plan, source, tiles, plan.spec.halo)
    if not own_tiles:
        return {}
    model = open_restorer(plan.spec)
    context = _contexts(plan, views, images) if plan.spec.context else None
    with models_turn():
        guesses = run_in_halves(model.guess, images, context)
    results: dict[int, Float] = {}
    for tile, view, image, guess in zip(own_tiles, views, images, guesses, strict=True):
        results |= _of_tiles(plan, [tile], view, guess, image)
    return results


def _guess_window(plan: Plan, source: Source, tiles: Sequence[Tile]) -> Results:
    """Make the first guesses of tiles over one window, normalised as far as a tile sees."""
    halo = plan.spec.halo
    view, norm_side = window_view(plan.grid, tiles, halo), plan.grid.size + 2 * halo
    pixels, bands = source.read(view), list(plan.indexes)
    valid = source.valid(view, pixels)[bands]
    own = [tile for tile in tiles if valid[(slice(None), *plan.grid.span(tile).inside(view))].any()]
    if not own:
        return {}
    sides = [max(plan.grid.size, side) for side in view[2:]]
    images = padded(plan.radiometry.to_model(pixels[bands], valid), *sides)[None]
    model = open_restorer(plan.spec)
    context = _contexts(plan, [view], images) if plan.spec.context else None
    with models_turn():
        (guess,) = model.guess(images, context, norm_side)
    return _of_tiles(plan, own, view, guess, images[0])


def _of_tiles(plan: Plan, tiles: Sequence[Tile], view: Span, guess: Float, image: Float) -> Results:
    """Cut tiles from the first guess of a window, ``(C, h, w)`` as its image.

    With other dates, each has a band more: how much of it is theirs.
    """
    guess = _without_remnants(plan, view, guess, image)
    if plan.tones:
        guess = _in_tone(plan, view, guess)
    if plan.other is not None:
        guess = plan.other.instead_of(unpadded(guess, view), unpadded(image, view), view, plan.mask)
    results = {}
    for tile in tiles:
        part = (slice(None), *plan.grid.span(tile).inside(view))
        results[tile.number] = guess[part].copy()  # a view would keep the halo in memory
    return results


@picklable_errors
def restore_batches(
    plan: Plan, source: Source, batches: Sequence[Sequence[Tile]], *guesses: Results
) -> Batchwise:
    """Restore batches one by one as `restore_tiles`, and give what all of them change."""
    changes = Batchwise()
    for tiles in batches:
        began = time.monotonic()
        found = restore_tiles(plan, source, tiles, *guesses)
        changes.add(found, time.monotonic() - began)
    return changes


@picklable_errors
def restore_tiles(plan: Plan, source: Source, tiles: Sequence[Tile], *guesses: Results) -> Results:
    """Restore every tile that has a valid pixel, and give what that changes.

    Args:
        plan: The plan.
        source: The scene.
        tiles: The tiles.
        guesses: First guesses of these tiles and of all their neighbours, for a restorer that takes them.

    Returns:
        Restored minus input, on the [-1, 1] scale; a tile that nothing changed is left out. With several
        samples, the change of the first, and then as many bands with the variance of all. With another date,
        the last band says how much of the first guess was that date's.

    Raises:
        RestorerError: The restorer gave another shape, or values that are not finite.
    """
    prepared = _prepare(plan, source, tiles)
    if not prepared.tiles:
        return {}
    model = open_restorer(plan.spec)
    field = _fields(plan, prepared, guesses) if model.needs_field else None
    if isinstance(plan.mask, DetectedMask):
        prepared, field = _worth_sampling(plan, prepared, field)
        if not prepared.tiles:
            return {}
    own_tiles, spans, images = prepared
    origins = _origins(plan, spans, guesses)
    open_tiles = np.ones(len(own_tiles), np.bool_) if plan.joint else model.may_change(images, field)
    sampled, its_field = _some(prepared, field, open_tiles)
    samples = []
    for sample in range(plan.samples):
        restored = _restored(plan, model, sampled, its_field, sample)
        if field is not None and not open_tiles.all():
            answers, restored = restored, field.clip(-1, 1)  # the first guess is the answer of the others
            restored[open_tiles] = answers
        _check(restored, images, plan.spec.name, spans[0])
        if origins is not None and field is not None:
            restored = restored + origins * (field - restored)  # ground that was seen needs no texture
        samples.append([tile - image for tile, image in zip(restored, images, strict=True)])
    changes = {}
    for number, (tile, span, *drawn) in enumerate(zip(own_tiles, spans, *samples, strict=True)):
        change = _with_variance(drawn)
        if (change != 0).any():
            found = change if origins is None else np.concatenate([change, origins[number]])
            changes[tile.number] = unpadded(found, span)
    return changes


def rows_of(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Split a run of tiles into those of each row of the grid."""
    for _, row in groupby(tiles, key=lambda tile: tile.grid_row):
        yield list(row)


def _prepare(plan: Plan, source: Source, tiles: Sequence[Tile], halo: int = 0) -> Prepared:
    """Read a row of tiles at a time, scale, fill what is invalid, and pad tiles that the scene cuts.

    What is filled is filled tile by tile, whatever else is in the batch.
    """
    grid, bands = plan.grid, list(plan.indexes)
    valid_tiles: list[Tile] = []
    views: list[Span] = []
    sides = [max(grid.size, side) for side in grid.view(tiles[0], halo)[2:]]
    images = np.empty((len(tiles), len(bands), *sides), np.float32)
    for row in rows_of(tiles):
        whole = grid.union(row, halo)
        pixels = source.read(whole)
        valid = source.valid(whole, pixels)[bands]
        pixels = pixels[bands]
        at_once = valid.all() and whole.width <= len(row) * sides[1]  # no gaps between tiles
        scaled = plan.radiometry.to_model(pixels) if at_once else None
        for tile in row:
            if valid[(slice(None), *grid.span(tile).inside(whole))].any():
                view = grid.view(tile, halo)
                part = (slice(None), *view.inside(whole))
                image = (
                    plan.radiometry.to_model(pixels[part], valid[part]) if scaled is None else scaled[part]
                )
                images[len(valid_tiles)] = padded(image, *sides)
                valid_tiles.append(tile)
                views.append(view)
    return Prepared(valid_tiles, views, images[: len(valid_tiles)])


def _field(plan: Plan, span: Span, guesses: Sequence[Results]) -> Float:
    """Cut a window from the one feathered field of first guesses, padded as the tile is."""
    in_window = tiles_over(plan, span, guesses)
    field = blend(plan.grid, span, in_window, len(plan.indexes), share_out=True)
    return padded(field, plan.grid.size, plan.grid.size)


def _with_variance(samples: Sequence[Float]) -> Float:
    """Return the first sample, and, if there are several, as many bands with the variance of all."""
    if len(samples) == 1:
        return samples[0]
    return np.concatenate([samples[0], np.var(samples, axis=0, ddof=1, dtype=np.float32)])


def _origins(plan: Plan, spans: Sequence[Span], guesses: Sequence[Results]) -> Float | None:
    """Blend the other date's share of the first guess in tiles, ``(N, 1, size, size)``, if there is one."""
    if plan.other is None:
        return None
    size = plan.grid.size
    parts = [last_band(plan, span, tiles_over(plan, span, guesses))[None] for span in spans]
    return np.stack([padded(part, size, size) for part in parts])


def _contexts(plan: Plan, views: Sequence[Span], images: Float) -> Float:
    """Interpolate the context of windows, ``(N, K, h, w)``, zeros if there is no look at the scene."""
    if plan.ground is None:
        return np.zeros((len(views), len(plan.indexes) + CONTEXT, 1, 1), np.float32)
    height, width = images.shape[2:]
    return np.stack([plan.ground.context(Span(view.row, view.col, height, width)) for view in views])


def _in_tone(plan: Plan, view: Span, guess: Float) -> Float:
    """Bring the first guess of a window into the tone of the ground, without its padding."""
    if plan.ground is None or plan.mask is None or not plan.ground.known:
        return guess
    if plan.fills and not plan.ground.typical:
        return guess
    seen = plan.mask.soft(view)
    if not seen.any():
        return guess
    return in_tone(unpadded(guess, view), plan.ground.tone(view), seen, plan.ground.spread)


def _without_remnants(plan: Plan, view: Span, guess: Float, image: Float) -> Float:
    """Give way to the tone of the ground where cloud is left in the first guess of a window.

    Where that is the tone of little, this is done where cloud is saturated, so that nothing else is known. A
    detector that knows clouds by their rims is believed of what they have inside alone.
    """
    if plan.ground is None or not isinstance(plan.mask, DetectedMask) or not plan.ground.known:
        return guess
    cloudy = unpadded(image, view)
    seen = plan.mask.cloud(view) if plan.fills else plan.mask.inside(view)
    if plan.fills and not plan.ground.typical:
        seen = seen & plan.radiometry.saturated(cloudy, plan.visible)
    if not seen.any():
        return guess
    bands, tone = plan.spec.bands or (), plan.ground.tone(view)
    return without_remnants(unpadded(guess, view), cloudy, tone, np.asarray(seen, np.float32), bands)


def _fields(plan: Plan, prepared: Prepared, guesses: Sequence[Results]) -> Float:
    """Cut windows of the field of first guesses, or of the ground for a restorer without any."""
    if plan.spec.bands is not None:
        return np.stack([_field(plan, span, guesses) for span in prepared.spans])
    if plan.ground is None or not plan.ground.known:
        return prepared.images
    size = plan.grid.size
    return np.stack([padded(plan.ground.tone(span), size, size) for span in prepared.spans])


def _worth_sampling(plan: Plan, prepared: Prepared, field: Float | None) -> tuple[Prepared, Float | None]:
    """Choose the tiles that the mask touches, or of which the first guess changes much."""
    chosen = np.zeros(len(prepared.tiles), np.bool_)
    for number, span in enumerate(prepared.spans):
        worth = plan.mask is not None and bool(plan.mask.soft(span).any())
        if not worth and plan.veils and field is not None:
            change = unpadded(field[number] - prepared.images[number], span)
            worth = bool(change_share(change, span, span).any())
        chosen[number] = worth
    return _some(prepared, field, chosen)


def _noise(plan: Plan, model: TileModel, tiles: Sequence[Tile], sample: int) -> Noise | None:
    """Draw the noise of whole tiles, or leave that to a model that draws it itself, if it wants any."""
    if not model.needs_noise:
        return None
    spans = [Span(tile.row, tile.col, plan.grid.size, plan.grid.size) for tile in tiles]
    noise = TileNoise(plan.seed + sample * SAMPLE_SEED, len(plan.indexes), spans)
    return noise if model.draws_noise else noise.drawn()


def _restored(plan: Plan, model: TileModel, prepared: Prepared, field: Float | None, sample: int) -> Float:
    """Restore tiles, ``(N, C, size, size)``, of which there may be none."""
    tiles, _, images = prepared
    if not tiles:
        return images
    noise = _noise(plan, model, tiles, sample)
    with models_turn():
        if plan.joint:
            return model.restore(images, noise, field, Agreement(plan, tiles))
        return run_in_halves(model.restore, images, noise, field)


def _some(prepared: Prepared, field: Float | None, which: Bool) -> tuple[Prepared, Float | None]:
    """Keep the tiles that ``which`` chooses, ``(N,)``."""
    if which.all():
        return prepared, field
    tiles, spans = list(compress(prepared.tiles, which)), list(compress(prepared.spans, which))
    return Prepared(tiles, spans, prepared.images[which]), None if field is None else field[which]


def _check(restored: Float, images: Float, name: str, span: Span) -> None:
    if restored.dtype.kind not in "fiub":
        raise RestorerError(
            f"restorer {name} returned {restored.dtype}, expected real numbers, as the tiles are"
        )
    if restored.shape != images.shape:
        raise RestorerError(
            f"restorer {name} returned {restored.shape} for tiles of {images.shape}: it must keep the shape"
        )
    if not all(np.isfinite(tile).all() for tile in restored):
        raise RestorerError(
            f"restorer {name} returned values that are not finite in the batch of tile row {span.row}, "
            f"col {span.col}: the raster would be wrong, nothing is written"
        )
