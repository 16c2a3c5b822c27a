"""Crops for training: a pure function of (seed, step), so a resumed run gets the same images.

Crops of simulated cloud are drawn over the clear image; those of real pairs are brought into one tone.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decr_scene.models.arrays import Float
from decr_scene.models.clouds.roofs import roofed
from decr_scene.models.clouds.simulate import simulate
from decr_scene.models.clouds.types import VISIBLE
from decr_scene.models.clouds.veils import veiled
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.contexts import draw_context
from decr_scene.models.data.crops import LightChange, compressed, cut, enlarged, turn
from decr_scene.models.data.tone import Tone
from decr_scene.models.errors import TrainingError

NEUTRAL = 0.08
"""Greatest power of e that the mean of a visible band differs from the others' in a balanced picture."""

THIN_VEIL = 0.2
"""Mean opacity up to which a veil is thin."""

OTHER_LIGHT = 0.08
"""Greatest power of e by which the mean of an image in a light of its own may lie beyond those two."""

CLEAR_SMOOTHING = 3.0
"""Standard deviation, px, of the smoothing of a pair's differences, before clear ground is recognised."""


class Pair(NamedTuple):
    """A cloudy and a clear image of one place, ``(C, H, W)`` in [-1, 1]; of two dates when real.

    Where they are large, they are each a `WindowedImage`, which slices like an array and can do no more.
    """

    name: str
    cloudy: Float
    clear: Float
    tone: Tone | None


class Crop(NamedTuple):
    """Input and truth of the network, ``(C, H, W)`` each, and the context, ``(C + 3, h, w)``."""

    cloudy: Float
    clear: Float
    context: Float | None = None


class Batch(NamedTuple):
    """As `Crop`, ``N`` of them."""

    cloudy: Float
    clear: Float
    context: Float | None = None


class Covered(NamedTuple):
    """An image under cloud and how deep, ``(H, W)`` in [0, 1] each: opacity, and light lost to shadow."""

    image: Float
    opacity: Float
    shadow: Float


