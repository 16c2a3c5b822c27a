"""Crops for training: a pure function of (seed, step), so a resumed run sees the very same images.

Images are held in memory, scaled to [-1, 1] by the reader that the caller gives: the pipeline gives the one
that applies its own radiometry, so that a scene and a training crop look alike to the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decr_scene.models.errors import TrainingError
from decr_scene.models.training.clouds import CloudRecipe, simulate
from decr_scene.models.training.config import DataConfig
from decr_scene.models.training.tone import Tone, fit_tone

Float = NDArray[np.float32]
Reader = Callable[[Path], Float]
"""Path of an image to ``(C, H, W)`` float32 in [-1, 1]."""

CLEAR_SMOOTHING = 3.0
"""Standard deviation, px, that differences of a pair are smoothed with before clear ground is told."""

IMAGE_ENDINGS = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp"})


class Pair(NamedTuple):
    """A cloudy and a clear image of one place, ``(C, H, W)`` in [-1, 1]; of two dates when real."""

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
            cloudy = simulate(clear, spectrum, rng, CloudRecipe()).cloudy
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
    config: DataConfig, root: Path, read: Reader, held_out_only: bool = False, held_out: bool = True
) -> Source:
    """Read every image of a source; name all that is wrong with it at once.

    Args:
        config: The source.
        root: Folder that the source's folders are relative to.
        read: Reader of one image.
        held_out_only: Keep only the images that the reference does not train on.
        held_out: Keep those images at all.

    Raises:
        TrainingError: A folder is missing or empty, a pair has no twin, sizes or bands differ, or an image
            cannot be read; the message lists them.
    """
    paths = _pair_paths(config, root)
    paths = [p for p in paths if (held_out if config.held_out(p[1].stem) else not held_out_only)]
    if not paths:
        raise TrainingError(f"{root / config.clear}: no image is left after the hold-out, expected some")
    with ThreadPoolExecutor(2) as pool:
        read_all = list(pool.map(lambda p: _read_pair(config, p, read), paths))
    wrong = [text for text in read_all if isinstance(text, str)]
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise TrainingError(f"{len(wrong)} of {len(paths)} images cannot be used: {shown}")
    pairs = [pair for pair in read_all if isinstance(pair, Pair)]
    return Source(config, tuple(tuple(_reduced(p, round(1 / s)) for p in pairs) for s in config.scales))


def batches(
    sources: Sequence[Source], seed: int, size: int, count: int, spectrum: tuple[str, ...], start: int = 0
) -> Iterator[Batch]:
    """Yield the batches of steps ``start``, ``start + 1``, ...; the next one is made while one is used."""
    shares = np.array([source.config.share for source in sources], float)
    shares /= shares.sum()

    def make(step: int) -> Batch:
        crops = [_draw(sources, shares, seed, step, i, size, spectrum) for i in range(count)]
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


def _pair_paths(config: DataConfig, root: Path) -> list[tuple[Path | None, Path]]:
    clear = _images(root / config.clear)
    if config.cloudy is None:
        return [(None, path) for path in clear.values()]
    cloudy = _images(root / config.cloudy)
    alone = sorted(set(cloudy) ^ set(clear))
    if alone:
        raise TrainingError(f"{root / config.cloudy}: {len(alone)} images have no twin: {alone[:20]}")
    return [(cloudy[name], clear[name]) for name in sorted(clear)]


def _images(place: Path) -> dict[str, Path]:
    """Images of a folder, or of ``folder/pattern*``, by name."""
    folder, pattern = (place.parent, place.name) if "*" in place.name else (place, "*")
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder, expected one with images; check --data")
    found = {p.stem: p for p in sorted(folder.glob(pattern)) if p.suffix.lower() in IMAGE_ENDINGS}
    if not found:
        raise TrainingError(f"{folder}: no images, expected some of {sorted(IMAGE_ENDINGS)}")
    return found


def _read_pair(config: DataConfig, paths: tuple[Path | None, Path], read: Reader) -> Pair | str:
    """Return the pair, or what is wrong with it."""
    try:
        clear = _bands(config, read(paths[1]))
        cloudy = clear if paths[0] is None else _bands(config, read(paths[0]))
    except Exception as error:  # whatever a decoder may raise: it is collected, and named with its file
        return f"{paths[1].name}: {error}"
    if cloudy.shape != clear.shape:
        return f"{paths[1].name}: cloudy is {cloudy.shape}, clear is {clear.shape}"
    tone = None
    if config.tone and paths[0] is not None:
        factor = max(1, min(clear.shape[1:]) // 256)
        tone = fit_tone(area_reduced(cloudy, factor), area_reduced(clear, factor))
    return Pair(paths[1].stem, cloudy, clear, tone)


def _bands(config: DataConfig, image: Float) -> Float:
    return image if config.bands is None else np.ascontiguousarray(image[list(config.bands)])


def _reduced(pair: Pair, factor: int) -> Pair:
    if factor == 1:
        return pair
    return pair._replace(cloudy=area_reduced(pair.cloudy, factor), clear=area_reduced(pair.clear, factor))


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
