"""Crops for training: a pure function of (seed, step), so a resumed run sees the very same images.

Images are scaled to [-1, 1] by the reader that the caller gives: the pipeline gives the one that applies its
own radiometry, so that a scene and a training crop look alike to the network. They are held in memory, but
for large rasters, of which crops are read as they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decr_scene.models.errors import TrainingError
from decr_scene.models.training.clouds import simulate
from decr_scene.models.training.config import DataConfig
from decr_scene.models.training.resize import resize
from decr_scene.models.training.tone import Tone, fit_tone

Float = NDArray[np.float32]
Reader = Callable[[Path, Path], Float]
"""Path of an image, and of the one whose scaling it takes, to ``(C, H, W)`` float32 in [-1, 1].

Both images of a pair take the cloudy one's, which is all that there is when a scene is restored.
"""


class Raster(Protocol):
    """An image that is read by window."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, height and width."""
        ...

    def read(self, row: int, col: int, height: int, width: int) -> Float:
        """A window, ``(C, height, width)`` in [-1, 1]."""
        ...

    def overview(self, height: int, width: int) -> Float:
        """The whole image, averaged to ``(C, height, width)``."""
        ...


Opener = Callable[[Path, Path], Raster]
"""As `Reader`, but to what reads its windows."""

HELD_VALUES = 2**25
"""Images of more values than this (128 MiB) are read by window, unless the source says otherwise."""

OVERVIEW_SIDE = 256
"""Shorter side of the overview, px, that the tone of a large pair is fitted on."""

CLOUDY_FOLDERS = ("cloudy", "cloud")
CLEAR_FOLDERS = ("clear", "label")
NIR_FOLDER = "nir"
"""Names of folders as data sets are published: RICE, CUHK-CR, ours."""

CLEAR_SMOOTHING = 3.0
"""Standard deviation, px, that differences of a pair are smoothed with before clear ground is told."""

RASTER_ENDINGS = frozenset({".tif", ".tiff"})
"""Files that may be large, and that windows can be read of."""

