"""What a finished output is against its input, pixel by pixel: read back from the files, on a bounded sample.

Some of it is right or wrong: clear ground keeps its bits, no valid pixel is lost. Some is a figure: how far
tile lines stand out of the change, and whether the texture is as strong where tiles overlap. A scene of more
than `ROWS` x `COLS` blocks is checked in that number of blocks: up to half of the rows, and of the blocks in
each, are those where most was restored, the others are spread evenly over the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from decr_scene.models.arrays import Bool, Double, Pixels
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.provenance import BLENDED, NAMES, NODATA, ORIGINAL
from decr_scene.pipeline.tiling.grid import Span, TileGrid

BLOCK = 512
"""Side of a block of the sample, px."""

ROWS = COLS = 4
"""Greatest numbers of rows of blocks, and of blocks in each, that are checked."""

APART = (-48, -16, 16, 48)
"""Distance from a tile line, px, of the lines that it is compared with: the same phase of 16 px."""

BELOW_ZERO = 0.1
"""Share of clear ground whose mean over the bands is below 0, from which on 0 is a value like others."""

_DECIMATION = 16


def verify_pixels(
    scene: RasterioScene, output: Path, provenance: Path, plan: Plan
) -> tuple[dict[str, bool], dict[str, Any]]:
    """Compare the pixels of an output with those of its input and with its provenance.

    Args:
        scene: The input.
        output: The finished output.
        provenance: The finished raster of classes.
        plan: The plan of the run.

    Returns:
        Whether it is as it must be, by name: ``clear_pixels_identical``, ``provenance_true``,
        ``no_valid_pixel_lost``, ``nodata_untouched``, ``no_black_hole``. And the figures: the sample, the
        share of each class over the whole scene, the counts behind the checks, ``seam_score`` and
        ``texture_ratio`` (``None`` where nothing was restored at a tile line).
    """
    with rasterio.open(output) as after, rasterio.open(provenance) as classes:
        shares, spans = _sample(classes)
        counts, seams = _Counts(), _Seams(plan)
        for span in spans:
            pixels = scene.read(span.window), after.read(window=span.window)
            origins = classes.read(1, window=span.window)
            valid, valid_after = (scene.valid(span.window, of) for of in pixels)
            counts.add(*pixels, valid, valid_after, origins, list(plan.indexes))
            seams.add(*pixels, valid, origins, span)
    looked_at = sum(span.height * span.width for span in spans)
    figures = {
        "sample": {"windows": len(spans), "pixels": looked_at, "of": scene.shape[0] * scene.shape[1]},
        "classes": shares,
        "counts": dict(vars(counts)),
        "seam_score": _rounded(seams.score),
        "texture_ratio": _rounded(seams.texture_ratio),
    }
    return counts.checks(), figures


@dataclass
class _Counts:
    """Count the pixels of the sample by what was done to them."""

    original: int = 0
    original_but_changed: int = 0
    restored_but_unchanged: int = 0
    valid_lost: int = 0
    nodata_changed: int = 0
    wrong_class: int = 0
    new_black: int = 0
    new_black_holes: int = 0
    below_zero: int = 0

    def add(
        self, before: Pixels, after: Pixels, valid: Bool, valid_after: Bool, classes: Pixels, bands: list[int]
    ) -> None:
        """Add the counts of a window ``(C, h, w)``.

        ``bands`` (0-based) are those that are restored.
        """
        differs = (_bits(before) != _bits(after)).any(axis=0)
        original = classes == ORIGINAL
        self.original += int(original.sum())
        if after.dtype.kind != "u":
            whole = original & valid[bands].all(axis=0)
            clear = before[bands][:, whole]  # without nodata, whose mean may be infinite
            self.below_zero += int((clear.mean(axis=0, dtype=np.float64) < 0).sum())
        self.original_but_changed += int((original & differs).sum())
        self.restored_but_unchanged += int(((classes >= BLENDED) & ~differs).sum())
        self.wrong_class += int(((classes != NODATA) != valid[bands].any(axis=0)).sum())
        if not valid.all() or not valid_after.all():
            self.valid_lost += int((valid & ~valid_after).any(axis=0).sum())
            self.nodata_changed += int(((_bits(before) != _bits(after)) & ~valid).any(axis=0).sum())
        if differs.any():
            black = (after[bands] == 0).all(axis=0) & ~(before[bands] == 0).all(axis=0)
            black &= valid[bands].any(axis=0)
            self.new_black += int(black.sum())
            self.new_black_holes += int(_interior(black).sum())

    def checks(self) -> dict[str, bool]:
        """Return the checks that must hold, by name."""
        return {
            "clear_pixels_identical": not self.original_but_changed,
            "provenance_true": not (self.restored_but_unchanged or self.wrong_class),
            "no_valid_pixel_lost": not self.valid_lost,
            "nodata_untouched": not self.nodata_changed,
            "no_black_hole": self._zero_is_ground or not self.new_black_holes,
        }

    @property
    def _zero_is_ground(self) -> bool:
        """Return whether clear ground lies on both sides of 0, as differences do: then 0 is not black."""
        return self.below_zero > BELOW_ZERO * self.original


@dataclass
class _Seams:
    """Steps of the change across tile lines and across others; energy of texture in overlaps and inside."""

    plan: Plan
    lines: list[float] = field(default_factory=lambda: [0.0, 0.0])
    others: list[float] = field(default_factory=lambda: [0.0, 0.0])
    overlap: Double | None = None
    inside: Double | None = None

    def add(self, before: Pixels, after: Pixels, valid: Bool, classes: Pixels, span: Span) -> None:
        """Measure a window ``(C, h, w)``.

        Its classes are ``(h, w)``.
        """
        restored = classes >= BLENDED
        if not restored.any():
            return
        bands = list(self.plan.indexes)
        spread = (np.asarray(self.plan.radiometry.high) - self.plan.radiometry.low)[:, None, None]
        looked_at = valid[bands] & restored
        clean, cloudy = (np.where(looked_at, image[bands], 0) / spread for image in (after, before))
        change = clean - cloudy
        rows, cols = _tile_lines(self.plan.grid)
        self._add_steps(change, restored, cols, span.col)
        self._add_steps(change.swapaxes(1, 2), restored.T, rows, span.row)
        self._add_texture(clean, restored, span)

    def _add_steps(self, change: Double, restored: Bool, lines: frozenset[int], first: int) -> None:
        """Add the steps along the last axis, whose pixel 0 is the scene's ``first``."""
        near = {line + away for line in lines for away in APART} - lines
        for places, sums in ((lines, self.lines), (near, self.others)):
            at = np.array(sorted(p - first for p in places if 0 < p - first < change.shape[2]), int)
            counted = restored[:, at] & restored[:, at - 1]
            sums[0] += float((np.abs(change[:, :, at] - change[:, :, at - 1]) * counted).sum())
            sums[1] += float(counted.sum() * len(change))

    def _add_texture(self, clean: Double, restored: Bool, span: Span) -> None:
        from scipy.ndimage import binary_erosion, uniform_filter

        rows, cols = (
            _tiles_over(starts, self.plan.grid.size, first, extent)
            for starts, first, extent in (
                (self.plan.grid.rows, span.row, span.height),
                (self.plan.grid.cols, span.col, span.width),
            )
        )
        twice = (rows > 1)[:, None] | (cols > 1)[None]
        whole = binary_erosion(restored, np.ones((3, 3)))  # so that no neighbour is the input's
        energy = np.square(clean - uniform_filter(clean, (0, 3, 3)))
        overlap, inside = (
            np.append(energy[:, area].sum(axis=1), area.sum()) for area in (whole & twice, whole & ~twice)
        )
        self.overlap = overlap if self.overlap is None else self.overlap + overlap
        self.inside = inside if self.inside is None else self.inside + inside

    @property
    def score(self) -> float | None:
        """Return the mean absolute step across tile lines over that across neighbouring lines."""
        (lines, line_count), (others, other_count) = self.lines, self.others
        return lines / line_count / (others / other_count) if line_count and others else None

    @property
    def texture_ratio(self) -> float | None:
        """Return the high-pass standard deviation in overlaps over that inside tiles, mean of the bands."""
        if self.overlap is None or self.inside is None or not self.overlap[-1] or not self.inside.all():
            return None
        overlap, inside = (energy[:-1] / energy[-1] for energy in (self.overlap, self.inside))
        return float(np.mean(np.sqrt(overlap / inside)))


