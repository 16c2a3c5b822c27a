"""Other dates in the place of a first guess: ground where a network can but guess.

They are taken where that guess says that cloud or shadow is, and there alone: clear ground is the scene's own
date. Their tone is that of the scene's clear ground around, and far from any that of the guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.pipeline.dates.clearness import clearness
from decr_scene.pipeline.dates.other_date import RIM, OtherDate
from decr_scene.pipeline.look.tone import SIGMA, low_pass, on_pixels
from decr_scene.pipeline.regions.clear_ground import cloudy_share, smooth_rise
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.tiling.grid import Span

GAP = 9
"""Width, px, below which a gap between pixels that change is taken for changed."""

THICK = (0.2, 0.5)
"""Change, mean of the bands, of cloud that a detector may overlook: hardly any ground is seen below."""

GUESSED = 1e-3
"""Weight of the guess's tone beside that of clear ground."""

FULL = 0.7
"""Share of the scene's detail that a date explains from which on it is taken wholly under thin cloud, too."""

UNSURE = 0.02
"""What is unexplained at the least: no date is the scene's own."""

SETTINGS = (GAP, SIGMA, THICK, GUESSED, FULL, UNSURE)
"""What of this decides the pixels of an output."""


@dataclass(frozen=True)
class OtherDates:
    """Dates of the same ground, the scene's own not among them.

    Args:
        dates: One or more.
    """

    dates: tuple[OtherDate, ...]

    def instead_of(self, guess: Float, image: Float, span: Span, mask: Region | None) -> Float:
        """Put these dates in the place of a first guess, where that changes the image.

        With ``clear`` where ground is, ``low`` a low pass and ``y`` a date in the scene's colours, a date
        gives ``y + low(w (r - y)) / low(w)``: of ``r`` the image with ``w = 1`` where it is clear, else the
        guess, with next to no weight. Several are averaged, each by ``1 / (1 + UNSURE - e) ** 4`` with ``e``
        the share of the scene's detail that it explains. Where the guess changes the image so little that
        ground is seen, they are taken by ``e / FULL`` alone, 1 at most.

        Args:
            guess: The network's, ``(C, h, w)``.
            image: The cloudy image, same shape.
            span: Their window of the scene.
            mask: Where cloud and shadow were found: elsewhere they are taken only where the guess changes the
                image much. ``None``: wherever it changes it.

        Returns:
            ``(C + 1, h, w)``: the guess, and how much of it is another date's, in [0, 1].
        """
        share = _covered(guess - image)
        clear = (share == 0).astype(np.float32)
        thick = _thick(guess - image)
        if mask is not None:
            share, clear = np.maximum(share * mask.soft(span), thick), clearness(mask, span) * (thick == 0)
        if not share.any():
            return np.concatenate([guess, share[None]]).astype(np.float32)
        reference, weight = np.where(clear > 0, image, guess), np.maximum(clear, GUESSED)
        total, weights, hidden = np.zeros_like(guess), np.zeros_like(share), np.ones_like(share)
        trust = np.zeros_like(share)
        for date in self.dates:
            ground, shown = date.read(span)
            off = low_pass(reference - ground, weight * shown)
            ground = np.clip(ground + on_pixels(off, share.shape), -1, 1)
            own = shown / np.float32((1 + UNSURE - date.trust) ** 4)
            total, weights, hidden = total + own * ground, weights + own, hidden * (1 - shown)
            trust = np.maximum(trust, min(1.0, date.trust / FULL) * shown)
        share = share * (1 - hidden) * (thick + (1 - thick) * trust)
        found = np.divide(total, weights, out=guess.copy(), where=weights > 0)
        return np.concatenate([guess + share * (found - guess), share[None]]).astype(np.float32)


def _covered(change: Float) -> Float:
    """Tell where cloud or shadow is by a guess's change of an image, ``(h, w)`` in [0, 1]."""
    from scipy.ndimage import gaussian_filter, grey_closing

    # from a cloud to its shadow the change passes through nothing: such gaps are under them, too
    covered = gaussian_filter(grey_closing(cloudy_share(change), (GAP, GAP)), RIM)
    return np.asarray(np.where(covered > 1e-4, covered, 0), np.float32)


def _thick(change: Float) -> Float:
    """Tell where a guess changes an image so much that hardly any ground is seen, ``(h, w)`` in [0, 1]."""
    from scipy.ndimage import gaussian_filter

    return smooth_rise(gaussian_filter(np.abs(change).mean(axis=0), RIM), *THICK)