IMAGE_ENDINGS = RASTER_ENDINGS | {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class WindowedImage:
    """An image on disk that slices like an array of ``(C, H, W)``; every slice is read anew.

    Args:
        raster: The file.
        bands: Bands to take, 0-based; ``None``: all.
        factor: Pixels averaged a side.
    """

    raster: Raster
    bands: tuple[int, ...] | None = None
    factor: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, height and width."""
        bands, height, width = self.raster.shape
        return (
            bands if self.bands is None else len(self.bands),
            height // self.factor,
            width // self.factor,
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Float:
        (top, bottom, _), (left, right, _) = (
            part.indices(side) for part, side in zip(place[1:], self.shape[1:], strict=True)
        )
        f = self.factor
        pixels = self.raster.read(top * f, left * f, (bottom - top) * f, (right - left) * f)
        return area_reduced(self._chosen(pixels), f)[place[0]]

    def overview(self) -> Float:
        """All of it, small."""
        height, width = self.raster.shape[1:]
        factor = max(1, min(height, width) // OVERVIEW_SIDE)
        return self._chosen(self.raster.overview(height // factor, width // factor))

    def _chosen(self, pixels: Float) -> Float:
        return pixels if self.bands is None else pixels[list(self.bands)]


class Pair(NamedTuple):
    """A cloudy and a clear image of one place, ``(C, H, W)`` in [-1, 1]; of two dates when real.

    Where they are large, they are each a `WindowedImage`, which slices like an array and can do no more.
    """

    name: str
    cloudy: Float
    clear: Float
    tone: Tone | None


class Batch(NamedTuple):
    """``(N, C, H, W)`` each: what the network sees and what it should give."""

    cloudy: Float
    clear: Float


@dataclass(frozen=True)
class Source:
    """All images of one `DataConfig`, at each of its scales."""

    config: DataConfig
    pairs: tuple[tuple[Pair, ...], ...]

    def crop(self, rng: np.random.Generator, size: int, spectrum: tuple[str, ...]) -> tuple[Float, Float]:
        """Draw one ``(C, size, size)`` crop, cloudy and clear in one tone, turned and jittered."""
        scale = self.pairs[rng.integers(len(self.pairs))]
        pair = scale[rng.integers(len(scale))]
        cloudy, clear = _window(rng, (pair.cloudy, pair.clear), size)
        gain = self._gain(rng, len(cloudy))
        if rng.random() < self.config.simulate:
            clear = _brighten(clear, gain)
            cloudy = simulate(clear, spectrum, rng, self.config.clouds).cloudy
        else:
            clear = pair.tone.apply(clear) if pair.tone is not None else clear
            if self.config.keep_clear is not None:
                clear = keep_clear(cloudy, clear, self.config.keep_clear)
            cloudy, clear = _brighten(cloudy, gain), _brighten(clear, gain)
        return _turn(rng, cloudy, clear)

    def _gain(self, rng: np.random.Generator, bands: int) -> Float:
        """Gain of each band, ``(C, 1, 1)``."""
        gain = np.full((bands, 1, 1), rng.uniform(*self.config.brightness), np.float32)
        if self.config.tint:
            gain *= np.exp(rng.uniform(-self.config.tint, self.config.tint, (bands, 1, 1)), dtype=np.float32)
        return gain


def keep_clear(cloudy: Float, matched: Float, limits: tuple[float, float]) -> Float:
    """The truth of a real pair: the cloudy image itself where both dates show the same ground.

    What still differs there, after the tone, is another season or sun angle, which nobody can tell from the
    cloudy image; learning it would only teach a network to repaint clear ground.

    Args:
        cloudy: ``(C, H, W)`` in [-1, 1].
        matched: The clear image in the tone of the cloudy one, same shape.
        limits: Smoothed differences, DN of 255, up to which it is ``cloudy`` and from which on ``matched``.
    """
    difference = ndimage.gaussian_filter(cloudy - matched, (0, CLEAR_SMOOTHING, CLEAR_SMOOTHING))
    low, high = (limit / 127.5 for limit in limits)
    changed = np.clip((np.abs(difference).max(axis=0) - low) / (high - low), 0, 1)
    truth: Float = cloudy + (matched - cloudy) * changed
    return truth


def load_source(
    config: DataConfig,
    root: Path,
    read: Reader,
    held_out_only: bool = False,
    held_out: bool = True,
    *,
    bands: int | None = None,
    crop: int | None = None,
    opener: Opener | None = None,
) -> Source:
    """Read every image of a source; name all that is wrong with it at once.

    Args:
        config: The source.
        root: Folder that the source's folders are relative to.
        read: Reader of one image.
        held_out_only: Keep only the images that the reference does not train on.
        held_out: Keep those images at all.
        bands: Bands that every image must have; ``None``: any.
        crop: Side of the crops that every image must have room for, px.
        opener: Opens large rasters for reading by window; ``None``: all images are held in memory.

    Raises:
        TrainingError: A folder is missing or empty, an image has no twin, sizes or bands differ, an image is
            too small or cannot be read; the message lists them.
    """
    paths, wrong = _pair_paths(config, root, bands)
    count = len(paths) + len(wrong)
    paths = [p for p in paths if (held_out if config.held_out(p.name) else not held_out_only)]
    if not paths and not wrong:
        raise TrainingError(f"{_place(config, root)}: no image is left after the hold-out, expected some")

    def load(path: PairPaths) -> Pair | str:
        return _read_pair(config, path, read, opener, bands, crop)

    with ThreadPoolExecutor(2) as pool:
        read_all = list(pool.map(load, paths))
    wrong += [text for text in read_all if isinstance(text, str)]
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise TrainingError(
            f"{len(wrong)} of {count} images of {_place(config, root)} cannot be used: {shown}; "
            "mend them or take them out"
        )
    pairs = [pair for pair in read_all if isinstance(pair, Pair)]
    return Source(config, tuple(tuple(_reduced(p, round(1 / s)) for p in pairs) for s in config.scales))


def source_files(config: DataConfig, root: Path, bands: int | None = None) -> list[Path]:
    """Every file that a source reads, in order.

    Raises:
        TrainingError: A folder is missing or empty.
    """
    paths, _ = _pair_paths(config, root, bands)
    return [file for path in paths for file in path.files()]


def held_in_memory(pair: Pair, most: int = 512) -> Pair:
    """The pair as arrays; of one that is read by window its middle, at most ``most`` px a side."""
    if isinstance(pair.clear, np.ndarray) and isinstance(pair.cloudy, np.ndarray):
        return pair
    starts = (max(0, side - most) // 2 for side in pair.clear.shape[1:])
    rows, cols = (slice(start, start + most) for start in starts)
    return pair._replace(cloudy=pair.cloudy[:, rows, cols], clear=pair.clear[:, rows, cols])


def batches(
    sources: Sequence[Source],
    seed: int,
    size: int,
    count: int,
    spectrum: tuple[str, ...],
    start: int = 0,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of steps ``start``, ``start + 1``, ...; the next one is made while one is used.

    A batch is crops ``first`` to ``first + count - 1`` of its step: what another process begins with.
    """
    shares = np.array([source.config.share for source in sources], float)
    shares /= shares.sum()

    def make(step: int) -> Batch:
        crops = [_draw(sources, shares, seed, step, first + i, size, spectrum) for i in range(count)]
        return Batch(*(np.stack(images) for images in zip(*crops, strict=True)))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, start)
        while True:
            batch, start = ahead.result(), start + 1
            ahead = pool.submit(make, start)
            yield batch


