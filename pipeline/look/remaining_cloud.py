"""Look at the output, and measure how much of the cloud that was seen in the scene is still there.

It is cheap: some windows, evenly over those in which there was cloud, from the overviews of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rasterio.enums import Resampling

from decr_scene.models.arrays import Bool, Double
from decr_scene.pipeline.look.coarse import Sight
from decr_scene.pipeline.look.detectors import CLOUD, Lookout
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.fields import Field
from decr_scene.pipeline.regions.masks import OVERLOOKED, is_inside
from decr_scene.pipeline.tiling.grid import Span

MOST = 12
"""Windows that are looked at, at most."""

LIKELY = 128
"""Probability of cloud, of 255, from which on a pixel counts as cloud."""

MUCH = 0.1
"""Part of the cloud that may be left without a warning."""

LITTLE = 0.005
"""Share of what was looked at below which cloud in the output is no warning."""

Inside = Callable[[Double, Double], Bool]
"""Rows and columns of a lattice of points, px of the scene, to which of them count, ``(rows, cols)``."""


@dataclass(frozen=True)
class Remains:
    """What a look sees in an output, in the windows that it was given.

    Args:
        looked_at: Share of the scene that these windows are.
        cloud_before: Share of them that was cloud in the input.
        cloud: Share of them that is cloud in the output.
        left: Share of what was cloud that still is.
    """

    looked_at: float
    cloud_before: float
    cloud: float
    left: float

    @property
    def is_much(self) -> bool:
        """Return whether a user is to be warned."""
        return self.left > MUCH and self.cloud >= LITTLE


class Output(NamedTuple):
    """A finished raster, as a detector is to see it.

    Args:
        scene: The raster.
        factor: Pixels a side of a coarse one.
        sight: What the detector sees of it.
    """

    scene: RasterioScene
    factor: int
    sight: Sight


def look_again(
    lookout: Lookout, before: Field, output: Output, inside: Inside | None = None
) -> Remains | None:
    """Look at an output where there was cloud.

    Args:
        lookout: Who looked before.
        before: What was seen then, bytes as `detection.write_look` writes them.
        output: The output.
        inside: What counts; ``None``: all of it.

    Returns:
        What is left; ``None``: there was no cloud.

    Raises:
        SceneReadError: The output cannot be read.
        MaskError: What was seen before cannot be read.
    """
    cloudy = list(_cloudy(lookout, before, output, inside))
    if not cloudy:
        return None
    chosen = [cloudy[int(n)] for n in np.linspace(0, len(cloudy) - 1, min(MOST, len(cloudy)))]
    pixels = was = now = still = 0
    for window in chosen:
        there = _cloud(before, window, output, inside)
        here = _answer(lookout, output, window, before.shape)
        here &= _counted(window, output.factor, inside)
        pixels += there.size
        was, now, still = was + int(there.sum()), now + int(here.sum()), still + int((there & here).sum())
    whole = before.shape[0] * before.shape[1]
    shares = (pixels / whole, was / pixels, now / pixels, still / was)
    return Remains(*(round(share, 4) for share in shares))


def _cloudy(lookout: Lookout, before: Field, output: Output, inside: Inside | None) -> Iterator[Span]:
    """Yield the windows that a detector answers for in which there was cloud, coarse pixels."""
    height, width = before.shape
    side = lookout.whole if max(before.shape) <= lookout.whole else lookout.own
    for row in range(0, height, side):
        strip = Span(row, 0, min(side, height - row), width)
        cloud = _cloud(before, strip, output, inside)
        for col in range(0, width, side):
            if cloud[:, col : col + side].any():
                yield strip & Span(row, col, side, side)


def _cloud(before: Field, window: Span, output: Output, inside: Inside | None) -> Bool:
    """Find the cloud of a window that counts, ``(h, w)``: what the detector itself had seen."""
    rows, cols = (slice(window.row, window.row + window.height), slice(window.col, window.col + window.width))
    answers = before.read(rows, cols)
    cloud = (answers[CLOUD] >= LIKELY) & ~is_inside(answers, OVERLOOKED)
    return np.asarray(cloud & _counted(window, output.factor, inside))


def _counted(window: Span, factor: int, inside: Inside | None) -> Bool:
    """Find the pixels of a window that count, ``(h, w)``."""
    if inside is None:
        return np.ones((window.height, window.width), bool)
    rows = (window.row + np.arange(window.height) + 0.5) * factor
    cols = (window.col + np.arange(window.width) + 0.5) * factor
    return inside(np.asarray(rows, np.float64), np.asarray(cols, np.float64))


def _answer(lookout: Lookout, output: Output, window: Span, shape: tuple[int, int]) -> Bool:
    """Find the cloud of a window of the output, ``(h, w)``, with the margin that the detector wants."""
    reach, factor = lookout.reach, output.factor
    seen = Span(
        window.row - reach, window.col - reach, window.height + 2 * reach, window.width + 2 * reach
    ) & Span(0, 0, *shape)
    place = Span(seen.row * factor, seen.col * factor, seen.height * factor, seen.width * factor)
    place &= Span(0, 0, *output.scene.shape)
    coarse = (seen.height, seen.width)
    pixels, valid = output.scene.decimated(coarse, Resampling.average, place.window)
    image, known = output.sight(place, pixels, valid)
    cloud = lookout.answers([(image, known)])[0][CLOUD] if known.any() else np.zeros(coarse)
    found = (np.rint(255 * cloud) >= LIKELY) & known.any(axis=0)
    return np.asarray(found[window.inside(seen)])
