"""Pairs to measure on: of the bands and the size that a model wants, resized as a protocol has it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import cast

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.crops import cut_to_multiple
from decr_scene.models.data.layout import (
    CLEAR_FOLDERS,
    CLOUDY_FOLDERS,
    IMAGE_ENDINGS,
    NIR_FOLDER,
    RASTER_ENDINGS,
    find_pairs,
)
from decr_scene.models.data.loading import HELD_VALUES, load_source
from decr_scene.models.data.resize import resize
from decr_scene.models.data.source import Pair, held_in_memory, middle_of
from decr_scene.models.data.windowed import WindowedImage
from decr_scene.models.errors import DecrSceneError, TrainingError
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.inputs.bands import resolve_names
from decr_scene.pipeline.raster.images import RasterImage, band_roles, read_image, read_restored
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import pixel_of
from decr_scene.pipeline.tiling.grid import reduced_shape

GAPS, GAPS_SIDE = 0.001, 256
"""Share of an image without values from which that is told, and the side that it is looked at with, px."""

LOOKED_AT = 500
"""Most pairs whose types and gaps are looked at."""

LOOK_SECONDS = 10.0
"""Time that a training takes to look for gaps in the images of a table, s."""

PROTOCOLS = ("plain", "paper")
PAPER_SIDE = 256
"""Width that the paper's protocol resizes images to, px."""

MOST_SIDE = 2048
"""Of larger images the middle is measured, px."""


def load_pairs(
    model_bands: tuple[str, ...],
    data: Path,
    reduce: int = 1,
    protocol: str = "plain",
    bands: str | None = None,
) -> list[Pair]:
    """Load the pairs of a folder with the bands of a model, resized as a protocol has it.

    Raises:
        OptionError: There is no such protocol, the bands are not those of the model, or not in one order.
        TrainingError: The images cannot be used.
    """
    if protocol not in PROTOCOLS:
        raise OptionError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol}")
    if protocol == "paper" and reduce != 1:
        raise OptionError("the paper's protocol resizes by itself: drop --reduce")
    chosen = places_of(model_bands, data, bands)
    config = DataConfig(folder=".", tone=False, scales=(1 / reduce,), bands=chosen)
    source = load_source(config, data, read_image, bands=len(model_bands), opener=RasterImage.open)
    pairs = [held_in_memory(pair, MOST_SIDE) for pair in source.pairs[0]]
    return [_even(_as_in_paper(pair) if protocol == "paper" else pair) for pair in pairs]


def places_of(model_bands: tuple[str, ...], data: Path, bands: str | None) -> tuple[int, ...] | None:
    """Find the places, from 0, of a model's bands in the images of a folder; ``None``: as they are.

    Raises:
        OptionError: The bands are not those of the model, or not in one order.
    """
    return _by_files(model_bands, data) if bands is None else _by_option(model_bands, bands)


def load_restored(path: Path, cloudy: Path, places: tuple[int, ...] | None, shape: tuple[int, int]) -> Float:
    """Load what was made of a cloudy image, in its scaling, as `load_pairs` loads that: the same pixels.

    Args:
        path: The restored image, of the same bands and size.
        cloudy: The cloudy one.
        places: As of `places_of`.
        shape: ``(height, width)`` of the pair; less than the image's, it is its middle.

    Returns:
        ``(C, H, W)`` in [-1, 1].
    """
    raster = RasterImage.open(path, cloudy)
    middle = (slice(None), *middle_of(raster.shape[1:], MOST_SIDE))
    if cloudy.suffix.lower() in RASTER_ENDINGS and np.prod(raster.shape) > HELD_VALUES:
        return cut_to_multiple(cast(Float, WindowedImage(raster, places))[middle])
    image = read_restored(path, cloudy)
    image = image if places is None else image[list(places)]
    whole = cut_to_multiple(image)
    return whole if whole.shape[1:] == shape else cut_to_multiple(image[middle])  # its twin alone is large


def _by_files(model_bands: tuple[str, ...], data: Path) -> tuple[int, ...] | None:
    """Find the model's bands by what the files say of theirs, or return ``None`` if they name others."""
    orders = _band_orders(data)
    matching = {names for names in orders if set(model_bands) <= set(names)}
    if not matching:
        return None
    if len(orders) > 1:
        listed = " and ".join(sorted(",".join(name or "?" for name in names) for names in orders))
        raise OptionError(f"{data}: files have bands {listed}, expected one order: say it with --bands")
    names = matching.pop()
    return tuple(names.index(name) for name in model_bands)


def bands_of_folder(data: Path) -> tuple[str, ...] | None:
    """Read the band names of a folder of pairs, or return ``None`` if there are none or they differ."""
    orders = _band_orders(data)
    names = next(iter(orders), ())
    return names if len(orders) == 1 and all(names) else None