def area_reduced(image: Float, factor: int) -> Float:
    """Average ``factor`` x ``factor`` pixels of ``(C, H, W)``; what does not fill a block is cut."""
    if factor == 1:
        return image
    bands, height, width = image.shape
    height, width = height // factor * factor, width // factor * factor
    blocks = image[:, :height, :width].reshape(bands, height // factor, factor, width // factor, factor)
    reduced: Float = blocks.mean(axis=(2, 4), dtype=np.float32)
    return reduced


def _draw(
    sources: Sequence[Source],
    shares: NDArray[np.float64],
    seed: int,
    step: int,
    index: int,
    size: int,
    spectrum: tuple[str, ...],
) -> tuple[Float, Float]:
    rng = np.random.default_rng([seed, step, index])
    return sources[rng.choice(len(sources), p=shares)].crop(rng, size, spectrum)


class PairPaths(NamedTuple):
    """The files of one pair."""

    name: str
    clear: Path
    cloudy: Path | None
    clear_nir: Path | None = None
    cloudy_nir: Path | None = None

    def files(self) -> list[Path]:
        """Those that there are."""
        return [path for path in self[1:] if isinstance(path, Path)]


class Scaling(NamedTuple):
    """The files whose scaling both images of a pair take."""

    image: Path
    nir: Path | None


def _pair_paths(config: DataConfig, root: Path, bands: int | None) -> tuple[list[PairPaths], list[str]]:
    """The pairs of a source, and what lacks a twin."""
    clear_place, cloudy_place = _layout(config, root)
    clear = _images(clear_place)
    if cloudy_place is None:
        return [PairPaths(path.stem, path, None) for path in clear.values()], []
    cloudy = _images(cloudy_place)
    nirs = _near_infrared(config, (clear_place, cloudy_place), bands)
    folders = {clear_place: clear, cloudy_place: cloudy, **nirs}
    names = sorted(set().union(*folders.values()))
    wrong = [
        f"{name} has no twin in {' nor '.join(str(folder) for folder in lacking)}"
        for name in names
        if (lacking := [folder for folder, images in folders.items() if name not in images])
    ]
    whole = [name for name in names if all(name in images for images in folders.values())]
    return [PairPaths(n, clear[n], cloudy[n], *(images[n] for images in nirs.values())) for n in whole], wrong


def _layout(config: DataConfig, root: Path) -> tuple[Path, Path | None]:
    """Folder of the clear and of the cloudy images."""
    if config.folder is None:
        assert config.clear is not None, "DataConfig has checked this"
        return root / config.clear, None if config.cloudy is None else root / config.cloudy
    place = root / config.folder
    there = {p.name for p in place.iterdir() if p.is_dir()} if place.is_dir() else set()
    clear, cloudy = ([n for n in names if n in there] for names in (CLEAR_FOLDERS, CLOUDY_FOLDERS))
    if not clear or not cloudy:
        expected = f"{' or '.join(CLOUDY_FOLDERS)}, and {' or '.join(CLEAR_FOLDERS)}"
        raise TrainingError(
            f"{place}: found {', '.join(sorted(there)) or 'no folders'}, expected {expected}: "
            "name the folder that holds them"
        )
    return place / clear[0], place / cloudy[0]


def _near_infrared(
    config: DataConfig, places: tuple[Path, Path], bands: int | None
) -> dict[Path, dict[str, Path]]:
    """Images of a fourth band beside those of three, as CUHK-CR has them, if a fourth is wanted."""
    wanted = bands if config.bands is None else max(config.bands) + 1
    folders = [place.parent / NIR_FOLDER / place.name for place in places]
    if wanted != 4 or not all(folder.is_dir() for folder in folders):
        return {}
    return {folder: _images(folder) for folder in folders}


def _place(config: DataConfig, root: Path) -> Path:
    return root / (config.folder or config.clear or "")


def _images(place: Path) -> dict[str, Path]:
    """Images of a folder, or of ``folder/pattern*``, by name."""
    folder, pattern = (place.parent, place.name) if "*" in place.name else (place, "*")
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder, expected one with images; check --data")
    found = {p.stem: p for p in sorted(folder.glob(pattern)) if p.suffix.lower() in IMAGE_ENDINGS}
    if not found:
        raise TrainingError(f"{folder}: no images, expected some of {sorted(IMAGE_ENDINGS)}")
    return found


def _read_pair(
    config: DataConfig,
    paths: PairPaths,
    read: Reader,
    opener: Opener | None,
    bands: int | None,
    crop: int | None,
) -> Pair | str:
    """Return the pair, or what is wrong with it."""
    try:
        scaling = Scaling(paths.cloudy or paths.clear, paths.cloudy_nir)
        clear = _read(config, paths.clear, paths.clear_nir, scaling, read, opener)
        cloudy = clear
        if paths.cloudy is not None:
            cloudy = _read(config, paths.cloudy, paths.cloudy_nir, scaling, read, opener)
    except Exception as error:  # whatever a decoder may raise: it is collected, and named with its file
        return f"{paths.clear.name}: {error}"
    if cloudy.shape != clear.shape:
        return f"{paths.clear.name}: cloudy is {cloudy.shape}, clear is {clear.shape}"
    if bands is not None and len(clear) != bands:
        return f"{paths.clear.name}: {len(clear)} bands, the run has {bands}"
    side = min(clear.shape[1:]) // max(round(1 / scale) for scale in config.scales)
    if crop is not None and side < crop:
        return f"{paths.clear.name}: {side} px at the smallest of its scales, a crop has {crop}"
    tone = None
    if config.tone and paths.cloudy is not None:
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
    """One image as an array, or as something that slices like one."""
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
    return image if config.resize is None else _resized(image, config.resize)


def _check_bands(config: DataConfig, found: int) -> None:
    if config.bands is not None and max(config.bands) >= found:
        raise ValueError(f"{found} bands, expected one numbered {max(config.bands)}, counted from 0")


def _resized(image: Float, width: int) -> Float:
    """To a width, the height by the same scale, without the pixel too many that rounding may give."""
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


def _window(rng: np.random.Generator, images: Sequence[Float], size: int) -> list[Float]:
    height, width = images[0].shape[1:]
    if height < size or width < size:
        raise TrainingError(f"an image of {height} x {width} px is smaller than the crop of {size} px")
    row, col = rng.integers(height - size + 1), rng.integers(width - size + 1)
    return [image[:, row : row + size, col : col + size] for image in images]


def _brighten(image: Float, gain: Float) -> Float:
    """Multiply on the [0, 1] scale and clip, as a sensor of that range would."""
    return np.clip((image + 1) * gain - 1, -1, 1)


def _turn(rng: np.random.Generator, *images: Float) -> tuple[Float, Float]:
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    turned = (np.rot90(image, quarter, axes=(1, 2)) for image in images)
    cloudy, clear = (np.ascontiguousarray(t[..., ::-1] if flip else t) for t in turned)
    return cloudy, clear
