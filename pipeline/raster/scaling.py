"""Choose the map of digital numbers to [-1, 1] for a scene: by its pixels, its dtype or an option.

Robust limits of the valid pixels, with cloud white in all bands, and with room for ground below a veil.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Bool, Pixels
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.tiling.grid import Span

Doubles = NDArray[np.float64]

TAIL_PERCENT = 0.1
"""Share of the valid pixels, in percent, left outside the limits at each end."""

ABSURD = 1e7
"""Greatest ratio of a span to that of the ground: float32 has no digits for more."""

LARGEST = 1e15
"""Greatest digital number of any instrument."""

WHITE_BANDS = frozenset({"blue", "green", "red", "nir"})
"""Bands in which cloud is about equally bright; farther in the infrared its ice is dark."""

WHITE_SIDE = 8
"""Side of the squares whose mean may be that of a cloud, px: roofs and glints are smaller, mostly."""

WHITE_PERCENT = 2.0
"""Share of the squares, in percent, that are taken for the whitest places of a scene."""

NEARLY_WHITE = 1.4
"""Greatest ratio of the bands' DN at the whitest places that is a cloud's, not soil's or another gain's."""

NEUTRAL = 1.15
"""Greatest such ratio that is taken for an estimate of 1: what lies under thin cloud tints it."""

HEADROOM = 2.0
"""Greatest span over that from the dark end to the whitest places, and over that by quantiles."""

SHADOWS_TO = 2.02
"""Side of the coarsest pixels, m, on which houses and trees cast dark shadows: 2, and 2 once warped."""

LEAST_SIDE = 512
"""Shorter side of the smallest scene, px, of which a dark place is expected: a field has none."""

FILLS = (-99999, -32768, -32767, -9999, -999, -99)
"""Values that stand for no data, where they are the least and the same in all bands."""

BORDER = 0.05
"""Share of a window in a corner of the scene that is 0 in all bands from which that is no dark spot."""

FILLED = 0.0005
"""Share of the pixels from which that is no chance."""

GAP = 0.1
"""Least distance of such a value from the others, over their range."""

VEILED = (0.3, 0.4)
"""Darkest band's lower limit over its upper one: there is no veil over all of a scene, there is."""

ALL_BRIGHT = 200
"""Least of the lower limits of 8 bits where no ground is seen that they could be fitted to."""

SAMPLE_WINDOWS = 8
"""Windows a side of the lattice that the scaling is fitted to."""

SAMPLE_SIDE = 128
"""Side of such a window, px."""


class Fit(NamedTuple):
    """How a scaling is fitted to the pixels.

    Args:
        white: Places of the bands in which cloud is white, from 0; ``None``: all.
        curved: The ground is dark beside cloud: the map has a curve.
        veiled: A veil may lie over all: there is room for ground that is darker than all that is seen
            (`_below_veil`).
        fits_bytes: uint8 is fitted, too; otherwise it is a picture, 0 to 255.
    """

    white: Sequence[int] | None = None
    curved: bool = False
    veiled: bool = False
    fits_bytes: bool = False