def pixel_of_folder(data: Path, reduce: int = 1) -> float | None:
    """Return the side of a pixel, m, of the first cloudy image of a folder; ``None``: it does not say.

    By its transform, GCPs or RPCs, as a run takes it. Averaged ``reduce`` x ``reduce``, pixels are larger.
    """
    images = (path for name in CLOUDY_FOLDERS for path in _images(data / name))
    first = next(images, None)
    if first is None:
        return None
    try:
        with RasterioScene.open(first) as scene:
            side = pixel_of(scene)
    except DecrSceneError:
        return None  # what is wrong with it is told by the one who reads its pixels
    return None if side is None else reduce * side


def warnings_of(
    data: Path, config: DataConfig | None = None, bands: int | None = None, seconds: float = math.inf
) -> list[str]:
    """Tell of what in a folder of pairs moves figures: pixels without values, and pairs of two types.

    The former are filled in from beside and judged like ground, the latter scaled each by itself. At most
    `LOOKED_AT` pairs are looked at, spread over all.

    Args:
        data: The folder.
        config: Where in it the pairs are; ``None``: as `evaluate` takes them.
        bands: Of the run that is trained.
        seconds: Time after which no further images are looked at for gaps.

    Raises:
        TrainingError: There are none.
    """
    pairs, _ = find_pairs(config or DataConfig(folder="."), data, bands)
    pairs, end = pairs[:: max(1, -(-len(pairs) // LOOKED_AT))], time.monotonic() + seconds
    told = []
    files = takewhile(lambda _: time.monotonic() < end, (path for pair in pairs for path in pair.files()))
    if found := [path for path in files if _has_gaps(path)]:
        told.append(
            f"{data}: {len(found)} images have pixels without values ({found[0].relative_to(data)} first): "
            "what is filled in there is judged like ground, and moves the figures; cut such parts off both "
            "images of the pair"
        )
    types = {pair.name: (_type(pair.cloudy), _type(pair.clear)) for pair in pairs}
    if differing := [name for name, (one, other) in types.items() if one and other and one != other]:
        told.append(
            f"{data}: {len(differing)} pairs are of two types ({differing[0]} first: "
            f"{' and '.join(types[differing[0]])}): each image is scaled by itself, so their figures say "
            "little; store both images of a pair in one"
        )
    return told


def warnings_of_tables(tables: Sequence[DataConfig], data: Path, bands: int) -> list[str]:
    """Tell of it in the ``[[data]]`` tables of a run, each thing once.

    Nothing of one whose pairs are missing: that is told when its images are read.
    """
    told: list[str] = []
    for table in tables:
        with suppress(TrainingError):
            told += warnings_of(data, table, bands, LOOK_SECONDS)
    return list(dict.fromkeys(told))


def _type(path: Path | None) -> str:
    """Return the type of an image, empty if it cannot be opened, which its reader tells."""
    if path is None:
        return ""
    try:
        with RasterioScene.open(path) as scene:
            return str(scene.dtype)
    except DecrSceneError:
        return ""


def _has_gaps(path: Path) -> bool:
    try:
        with RasterioScene.open(path) as scene:
            if scene.always_valid:
                return False
            valid = scene.decimated(reduced_shape(scene.shape, GAPS_SIDE))[1]
            bands = [band for band, name in enumerate(scene.bands) if name != "alpha"]
            return float(valid[bands].all(axis=0).mean()) < 1 - GAPS
    except DecrSceneError:  # told by the one who reads its pixels
        return False


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_ENDINGS)


def _band_orders(data: Path) -> set[tuple[str, ...]]:
    orders: set[tuple[str, ...]] = set()
    for name in (*CLOUDY_FOLDERS, *CLEAR_FOLDERS):
        beside = ("nir",) if (data / NIR_FOLDER / name).is_dir() else ()
        roles = map(band_roles, _images(data / name))
        orders |= {names + beside for names in roles if names}  # a damaged file is told by its reader
    return orders


def _by_option(model_bands: tuple[str, ...], option: str) -> tuple[int, ...]:
    named = resolve_names(("",) * len(option.split(",")), option)
    missing = [name for name in model_bands if name not in named]
    if missing:
        raise OptionError(
            f"--bands {','.join(named)} lacks {', '.join(missing)}: the model takes {','.join(model_bands)}"
        )
    return tuple(named.index(name) for name in model_bands)


def _as_in_paper(pair: Pair) -> Pair:
    """Resize on the scale of 0 to 255 as the published code does, which matters when truncating."""

    def resized(image: Float) -> Float:
        dn = (image + 1) * np.float32(127.5)
        whole = np.rint(dn)
        dn = whole if np.abs(dn - whole).max() < 1e-3 else dn
        small = resize(dn, PAPER_SIDE / dn.shape[2])
        return (small / np.float32(127.5) - 1).astype(np.float32)

    return pair._replace(cloudy=resized(pair.cloudy), clear=resized(pair.clear))


def _even(pair: Pair) -> Pair:
    cut = pair._replace(cloudy=cut_to_multiple(pair.cloudy), clear=cut_to_multiple(pair.clear))
    if not cut.clear.size:
        raise OptionError(f"{pair.name} is {pair.clear.shape[1:]} px: images must be 32 px a side at least")
    return cut
