"""A real acquisition of another date in the place of the first guess: ground where a network can but guess.

It is laid over the scene by coordinates and brought into the scene's tone. It is taken where the network's
own first guess says that there is cloud or shadow: clear ground is the scene's own date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from rasterio.enums import Resampling

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.pipeline.errors import OtherDateError
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.raster.scaling import has_border
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import ELSEWHERE, lies_elsewhere, misfit, read_on_grid
from decr_scene.pipeline.regions.clear_ground import cloudy_share
from decr_scene.pipeline.tiling.grid import Span

PATCH = 32
"""Side, px, of the patches by which two dates are first compared."""

ALIKE = 0.7
"""Correlation from which on a patch shows the same ground on both dates, and no cloud that hides it."""

CLOSE = 1.5
"""Greatest residual of a pixel that fits the tone, times the median residual in those patches."""

ROUNDS = 10
"""Times that the tone is fitted to the pixels that fit."""

LEAST_SAMPLE = 100
"""Pixels that both dates must show, of those that the tone is fitted to."""

HARDLY, NOT = 0.5, 0.1
"""Share of a band's variance on clear ground below which a date is warned of, or refused."""

GAP = 9
"""Width, px, below which a gap between pixels that change is taken for changed."""

RIM = 3.0
"""Standard deviation, px, by which the places that are taken from the other date are smoothed."""


class Fit(NamedTuple):
    """How well another date goes with the scene.

    Args:
        correlation: Of both, one a band, over the pixels that the tone was fitted to.
        gain: What was fitted, one a band, over what would keep the contrast of the patches that are alike.
        share: Of the pixels that both show, those that the tone was fitted to.
    """

    correlation: tuple[float, ...]
    gain: tuple[float, ...]
    share: float

    @property
    def worst(self) -> int:
        """Return the band with the least correlation with the scene, 0-based."""
        return int(np.argmin([min(r, gain) for r, gain in zip(self.correlation, self.gain, strict=True)]))

    @property
    def explained(self) -> float:
        """Share of that band's variance on clear ground that the other date explains, 0 if it is inverted."""
        weakest = min(self.correlation[self.worst], self.gain[self.worst])
        return 0.0 if weakest <= 0 else self.correlation[self.worst] ** 2

    def describe(self, names: Sequence[str]) -> str:
        """Describe the fit in words, with the names of the bands."""
        r, gain, share = self.correlation[self.worst], self.gain[self.worst], 100 * self.share
        return (
            f"where both are clear, its {names[self.worst]} explains {100 * self.explained:.0f} % of that of "
            f"the scene (correlation {r:.2f}, contrast times {gain:.2f}, by {share:.0f} % of the pixels)"
        )


