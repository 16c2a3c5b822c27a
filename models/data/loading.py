"""Read the images of a source, all of them before a training begins, so that it does not stop at a bad one.

Images are scaled to [-1, 1] by the reader that the caller gives: the pipeline gives the one that applies its
own radiometry, so that scenes and training crops have the same scaling. They are held in memory, but
for large rasters, of which crops are read as they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from PIL import Image

from decr_scene.models.arrays import Float
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.crops import area_reduced
from decr_scene.models.data.layout import RASTER_ENDINGS, PairPaths, find_pairs, place_of
from decr_scene.models.data.resize import resize
from decr_scene.models.data.source import Pair, PairSource
from decr_scene.models.data.tone import fit_tone
from decr_scene.models.data.windowed import OVERVIEW_SIDE, Raster, WindowedImage
from decr_scene.models.errors import TrainingError

Reader = Callable[[Path, Path], Float]
"""Read an image, with the scaling of the second path, as ``(C, H, W)`` float32 in [-1, 1].

Both images of a pair take the cloudy one's, which is all that there is when a scene is restored.
"""

Opener = Callable[[Path, Path], Raster]
"""As `Reader`, but to what reads its windows."""

HELD_VALUES = 2**25
"""Images of more values than this (128 MiB) are read by window, unless the source says otherwise."""


def load_source(
    config: DataConfig,
    root: Path,
    read: Reader,
    held_out: str = "with",
    *,
    bands: int | None = None,
    crop: int | None = None,
    opener: Opener | None = None,
) -> PairSource:
    """Read every image of a source, or name all that is wrong with it at once.

    Args:
        config: The source.
        root: Folder that the source's folders are relative to.
        read: Reader of one image.
        held_out: Read ``with`` the images that the source holds out, ``without`` them, or ``only`` them.
        bands: Bands that every image must have; ``None``: any.
        crop: Side of the crops that every image must have room for, px.
        opener: Opens large rasters for reading by window; ``None``: all images are held in memory.

    Raises:
        TrainingError: A folder is missing or empty, an image has no twin, sizes or bands differ, an image is
            too small or cannot be read; the message lists them.
    """
    paths, wrong = find_pairs(config, root, bands)
    count = len(paths) + len(wrong)
    dropped = {"with": (), "without": (True,), "only": (False,)}[held_out]
    paths = [path for path in paths if config.held_out(path.name) not in dropped]
    if not paths and not wrong:
        raise TrainingError(f"{place_of(config, root)}: no image is left after the hold-out, expected some")

    def load(path: PairPaths) -> Pair | str:
        return _read_pair(config, path, read, opener, bands, crop)

    with ThreadPoolExecutor(2) as pool:
        read_all = list(pool.map(load, paths))
    wrong += [text for text in read_all if isinstance(text, str) and not isinstance(text, _TooSmall)]
    small = [text for text in read_all if isinstance(text, _TooSmall)]
    if wrong or small:
        raise TrainingError(
            f"{len(wrong) + len(small)} of {count} images of {place_of(config, root)} cannot be used: "
            f"{_shown(wrong, small)}; mend them or take them out{', or set crop lower' if small else ''}"
        )
    pairs = [pair for pair in read_all if isinstance(pair, Pair)]
    return PairSource(config, tuple(tuple(_reduced(p, round(1 / s)) for p in pairs) for s in config.scales))


def _shown(wrong: Sequence[str], small: Sequence[str]) -> str:
    """Put faults into one line: of images that are too small the first, of all others 20."""
    others = f" (and {len(small) - 1} more that are too small)" if len(small) > 1 else ""
    told = [f"{text}{others}" for text in small[:1]] + [*wrong[:20]]
    return "; ".join(told) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")


class _TooSmall(str):
    """A fault that a crop of the run makes one, mostly of many images."""


class Scaling(NamedTuple):
    """The files whose scaling both images of a pair get."""

    image: Path
    nir: Path | None


def _read_pair(
    config: DataConfig,
    paths: PairPaths,
    read: Reader,
    opener: Opener | None,
    bands: int | None,
    crop: int | None,
) -> Pair | str:
    """Return the pair, or a description of its fault."""
    try:
        scaling = Scaling(paths.cloudy or paths.clear, paths.cloudy_nir)
        if config.masks is not None:
            clear = _read_cover(paths.clear)
        else:
            clear = _read(config, paths.clear, paths.clear_nir, scaling, read, opener)
        cloudy = clear
        if paths.cloudy is not None:
            cloudy = _read(config, paths.cloudy, paths.cloudy_nir, scaling, read, opener)
    except Exception as error:  # whatever a decoder may raise: it is collected, and named with its file
        return f"{paths.clear.name}: {error}"
    if cloudy.shape[-2:] != clear.shape[-2:] or (config.masks is None and len(cloudy) != len(clear)):
        other = "clear" if config.masks is None else "its mask"
        return f"{paths.clear.name}: cloudy is {cloudy.shape}, {other} is {clear.shape}"
    if config.resize is not None:
        clear, cloudy = _resized(clear, config.resize), _resized(cloudy, config.resize)
    if bands is not None and len(cloudy) != bands:
        return f"{paths.clear.name}: {len(cloudy)} bands, the model has {bands}"
    side = min(clear.shape[1:]) // max(round(1 / scale) for scale in config.scales)
    if crop is not None and side < crop:
        return _TooSmall(f"{paths.clear.name}: {side} px at the smallest of its scales, a crop has {crop}")
    tone = None
    if config.tone and paths.cloudy is not None and config.masks is None:
        tone = fit_tone(_overview(cloudy), _overview(clear))
    return Pair(paths.name, cloudy, clear, tone)


def _read(
    config: DataConfig,
    path: Path,
    nir: Path | None,
    like: Scaling,
    read: Reader,
    opener: Opener | None,
) -> Float:
    """Read one image as an array, or as an object that slices like one."""
    if opener is not None and config.resize is None and nir is None and config.windowed is not False:
        raster = (
            opener(path, like.image) if config.windowed or path.suffix.lower() in RASTER_ENDINGS else None
        )
        if raster is not None and (config.windowed or np.prod(raster.shape) > HELD_VALUES):
            _check_bands(config, raster.shape[0])
            return cast(Float, WindowedImage(raster, config.bands))
    image = read(path, like.image)
    if nir is not None:
        image = np.concatenate([image, read(nir, like.nir or nir)[:1]])
    _check_bands(config, len(image))
    if config.bands is not None:
        image = np.ascontiguousarray(image[list(config.bands)])
    return image


def _read_cover(path: Path) -> Float:
    """Read a mask as the cover by cloud, thick or thin, and by shadow, ``(2, H, W)``, 0 or 1.

    Its values are taken as they stand in the file, whatever that says of nodata.

    Raises:
        ValueError: It is of several bands that differ, not of whole numbers, or has other classes.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise ValueError("JPEG changes the classes of a mask: store it as PNG or GeoTIFF")
    with Image.open(path) as file:
        classes = np.asarray(file)
    if classes.ndim == 3 and (classes == classes[..., :1]).all():
        classes = classes[..., 0]
    if classes.ndim != 2 or classes.dtype.kind not in "bui":
        raise ValueError(f"{classes.shape} of {classes.dtype}, expected one band of whole numbers")
    if classes.max() > 3 or classes.min() < 0:
        raise ValueError(
            f"values {classes.min()} to {classes.max()}, expected 0 clear, 1 cloud, 2 shadow, 3 thin cloud"
        )
    return np.stack([(classes == 1) | (classes == 3), classes == 2]).astype(np.float32)


def _check_bands(config: DataConfig, count: int) -> None:
    if config.bands is not None and max(config.bands) >= count:
        raise ValueError(f"{count} bands, expected one numbered {max(config.bands)}, counted from 0")


def _resized(image: Float, width: int) -> Float:
    """Resize to a width, the height by the same scale, without an extra pixel of rounding."""
    height = -(-image.shape[1] * width // image.shape[2])
    return resize(image, width / image.shape[2])[:, :height, :width]


def _overview(image: Float) -> Float:
    if isinstance(image, WindowedImage):
        return image.overview()
    return area_reduced(image, max(1, min(image.shape[1:]) // OVERVIEW_SIDE))


def _reduced(pair: Pair, factor: int) -> Pair:
    if factor == 1:
        return pair
    return pair._replace(cloudy=_shrunk(pair.cloudy, factor), clear=_shrunk(pair.clear, factor))


def _shrunk(image: Float, factor: int) -> Float:
    if isinstance(image, WindowedImage):
        return cast(Float, WindowedImage(image.raster, image.bands, factor))
    return area_reduced(image, factor)
