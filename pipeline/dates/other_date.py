"""A real acquisition of another date: its ground in a scene's colours, and where it shows any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from decr_scene.models.arrays import Bool, Double, Float
from decr_scene.pipeline.dates.colours import Colours
from decr_scene.pipeline.dates.likeness import Window, correlations
from decr_scene.pipeline.dates.on_grid import OnGrid
from decr_scene.pipeline.errors import OtherDateError
from decr_scene.pipeline.inputs.bands import label
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.masks import DetectedMask
from decr_scene.pipeline.tiling.grid import Span

LEAST_SAMPLE = 100
"""Pixels that must be clear on both dates, of those that are looked at."""

HARDLY, NOT = 0.05, 0.02
"""Share of the detail of clear ground below which a date is warned of, or not taken."""

UNKNOWN = 0.3
"""What is taken for that share where too little is clear to tell: about that of another season."""

SAME = 0.97
"""Squared correlation of all pixels, clouds and all, from which on another date is the same picture."""

RIM = 3.0
"""Standard deviation, px, of the smoothing of where a date begins to be taken."""

LEAST_SQUARES = 4
"""Squares with clear ground by which it is told how much a date explains."""

OUTLYING = 4.0
"""Variance that is left in a square, over the median of all, from which on it is that of a cloud."""

INDEPENDENT = 16
"""Neighbouring pixels that tell about as much as one that stands alone."""

SETTINGS = (LEAST_SAMPLE, HARDLY, NOT, UNKNOWN, SAME, RIM, LEAST_SQUARES, OUTLYING, INDEPENDENT)
"""What of this decides the pixels of an output."""


class Place(NamedTuple):
    """A window of a scene.

    Args:
        span: Where it is.
        image: ``(C, h, w)`` on the [-1, 1] scale.
        clear: How surely ground is clear, ``(h, w)`` in [0, 1].
        valid: Where all bands are valid, ``(h, w)``.
    """

    span: Span
    image: Float
    clear: Float
    valid: Bool


@dataclass(frozen=True)
class OtherDate:
    """A raster of the same ground on the grid of a scene, in its colours; `fitted` brings it there.

    Args:
        source: Its pixels.
        look: Who looks for its cloud; ``None``: nobody.
        colours: From its digital numbers to the scene's [-1, 1] scale; ``None``: not fitted yet.
        explained: Share of the scene's detail that it explains where both are clear, one a band: of what is
            finer than a square of 32 px. Empty: too little is clear to tell.
        sample: Pixels that were clear on both, of those looked at.
        clouds: Where it has cloud or shadow of its own; ``None``: nobody has looked.
        cloudy: Share of its pixels that the detector takes for some.
    """

    source: OnGrid
    look: LookPlan | None = None
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
        """Return how much it explains, mean of the bands, in [0, 1]; `UNKNOWN` if that cannot be told."""
        return float(np.clip(np.mean(self.explained), 0, 1)) if self.explained else UNKNOWN

    def alike(self, place: Place) -> Place:
        """Restrict the clear ground of a window to the squares that are alike on both dates."""
        values = self.source.read(place.span)
        weights = place.clear * place.valid * np.isfinite(values).all(axis=0)
        both = Window(place.image, np.nan_to_num(values), np.asarray(weights, np.float32)).alike()
        return place._replace(clear=np.asarray(place.clear * both, np.float32))

    def fitted(self, windows: Sequence[Place]) -> OtherDate:
        """Fit its colours to the scene's clear ground.

        Args:
            windows: Windows all over the scene.

        Raises:
            SceneReadError: It cannot be read.
            OtherDateError: It shows next to nothing of the scene's clear ground; or it is the same picture,
                with the scene's cloud in it.
        """
        clear, everywhere = [], []
        for place in windows:
            values, shown = self._shown(place.span)
            known = place.valid & np.isfinite(values).all(axis=0)
            everywhere.append((place.image[:, known], values[:, known]))
            clear.append(Window(place.image, np.nan_to_num(values), place.clear * place.valid * shown))
        weights = np.concatenate([window.weights.ravel() for window in clear])
        sample = int(np.count_nonzero(weights))
        if sample < LEAST_SAMPLE:
            raise OtherDateError(
                f"other date {self.path} has {sample} pixels that are clear where the scene is, of those "
                f"looked at, expected {LEAST_SAMPLE} at least: take one that covers the scene, and is "
                "clear where that is"
            )
        all_ours, all_theirs = (np.concatenate(parts, axis=1) for parts in zip(*everywhere, strict=True))
        if np.square(correlations(all_ours.astype(np.float64), all_theirs.astype(np.float64))).min() >= SAME:
            raise OtherDateError(
                f"other date {self.path} is the scene's own picture, clouds and all, expected another date"
            )
        ours, theirs = (
            np.concatenate([getattr(window, name).reshape(len(window.ours), -1) for window in clear], axis=1)
            for name in ("ours", "theirs")
        )
        counted = weights > 0
        colours = Colours.fit(ours[:, counted], theirs[:, counted], weights[counted], sample // INDEPENDENT)
        explained = _explained(clear, colours, sample)
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