def white_places(names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of the bands that are `WHITE_BANDS`; all, where none is named so."""
    return tuple(i for i, name in enumerate(names) if name in WHITE_BANDS) or tuple(range(len(names)))


def may_be_veiled(pixel: float | None, shape: tuple[int, int]) -> bool:
    """Return whether a scene would show a veil over all of it by having no dark place.

    Args:
        pixel: Side of a pixel, m; ``None``: unknown. On coarse ones fields may be as bright all over.
        shape: ``(height, width)`` of the scene, px. A small one may be a field.
    """
    return pixel is not None and pixel <= SHADOWS_TO and min(shape) >= LEAST_SIDE


def fit_radiometry(dtype: np.dtype[Any], bands: int, sample: Pixels, valid: Bool, fit: Fit) -> Radiometry:
    """Choose the map of a scene.

    Args:
        dtype: Of the scene; uint8 is 0 to 255, unless ``fit`` says otherwise.
        bands: Bands of the scene.
        sample: ``(C, N)`` DN, or windows ``(C, .., H, W)``, spread over the scene.
        valid: Marks those that count, same shape.
        fit: How.

    Returns:
        Limits at the `TAIL_PERCENT` quantiles of each band, without pixels that are 0 in all; a band without
        any spread, or without a valid pixel, gets a span of 1 DN around its value, and uint8 with one, or all
        bright, is a picture. In windows whose whitest places are nearly white, the upper limits follow those
        (`_white_balanced`).

    Raises:
        SceneError: The span is absurd, or values stand for no data, and are not declared so.
    """
    if (known := radiometry_without_pixels(dtype, bands, None, fit)) is not None:
        return known
    of_bytes = bool(dtype == np.uint8)
    valid = valid & (sample != 0).any(axis=0)  # a border that is not declared
    _check_fills(sample, valid)
    limits = [_robust_limits(sample[band][valid[band]]) for band in range(bands)]
    if dtype.kind == "f" or dtype.itemsize > 2:  # fewer bits cannot hold an absurd span
        for band, span in enumerate(limits, start=1):
            _check_span(band, sample[band - 1][valid[band - 1]], span)
    low, high = (np.array(ends, np.float64) for ends in zip(*limits, strict=True))
    if fit.veiled:
        low = _below_veil(low, high)
    places = list(range(bands) if fit.white is None else fit.white)
    if sample.ndim > 2 and len(places) > 1:
        high[places] = _white_balanced(low[places], high[places], sample[places], valid[places])
    if of_bytes and ((high - low <= 1).any() or low.min() >= ALL_BRIGHT):  # a band is missing, all is white
        return _picture(bands)
    fitted = Radiometry(tuple(low.tolist()), tuple(high.tolist()), of_bytes=of_bytes)
    return fitted.curved() if fit.curved else fitted


def _below_veil(low: Doubles, high: Doubles) -> Doubles:
    """Lower the lower limits ``(C,)``, as surely as a veil lies over all of a scene: to 0, which is no light.

    It does where no place is dark in any band. Bands without spread, whose span is 1, say nothing, and keep
    theirs.
    """
    live = high - low != 1
    if not live.any() or low[live].min() <= 0:
        return low
    darkest = (low[live] / high[live]).min()
    share = np.clip((darkest - VEILED[0]) / (VEILED[1] - VEILED[0]), 0, 1)
    return np.where(live, low * (1 - share), low)


def _white_balanced(low: Doubles, high: Doubles, sample: Pixels, valid: Bool) -> Doubles:
    """Have what is cloud-white look so: with quantiles alone, bright vegetation darkens near infrared.

    The light of a veil is ``A (1 - T)`` beside the ground's ``T L``. Networks learn it with one ``A`` for all
    bands; where limits do not keep it so, they take cloud for bright ground.

    Args:
        low: DN that becomes -1, ``(C,)``.
        high: DN at the upper quantiles, ``(C,)``.
        sample: Windows ``(C, .., H, W)``.
        valid: Marks the pixels that count, same shape.

    Returns:
        Upper limits ``(C,)``, none below its quantile, in equal proportion beyond the whitest places: those
        squares that are bright in all bands. ``high``, where these are coloured (soil, or sensors whose bands
        have other gains), or far darker than a band's brightest: grey roofs beside vegetation.
    """
    side = min(WHITE_SIDE, *sample.shape[-2:])
    known = _squares(valid, side).all((0, -2, -1))
    squares = _squares(sample, side)[:, known].mean((-2, -1), np.float64)
    if not squares.size:
        return high
    whiteness = ((squares - low[:, None]) / (high - low)[:, None]).min(0)
    white = np.median(squares[:, whiteness >= np.percentile(whiteness, 100 - WHITE_PERCENT)], axis=1)
    if white.max() > NEARLY_WHITE * white.min():  # as is anything below zero
        return high
    if white.max() <= NEUTRAL * white.min():
        white[:] = np.sort(white).mean()  # to the same bits in any order of the bands
    if (white <= low).any() or (reach := ((high - low) / (white - low)).max()) > HEADROOM:
        return high
    balanced = low + max(1.0, reach) * (white - low)
    return high if (balanced - low > HEADROOM * (high - low)).any() else balanced


def _squares(windows: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut windows ``(C, .., H, W)`` into squares, ``(C, .., rows, cols, side, side)``."""
    rows, cols = (extent // side for extent in windows.shape[-2:])
    whole = windows[..., : rows * side, : cols * side]
    return whole.reshape(*whole.shape[:-2], rows, side, cols, side).swapaxes(-3, -2)


def _check_fills(sample: Pixels, valid: Bool) -> None:
    """Refuse pixels that are nothing but a value that stands for no data, far below all others."""
    if sample.dtype.kind == "u" or not valid.any():
        return
    least = float(sample[valid].min())
    filled = ((sample == least) & valid).all(axis=0)
    if least not in FILLS or filled.mean() < FILLED:
        return
    for band, ok in zip(sample, valid, strict=True):
        others = band[ok & ~filled & np.isfinite(band)]
        if not others.size:
            continue
        low, high = np.percentile(others, [1, 99])  # a warp leaves values in between along the seam
        if low - least < GAP * (high - low):
            return
    raise SceneError(
        f"{filled.mean():.2%} of the pixels that were looked at are {least:g} in all bands, expected ground: "
        f"that must be nodata, declare it with gdal_edit -a_nodata {least:g}, or give --scale"
    )


def _check_span(band: int, values: Pixels, span: tuple[float, float]) -> None:
    """Refuse a span so wide that all values of the ground would become one."""
    values = np.sort(values[np.isfinite(values)].astype(np.float64))
    low, high = _narrowest_half(values)
    if low == high and (others := values[values != low]).size:  # a collar may be most of the scene
        low, high = _narrowest_half(others)
    ground = max(high - low, abs(low), 1.0)
    if max(map(abs, span)) < LARGEST and span[1] - span[0] <= ABSURD * ground:
        return
    ends = [f"{value:.4g}" for value in (low, high)]
    half = f"between {ends[0]} and {ends[1]}" if ends[0] != ends[1] else f"about {ends[0]}"
    raise SceneError(
        f"band {band} has valid values from {span[0]:.4g} to {span[1]:.4g}, half of them {half}: some must "
        "be nodata, declare it with gdal_edit -a_nodata, or give --scale"
    )


def _narrowest_half(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the shortest interval with half of some sorted values ``(n,)``, 0 to 0 for none."""
    if not values.size:
        return 0.0, 0.0
    half = -(-len(values) // 2)
    first = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
    return float(values[first]), float(values[first + half - 1])


def _robust_limits(values: Pixels) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, [TAIL_PERCENT, 100 - TAIL_PERCENT]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def radiometry_without_pixels(
    dtype: np.dtype[Any], bands: int, scale: tuple[float, float] | None, fit: Fit
) -> Radiometry | None:
    """Return a scaling that needs no pixels, that of the option or of a picture, else ``None``."""
    if scale is not None:
        return Radiometry((scale[0],) * bands, (scale[1],) * bands)
    picture = dtype == np.uint8 and not fit.fits_bytes
    return _picture(bands) if picture else None


def _picture(bands: int) -> Radiometry:
    return Radiometry((0.0,) * bands, (255.0,) * bands)


def sample_spans(shape: tuple[int, int]) -> list[Span]:
    """Return a lattice of small windows over a scene, for the fit of its scaling."""
    height, width = (min(SAMPLE_SIDE, side) for side in shape)
    return [Span(row, col, height, width) for row in _lattice(shape[0]) for col in _lattice(shape[1])]


def fit_samples(
    dtype: np.dtype[Any],
    indexes: tuple[int, ...],
    sources: Sequence[Source],
    spans: Sequence[Span],
    fit: Fit,
) -> Radiometry:
    """Fit the scaling of some bands to windows, each from its own source."""
    bands = list(indexes)
    pixels, valid = [], []
    for source, span in zip(sources, spans, strict=True):
        window = source.read(span)
        pixels.append(window[bands])
        valid.append(source.valid(span, window)[bands])
    sample = np.stack(pixels, axis=1), np.stack(valid, axis=1)
    return fit_radiometry(dtype, len(bands), *sample, fit)


def has_border(scene: RasterioScene, indexes: Sequence[int]) -> bool:
    """Tell whether a corner of a scene is valid and yet 0 in all of some bands, as is some ground around it.

    Dark water may be so elsewhere. Of a single band 0 says nothing.
    """
    bands = list(indexes)
    if len(bands) < 2:
        return False
    height, width = scene.shape
    for row, col in product((0, height - 1), (0, width - 1)):
        span = Span(max(0, row - SAMPLE_SIDE + 1), max(0, col - SAMPLE_SIDE + 1), 0, 0)
        span = span._replace(
            height=min(SAMPLE_SIDE, height - span.row), width=min(SAMPLE_SIDE, width - span.col)
        )
        pixels = scene.read(span.window)
        nothing = (pixels == 0)[bands].all(axis=0) & scene.valid(span.window, pixels)[bands].all(axis=0)
        if nothing[row - span.row, col - span.col] and nothing.mean() >= BORDER:
            return True
    return False


def _lattice(extent: int) -> list[int]:
    last = max(0, extent - SAMPLE_SIDE)
    return sorted({int(v) for v in np.linspace(0, last, SAMPLE_WINDOWS)})
