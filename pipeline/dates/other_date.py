"""A real acquisition of another date: its ground in a scene's colours, and where it shows any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.dates.colours import Colours
from decr_scene.pipeline.dates.likeness import Window
from decr_scene.pipeline.dates.on_grid import OnGrid
from decr_scene.pipeline.errors import OtherDateError
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.masks import DetectedMask
from decr_scene.pipeline.tiling.grid import Span

LEAST_SAMPLE = 100
"""Pixels that must be clear on both dates, of those that are looked at."""

HARDLY, NOT = 0.05, 0.02
"""Share of the detail of clear ground below which a date is warned of, or not taken."""

RIM = 3.0
"""Standard deviation, px, of the smoothing of where a date begins to be taken."""

LEAST_SQUARES = 4
"""Squares with clear ground by which it is told how much a date explains."""

OUTLYING = 4.0
"""Variance that is left in a square, over the median of all, from which on it is that of a cloud."""

INDEPENDENT = 16
"""Neighbouring pixels that tell about as much as one that stands alone."""


@dataclass(frozen=True)
class OtherDate:
    """A raster of the same ground on the grid of a scene, in its colours; `fitted` brings it there.

    Args:
        source: Its pixels.
        colours: From its digital numbers to the scene's [-1, 1] scale; ``None``: not fitted yet.
        explained: Share of the scene's detail that it explains where both are clear, one a band: of what is
            finer than a square of 32 px. Empty: too little is clear to tell.
        sample: Pixels that were clear on both, of those looked at.
        clouds: Where it has cloud or shadow of its own; ``None``: nobody has looked.
        cloudy: Share of its pixels that have.
    """

    source: OnGrid
    colours: Colours | None = None
    explained: tuple[float, ...] = ()
    sample: int = 0
    clouds: DetectedMask | None = None
    cloudy: float | None = None

    @property
    def path(self) -> str:
        """Name the raster."""
        return self.source.path

    @property
    def trust(self) -> float:
        """Return how much it explains, mean of the bands, in [0, 1]; next to nothing if it is unknown."""
        return float(np.clip(np.mean(self.explained), 0, 1)) if self.explained else NOT

    def fitted(self, windows: Sequence[tuple[Span, Float, Float]]) -> OtherDate:
        """Fit its colours to the scene's clear ground.

        Args:
            windows: Windows of the scene, each with its ``(C, h, w)`` on the [-1, 1] scale, and how surely a
                pixel is clear ground, ``(h, w)``.

        Raises:
            SceneReadError: It cannot be read.
            OtherDateError: It shows nothing of the scene's clear ground, or cannot be laid over it.
        """
        looked_at = []
        for span, image, clear in windows:
            values, shown = self._shown(span)
            looked_at.append(Window(image, np.nan_to_num(values), clear * shown))
        weights = np.concatenate([window.weights.ravel() for window in looked_at])
        once = min(1.0, math.prod(self.source.scene.shape) / len(weights))  # windows of a small scene overlap
        sample = round(once * float(np.count_nonzero(weights)))
        if sample < LEAST_SAMPLE:
            raise OtherDateError(
                f"other date {self.path} shows {sample} pixels of the scene's clear ground, of those that "
                f"were looked at, expected {LEAST_SAMPLE} at least: take one that covers the scene, and is "
                "clear where that is"
            )
        ours, theirs = (
            np.concatenate([getattr(window, name).reshape(len(image), -1) for window in looked_at], axis=1)
            for name in ("ours", "theirs")
        )
        counted = weights > 0
        colours = Colours.fit(ours[:, counted], theirs[:, counted], weights[counted], sample // INDEPENDENT)
        explained = _explained(looked_at, colours, sample)
        shares = () if explained is None else tuple(explained.tolist())
        return replace(self, colours=colours, explained=shares, sample=sample)

    def read(self, span: Span) -> tuple[Float, Float]:
        """Read it in a window of the scene, in the scene's colours.

        Returns:
            ``(C, h, w)`` on the [-1, 1] scale, tone and all; and how far it shows ground there, ``(h, w)``:
            from 0 where it ends, has a hole or a cloud, to 1 some pixels further in.

        Raises:
            SceneReadError: It cannot be read there.
        """
        from scipy.ndimage import gaussian_filter

        assert self.colours is not None, "it is fitted before anything is restored"
        values, shown = self._shown(span)
        there = (shown > 0).astype(np.float32)
        begins = np.clip(2 * gaussian_filter(there, RIM) - 1, 0, 1) * there
        return self.colours(values), np.asarray(np.minimum(shown, begins), np.float32)

    def describe(self, names: Sequence[str]) -> str:
        """Describe how well it goes with the scene, with the names of the bands."""
        if not self.explained:
            return f"too little is clear on both to tell how well it does ({self.sample} pixels)"
        worst = int(np.argmin(self.explained))
        return (
            f"where both are clear, it explains {100 * self.trust:.1f} % of the scene's detail, and of "
            f"{label(names, worst)} {100 * max(0.0, self.explained[worst]):.1f} % ({self.sample} pixels)"
        )

    def _shown(self, span: Span) -> tuple[Float, Float]:
        """Read digital numbers, NaN where it has none, and where it shows ground, ``(h, w)`` in [0, 1]."""
        values = self.source.read(span)
        shown = np.asarray(np.isfinite(values).all(axis=0))
        clear = np.float32(1) if self.clouds is None else 1 - self.clouds.soft(span)
        return values, np.asarray(shown * clear, np.float32)


def _explained(windows: Sequence[Window], colours: Colours, sample: int) -> Double | None:
    """Return the share of the scene's variance in squares that a date explains, one a band.

    Squares in which far more is left than in most do not count: there is a cloud that nobody saw. It is
    corrected for the polynomial's number of terms, which explain some of any few pixels. ``None``: there is
    too little clear ground to tell.
    """
    parts = [window.variances(colours) for window in windows]
    left, own = (np.concatenate([part[n] for part in parts], axis=1) for n in (0, 1))
    if left.shape[1] < LEAST_SQUARES:
        return None
    much = left.mean(axis=0)
    usual = much <= OUTLYING * np.median(much)
    left, own = left[:, usual].sum(axis=1), own[:, usual].sum(axis=1)
    terms, alone = colours.terms, sample / INDEPENDENT
    excess = max(1.0, (alone - 1) / max(1.0, alone - terms))
    return np.asarray(1 - excess * np.divide(left, own, out=np.ones_like(left), where=own > 0))


def bands_of(other: RasterioScene, bands: Sequence[str], indexes: Sequence[int]) -> tuple[int, ...]:
    """Find the bands of another date that the model sees: by name, else by place.

    Args:
        other: The other date.
        bands: Names of all bands of the scene.
        indexes: Those that the model sees, 0-based, in its order.

    Raises:
        OtherDateError: It lacks one.
    """
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