@dataclass(frozen=True)
class PairSource:
    """All images of one `DataConfig`, at each of its scales."""

    config: DataConfig
    pairs: tuple[tuple[Pair, ...], ...]

    def crop(self, rng: np.random.Generator, size: int, spectrum: tuple[str, ...]) -> Crop:
        """Draw one ``(C, size, size)`` crop, cloudy and clear in one tone, turned and jittered.

        Random numbers of the context come last: crops are the same with and without it.
        """
        scale = self.pairs[rng.integers(len(self.pairs))]
        pair = scale[rng.integers(len(scale))]
        cloudy, clear = self._cut(rng, pair, size)
        if self.config.roofs and rng.random() < self.config.roofs:
            clear = roofed(clear, rng)
        light = self._draw_light(rng, clear, spectrum)
        if rng.random() < self.config.simulate:
            clear = light.apply(clear)
            covered = self._with_clouds(rng, clear, spectrum)
        else:
            clear = pair.tone.apply(clear) if pair.tone is not None else clear
            if self.config.keep_clear is not None:
                clear = keep_clear(cloudy, clear, self.config.keep_clear)
            cloudy, clear = light.apply(cloudy), light.apply(clear)
            covered = Covered(cloudy, *cover_of_pair(cloudy, clear))
        if self.config.stretch:
            shown = self._draw_stretch(rng, spectrum)
            covered, clear = covered._replace(image=shown.apply(covered.image)), shown.apply(clear)
        if self.config.jpeg is not None and rng.random() < 0.5:
            quality = round(rng.uniform(*self.config.jpeg))
            covered = covered._replace(image=compressed(covered.image, quality))
        image, truth = turn(
            rng, np.concatenate([covered.image, covered.opacity[None], covered.shadow[None]]), clear
        )
        cloudy, (opacity, shadow) = np.ascontiguousarray(image[:-2]), image[-2:]
        return Crop(cloudy, truth, draw_context(cloudy, truth, opacity, shadow, rng))

    def _with_clouds(self, rng: np.random.Generator, clear: Float, spectrum: tuple[str, ...]) -> Covered:
        """Draw simulated cloud, a veil, or both over an image ``(C, H, W)``."""
        config = self.config
        if not config.veil or rng.random() >= config.veil:
            drawn = simulate(clear, spectrum, rng, config.clouds)
            return Covered(drawn.cloudy, drawn.opacity, drawn.shadow)
        below = veiled(clear, spectrum, rng, config.veils)
        if config.shown and rng.random() < config.shown and below.opacity.mean() > THIN_VEIL:
            below = replace(below, image=in_other_light(rng, below.image, clear, config.shown_gain))
        veil_opacity = below.opacity * np.float32(rng.random() < config.veil_seen)
        if rng.random() >= config.veil_clouds:
            return Covered(below.image, veil_opacity, np.zeros_like(veil_opacity))
        drawn = simulate(below.image, spectrum, rng, config.clouds)
        return Covered(drawn.cloudy, np.maximum(drawn.opacity, veil_opacity), drawn.shadow)

    def _cut(self, rng: np.random.Generator, pair: Pair, size: int) -> list[Float]:
        """Cut crops of ``size`` px, maybe enlarged from a smaller one, by any factor up to the source's."""
        if self.config.enlarge == 1:
            return cut(rng, (pair.cloudy, pair.clear), size)
        part = round(size / float(np.exp(rng.uniform(0, np.log(self.config.enlarge)))))
        return [enlarged(image, size) for image in cut(rng, (pair.cloudy, pair.clear), part)]

    def _draw_light(self, rng: np.random.Generator, image: Float, spectrum: tuple[str, ...]) -> LightChange:
        """Draw a gain for each band and a tone curve.

        Half of the images get a haze, if any do.
        """
        config = self.config
        bands = len(image)
        gain = np.full((bands, 1, 1), rng.uniform(*config.brightness), np.float32)
        if config.mean is not None:
            light = max((float(image.mean()) + 1) / 2, 0.02)
            gain *= np.float32(np.clip(rng.uniform(*config.mean) / light, 0.1, 4.0))
        if config.tint:
            gain *= np.exp(rng.uniform(-config.tint, config.tint, (bands, 1, 1)), dtype=np.float32)
        power = float(np.exp(rng.uniform(-config.gamma, config.gamma))) if config.gamma else 1.0
        haze = np.zeros((bands, 1, 1), np.float32)
        if config.haze:
            haze += max(0.0, rng.uniform(-config.haze, config.haze))
            haze *= rng.uniform(0.5, 1, (bands, 1, 1)).astype(np.float32)
        if config.spread is None:
            return LightChange(gain, power, haze)
        gain, offset = self._balance(rng, image, spectrum, gain)
        return LightChange(gain, power, haze, offset)

    def _draw_stretch(self, rng: np.random.Generator, spectrum: tuple[str, ...]) -> LightChange:
        """Draw a gain and an offset, ``(C, 1, 1)``, for the bands outside the visible ones."""
        most = self.config.stretch
        shape = (len(spectrum), 1, 1)
        gain, offset = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        for place, band in enumerate(spectrum):
            if band not in VISIBLE:
                gain[place] = np.exp(rng.uniform(-most, most))
                offset[place] = rng.uniform(-most, most) / 3
        return LightChange(gain, 1.0, np.zeros(shape, np.float32), offset)

    def _balance(
        self, rng: np.random.Generator, image: Float, spectrum: tuple[str, ...], gain: Float
    ) -> tuple[Float, Float]:
        """Draw gain and offset, ``(C, 1, 1)``, for the light's spread and one mean of the visible bands."""
        light = (image + 1) * np.float32(0.5)
        means = light.mean(axis=(1, 2), keepdims=True)
        assert self.config.spread is not None
        factor = rng.uniform(*self.config.spread) / max(float((light - means).std()), 0.01)
        shared = np.full_like(gain, np.clip(factor, 0.3, 1.8))
        aim = float(means.mean()) * gain
        off = np.exp(rng.uniform(-NEUTRAL, NEUTRAL, means.shape), dtype=np.float32)
        other = np.array([band not in VISIBLE for band in spectrum]).reshape(-1, 1, 1)
        ratio = np.clip(means / max(float(means.mean()), 0.02), 0.6, 1.6) if other.any() else off
        aim = aim * np.where(other, ratio, off)
        return shared, aim - shared * means


def in_other_light(rng: np.random.Generator, veiled: Float, clear: Float, most_gain: float = 0.0) -> Float:
    """Show a veiled image ``(C, H, W)`` as bright as anything between itself and the truth.

    With ``most_gain``, a power of e, it is stretched about its mean by up to that besides: of a hazy date the
    black is taken off before it is delivered. Its veil then says less of how dark the ground is.
    """
    own, truth = ((float(image.mean()) + 1) / 2 for image in (veiled, clear))
    aim = (own + rng.uniform(0, 1) * (truth - own)) * np.exp(rng.uniform(-OTHER_LIGHT, OTHER_LIGHT))
    gain, black = np.float32(aim / max(own, 0.02)), np.float32(0)
    if most_gain:
        gain *= np.float32(np.exp(rng.uniform(0, most_gain)))
        black = np.float32(2 * (gain * own - aim))
    shown: Float = np.clip((veiled + 1) * gain - black - 1, -1, 1)
    return shown