def _sample(classes: Any) -> tuple[dict[str, float], list[Span]]:
    """Return the share of each class over the whole scene, from its overviews, and the windows to check."""
    height, width = classes.shape
    rows, cols = -(-height // BLOCK), -(-width // BLOCK)
    whole = rows <= ROWS and cols <= COLS
    step = 1 if whole else _DECIMATION
    small = classes.read(1, out_shape=(-(-height // step), -(-width // step)))
    shares = np.bincount(small.ravel(), minlength=len(NAMES)) / small.size
    side = BLOCK // step
    padded = np.zeros((rows * side, cols * side), bool)
    padded[: small.shape[0], : small.shape[1]] = small >= BLENDED
    restored = padded.reshape(rows, side, cols, side).sum(axis=(1, 3))
    spans = [
        Span(row * BLOCK, col * BLOCK, min(BLOCK, height - row * BLOCK), min(BLOCK, width - col * BLOCK))
        for row in _pick(restored.sum(axis=1), ROWS)
        for col in _pick(restored[row], COLS)
    ]
    return {name: round(float(share), 6) for name, share in zip(NAMES, shares, strict=True)}, spans


def _pick(scores: NDArray[np.int_], count: int) -> list[int]:
    """Pick places: up to half of them of the greatest score, if any, the others spread evenly."""
    if len(scores) <= count:
        return list(range(len(scores)))
    best = [int(place) for place in np.argsort(-scores, kind="stable")[: count // 2] if scores[place]]
    others = [place for place in range(len(scores)) if place not in best]
    even = [others[int(place)] for place in np.linspace(0, len(others) - 1, count - len(best))]
    return sorted([*best, *even])


def _tile_lines(grid: TileGrid) -> tuple[frozenset[int], frozenset[int]]:
    """Find the first pixels after the edges of tiles inside the scene: rows, then columns."""
    rows, cols = (
        frozenset(edge for start in starts for edge in (start, start + grid.size) if 0 < edge < extent)
        for starts, extent in zip((grid.rows, grid.cols), grid.shape, strict=True)
    )
    return rows, cols


def _tiles_over(starts: tuple[int, ...], size: int, first: int, extent: int) -> NDArray[np.int_]:
    """Count the tiles over each of ``extent`` pixels from ``first`` on, ``(extent,)``."""
    places = first + np.arange(extent)
    begun = np.searchsorted(starts, places, side="right")
    ended = np.searchsorted(np.add(starts, size), places, side="right")
    return begun - ended


def _interior(mask: Bool) -> Bool:
    """Mark pixels whose eight neighbours are in the mask as well, same shape."""
    from scipy.ndimage import binary_erosion

    solid: Bool = binary_erosion(mask, np.ones((3, 3)))
    return solid


def _bits(pixels: Pixels) -> Pixels:
    """View floating point as integers: NaN is equal to itself, and -0 is not 0."""
    return pixels.view(f"u{pixels.itemsize}") if pixels.dtype.kind == "f" else pixels


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