@dataclass(frozen=True)
class OtherDate:
    """A raster of the same ground, on the grid of a scene and on its [-1, 1] scale; use `OtherDate.fit`.

    Args:
        path: The raster; every worker opens it for itself, once a thread.
        scene: The scene.
        indexes: Its bands that the model sees, 0-based, in the model's order.
        gain: ``x = gain * DN + offset``, one a band.
        offset: As ``gain``.
        fitness: How well it goes with the scene; ``None``: nothing was fitted.
    """

    path: str
    scene: RasterioScene
    indexes: tuple[int, ...]
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    fitness: Fit | None = None

    @classmethod
    def fit(
        cls,
        path: str,
        scene: RasterioScene,
        bands: Sequence[str],
        indexes: tuple[int, ...],
        windows: Sequence[tuple[Span, Float, Bool]],
    ) -> OtherDate:
        """Lay a raster over a scene, and fit its tone to the scene's.

        Args:
            path: Any raster that GDAL reads.
            scene: The scene.
            bands: Names of all bands of the scene.
            indexes: Bands of the scene that the model sees, 0-based, in its order.
            windows: Windows of the scene, each with its ``(C, h, w)`` on the [-1, 1] scale and the ``(h, w)``
                of it that is valid.

        Raises:
            SceneReadError: It cannot be read.
            OtherDateError: It lacks a band, shows nothing of the scene, explains too little of its clear
                ground, or cannot be laid over it.
        """
        opened = RasterioScene.open(path)
        ones, zeros = (1.0,) * len(indexes), (0.0,) * len(indexes)
        raw = cls(opened.path, scene, _bands_of(opened, bands, indexes), ones, zeros)
        if has_border(opened, raw.indexes):
            raise OtherDateError(
                f"other date {path} is 0 in all bands in a corner, expected ground or declared nodata: if "
                "nothing was imaged there, declare it with gdal_edit -a_nodata 0; if it is water, do so, too"
            )
        patches: list[_Patch] = []
        ours, theirs = [], []
        for span, image, valid in windows:
            values, has_values = raw.read(span)
            both = valid & has_values
            ours.append(image[:, both])
            theirs.append(values[:, both])
            patches.extend(_patches(image, values, both))
        alike = [patch for patch in patches if patch.likeness >= ALIKE]
        fitted = raw._in_the_tone_of(np.concatenate(ours, axis=1), np.concatenate(theirs, axis=1), alike)
        assert fitted.fitness is not None, "it was just fitted"
        if fitted.fitness.explained < NOT:
            found = fitted.fitness.describe([label(bands, index) for index in indexes])
            raise OtherDateError(
                f"other date {path} does not go with the scene: {found}, expected {100 * NOT:.0f} % at "
                "least: take a date of a nearer season or year, or none"
            )
        return fitted

    def warning(self, bands: Sequence[str]) -> str | None:
        """Say that it hardly goes with the scene of these band names, or return ``None`` if it does."""
        if self.fitness is None or self.fitness.explained >= HARDLY:
            return None
        return (
            f"other date {self.path} hardly goes with the scene: {self.fitness.describe(bands)}: its ground "
            "will be paler than the scene's; compare the output with one that was made without it"
        )

    def read(self, span: Span) -> tuple[Float, Bool]:
        """Read its values in a window of the scene, ``(C, h, w)``, and where it has any, ``(h, w)``.

        Raises:
            SceneReadError: It cannot be read there.
            OtherDateError: There is no way to lay it over the scene.
        """
        numbers = [index + 1 for index in self.indexes]
        with RasterioScene.open(self.path).dataset(span.window) as source:
            trouble = ELSEWHERE if lies_elsewhere(source, self.scene) else misfit(source, self.scene)
            if trouble is not None:
                raise OtherDateError(f"other date {self.path} {trouble}")
            pixels, has_values = read_on_grid(source, self.scene, span, numbers, Resampling.cubic)
        values = pixels.astype(np.float32)
        has_values &= np.isfinite(values).all(axis=0)
        values[:, ~has_values] = 0
        values *= np.asarray(self.gain, np.float32)[:, None, None]
        values += np.asarray(self.offset, np.float32)[:, None, None]
        return values, has_values

    def instead_of(self, guess: Float, image: Float, span: Span) -> Float:
        """Put this date in the place of a tile's first guess, where that guess changes the image.

        Args:
            guess: The network's, ``(C, h, w)``.
            image: The cloudy image, same shape.
            span: Their window of the scene.

        Returns:
            ``(C + 1, h, w)``: the guess, and how much of it is this date's, in [0, 1].
        """
        from scipy.ndimage import gaussian_filter, grey_closing

        values, has_values = self.read(span)
        # from a cloud to its shadow the change passes through nothing: such gaps are under them, too
        share = gaussian_filter(grey_closing(cloudy_share(guess - image), (GAP, GAP)), RIM)
        # from nothing where this date ends, or has a hole, to all of it some pixels further in
        share *= np.clip(2 * gaussian_filter(has_values.astype(np.float32), RIM) - 1, 0, 1) * has_values
        mixed = guess + share * (np.clip(values, -1, 1) - guess)
        return np.concatenate([mixed, share[None]]).astype(np.float32)

    def _in_the_tone_of(self, ours: Float, theirs: Float, alike: list[_Patch]) -> OtherDate:
        """Fit the tone to pixels ``(C, N)`` that both show.

        The patches that are alike give a first line and say how well clear ground fits one; then the pixels
        that fit so well decide, and that again, however few they are: the rest is cloud, shadow, or change.
        """
        if ours.shape[1] < LEAST_SAMPLE:
            raise OtherDateError(
                f"other date {self.path} shows {ours.shape[1]} of the scene's pixels that were looked at, "
                f"expected {LEAST_SAMPLE} at least: take one that covers the scene"
            )
        if not alike:
            raise OtherDateError(
                f"other date {self.path} is nowhere like the scene, expected the same ground where both are "
                "clear: check that it lies in the right place and that its bands are the scene's"
            )
        line = _first_line(alike)
        residuals = np.concatenate([_residual(patch.ours, patch.theirs, line) for patch in alike])
        limit, first = CLOSE * float(np.median(residuals)), line
        correlation, share = _joined_correlation(alike), 0.0
        for _ in range(ROUNDS):
            chosen = _residual(ours, theirs, line) <= limit
            if np.count_nonzero(chosen) < LEAST_SAMPLE:
                break
            line, correlation = _regression(ours[:, chosen], theirs[:, chosen])
            share = float(chosen.mean())
        gain, offset = line.T.tolist()
        fitness = Fit(tuple(correlation.tolist()), tuple((line[:, 0] / first[:, 0]).tolist()), share)
        return replace(self, gain=tuple(gain), offset=tuple(offset), fitness=fitness)