def keep_clear(cloudy: Float, matched: Float, limits: tuple[float, float]) -> Float:
    """Make the truth of a real pair: the cloudy image itself where both dates show the same ground.

    Differences left there, after the tone, are of season or sun angle, which the cloudy image does not show;
    learning them would only teach a network to repaint clear ground.

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


def cover_of_pair(cloudy: Float, clear: Float) -> tuple[Float, Float]:
    """Measure how a real pair differs: opacity of cloud and loss of light, ``(H, W)`` in [0, 1] each.

    Cloud of opacity ``o`` brings the ground's light ``L`` to ``L + o (1 - L)``, shadow of depth ``s`` to
    ``L (1 - s)``; of lights smoothed and averaged over the bands.
    """
    sigma = (0, CLEAR_SMOOTHING, CLEAR_SMOOTHING)
    cloudy_light, clear_light = (
        (ndimage.gaussian_filter(i, sigma).mean(axis=0) + 1) / 2 for i in (cloudy, clear)
    )
    rise = cloudy_light - clear_light
    opacity = np.clip(rise / np.maximum(1 - clear_light, 0.1), 0, 1).astype(np.float32)
    shadow = np.clip(-rise / np.maximum(clear_light, 0.1), 0, 1).astype(np.float32)
    return opacity, shadow


def held_in_memory(pair: Pair, most: int = 512) -> Pair:
    """Read a pair as arrays.

    Of one that is read by window it is the middle, at most ``most`` px a side.
    """
    if isinstance(pair.clear, np.ndarray) and isinstance(pair.cloudy, np.ndarray):
        return pair
    rows, cols = middle_of(pair.clear.shape[1:], most)
    return pair._replace(cloudy=pair.cloudy[:, rows, cols], clear=pair.clear[:, rows, cols])


def middle_of(shape: Sequence[int], most: int) -> tuple[slice, ...]:
    """Return the rows and columns of the middle of an image ``(H, W)``, at most ``most`` px a side."""
    starts = (max(0, side - most) // 2 for side in shape)
    return tuple(slice(start, start + most) for start in starts)


def batches(
    sources: Sequence[PairSource],
    seed: int,
    size: int,
    count: int,
    spectrum: tuple[str, ...],
    start: int = 0,
    first: int = 0,
    loaders: int = 0,
) -> Generator[Batch, None, None]:
    """Yield the batches of steps ``start``, ``start + 1`` and so on.

    The next ones are made while one is used. A batch is crops ``first`` to ``first + count - 1`` of its step:
    what another process begins with. With ``loaders``, as many processes make them; the batches are the same.
    """
    maker = _Maker(tuple(sources), shares_of(sources), seed, size, count, spectrum, first)
    pool: Executor
    if loaders:
        spawning = multiprocessing.get_context("spawn")  # a fork of a process that holds a GPU is of no use
        pool = ProcessPoolExecutor(loaders, spawning, initializer=_hold, initargs=(maker,))
        make: Callable[[int], Batch] = _make_held
    else:
        pool, make = ThreadPoolExecutor(1), maker
    try:
        ahead = deque(pool.submit(make, start + i) for i in range(max(1, 2 * loaders)))
        while True:
            try:
                batch = ahead.popleft().result()
                ahead.append(pool.submit(make, start + max(1, 2 * loaders)))
            except BrokenProcessPool as error:
                raise TrainingError(
                    "a process that draws crops was ended, maybe for want of memory: the same call goes on "
                    "from the last checkpoint, with fewer --loaders if need be"
                ) from error
            start += 1
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Maker:
    """Makes the batch of any step."""

    sources: tuple[PairSource, ...]
    shares: NDArray[np.float64]
    seed: int
    size: int
    count: int
    spectrum: tuple[str, ...]
    first: int

    def __call__(self, step: int) -> Batch:
        numbers = range(self.first, self.first + self.count)
        crops = [
            draw_crop(self.sources, self.shares, (self.seed, step, number), self.size, self.spectrum)
            for number in numbers
        ]
        cloudy, clear, contexts = zip(*crops, strict=True)
        context = None if contexts[0] is None else np.stack(contexts)
        return Batch(np.stack(cloudy), np.stack(clear), context)


_held: list[_Maker] = []
"""Of a process that makes batches."""


def _hold(maker: _Maker) -> None:
    _held[:] = [maker]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that trains has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_held(step: int) -> Batch:
    return _held[0](step)


def shares_of(sources: Sequence[PairSource]) -> NDArray[np.float64]:
    """Return the probability by which each source is drawn, ``(N,)``."""
    shares = np.array([source.config.share for source in sources], float)
    return shares / shares.sum()


def draw_crop(
    sources: Sequence[PairSource],
    shares: NDArray[np.float64],
    key: tuple[int, ...],
    size: int,
    spectrum: tuple[str, ...],
) -> Crop:
    """Draw the crop, ``(C, size, size)``, that ``key`` stands for.

    ``shares`` are those of `shares_of`.
    """
    rng = np.random.default_rng(key)
    return sources[rng.choice(len(sources), p=shares)].crop(rng, size, spectrum)