class _Patch(NamedTuple):
    """A small part of the scene and of the other date, ``(C, N)`` each, and how they correlate."""

    ours: Float
    theirs: Float
    likeness: float


def _bands_of(other: RasterioScene, bands: Sequence[str], indexes: Sequence[int]) -> tuple[int, ...]:
    """Find the bands of the other raster that the model sees: by name, else by place."""
    names = [bands[index] for index in indexes]
    if all(name and other.bands.count(name) == 1 for name in names):
        return tuple(other.bands.index(name) for name in names)
    if other.count == len(bands):
        return tuple(indexes)
    present = ", ".join(label(other.bands, i) for i in range(len(other.bands)))
    raise OtherDateError(
        f"other date {other.path} has the bands {present}, expected {', '.join(names)} by name, "
        f"or as many bands as the scene, {len(bands)}: describe them, or choose some with gdal_translate -b"
    )


def _patches(ours: Float, theirs: Float, both: Bool) -> Iterator[_Patch]:
    """Compare two windows ``(C, h, w)`` patch by patch, where both have all pixels and some contrast."""
    height, width = both.shape
    side = min(PATCH, height, width)
    for row in range(0, height - side + 1, side):
        for col in range(0, width - side + 1, side):
            here = slice(row, row + side), slice(col, col + side)
            if both[here].all():
                x, z = (image[(slice(None), *here)].reshape(len(image), -1) for image in (ours, theirs))
                yield _Patch(x, z, _likeness(x.astype(np.float64), z.astype(np.float64)))


def _first_line(alike: list[_Patch]) -> Double:
    """Return gain and offset of each band, ``(C, 2)``: the medians of the patches'."""
    gain = np.median([patch.ours.std(axis=1) / patch.theirs.std(axis=1) for patch in alike], axis=0)
    offset = np.median(
        [patch.ours.mean(axis=1) - gain * patch.theirs.mean(axis=1) for patch in alike], axis=0
    )
    return np.stack([gain, offset], axis=1)


def _regression(ours: Float, theirs: Float) -> tuple[Double, Double]:
    """Fit gain and offset, ``(C, 2)``, to each band of ``(C, N)``, and return correlations, ``(C,)``, too.

    In double precision: digital numbers lie far from 0, and there are millions of them. A band without
    contrast has gain and correlation 0.
    """
    x, z = ours.astype(np.float64), theirs.astype(np.float64)
    centre, other = x.mean(axis=1), z.mean(axis=1)
    x -= centre[:, None]
    z -= other[:, None]
    energy, own, both = np.square(z).sum(axis=1), np.square(x).sum(axis=1), (x * z).sum(axis=1)
    gain = both / np.where(energy > 0, energy, 1)
    correlation = both / np.sqrt(np.where(energy * own > 0, energy * own, 1))
    return np.stack([gain, centre - gain * other], axis=1), correlation


def _joined_correlation(alike: list[_Patch]) -> Double:
    """Correlate each band over all the patches, ``(C,)``."""
    ours, theirs = (np.concatenate([patch[n] for patch in alike], axis=1) for n in (0, 1))
    _, correlation = _regression(ours, theirs)
    return correlation


def _residual(ours: Float, theirs: Float, line: Double) -> Double:
    """Average ``|x - gain z - offset|`` over the bands, ``(N,)``."""
    return np.asarray(np.abs(ours - line[:, :1] * theirs - line[:, 1:]).mean(axis=0))


def _likeness(ours: Double, theirs: Double) -> float:
    """Average the correlations of the bands of ``(C, N)``, 0 where one has no contrast in some band."""
    spread = ours.std(axis=1) * theirs.std(axis=1)
    if not spread.all():
        return 0.0
    apart = [image - image.mean(axis=1, keepdims=True) for image in (ours, theirs)]
    return float(((apart[0] * apart[1]).mean(axis=1) / spread).mean())
