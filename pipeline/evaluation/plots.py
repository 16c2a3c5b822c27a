"""Plots of an evaluation, each a PNG and a CSV with its numbers: curves, points by name, maps of a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Float
from decr_scene.models.data.pictures import contact_sheet
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.files import write_csv, write_whole

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 420
LEFT, TOP, RIGHT, BOTTOM = 72, 36, 24, 48
"""Margins around the axes, px."""

TICKS = 5

LETTER, LINE = 6, 14
"""Width of a letter and height of a line of text, px."""

COLOURS = ("#1f4e79", "#b03a2e", "#2e7d32", "#7d5ba6", "#8a6d00", "#00838f", "#c2185b", "#455a64")


@dataclass(frozen=True)
class Plot:
    """One pair of axes with named series.

    Args:
        title: Above.
        x: What runs to the right.
        y: What runs upwards.
        series: Points by name.
        joined: Join the points of a series by lines, in the order of ``x``.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Points] = field(default_factory=dict)
    joined: bool = True

    def write(self, path: Path) -> None:
        """Write ``path`` with ``.png`` and with ``.csv``.

        Raises:
            OptionError: No point is finite.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write_png(path.with_suffix(".png"))
        rows = ([name, f"{x:.6g}", f"{y:.6g}"] for name, points in self.series.items() for x, y in points)
        write_csv(path.with_suffix(".csv"), ["series", self.x, self.y], rows)

    def _write_png(self, path: Path) -> None:
        from PIL import Image, ImageDraw

        shown = {name: _finite(points) for name, points in self.series.items()}
        every = [point for points in shown.values() for point in points]
        if not every:
            raise OptionError(f"nothing to plot in {self.title}: no figure of any image is known")
        axes = _Axes(_limits([x for x, _ in every]), _limits([y for _, y in every]))
        picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        draw = ImageDraw.Draw(picture)
        self._frame(draw, axes)
        taken: list[tuple[float, float, float]] = []
        left = float(LEFT)
        for number, (name, points) in enumerate(shown.items()):
            colour = COLOURS[number % len(COLOURS)]
            places = [axes.place(*point) for point in (sorted(points) if self.joined else points)]
            if self.joined and len(places) > 1:
                draw.line(places, fill=colour, width=2)
            for x, y in places:
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
            if self.joined:
                draw.text((left, TOP - LINE), name, fill=colour)
                left += LETTER * (len(name) + 3)
            else:
                for x, y in places:
                    draw.text(free_place(taken, (x, y), LETTER * len(name)), name, fill=colour)
        with write_whole(path) as partial:
            picture.save(partial, "PNG")

    def _frame(self, draw: ImageDraw, axes: _Axes) -> None:
        draw.rectangle((LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), outline="black")
        draw.text((LEFT, 4), self.title, fill="black")
        draw.text((WIDTH // 2 - 3 * len(self.x), HEIGHT - 18), self.x, fill="black")
        draw.text((4, 4), self.y, fill="black")
        for x in np.linspace(*axes.x, TICKS):
            place, _ = axes.place(float(x), axes.y[0])
            draw.text((place - 14, HEIGHT - BOTTOM + 6), f"{x:.4g}", fill="black")
        for y in np.linspace(*axes.y, TICKS):
            _, place = axes.place(axes.x[0], float(y))
            draw.text((8, place - 6), f"{y:.4g}", fill="black")


def free_place(
    taken: list[tuple[float, float, float]], point: tuple[float, float], width: float
) -> tuple[float, float]:
    """Find room for a name right of its point, else left of it, below those there are, and add it to them.

    Args:
        taken: Left, top and width of the names so far, px.
        point: Where the point is, px.
        width: Of the name, px.

    Returns:
        Left and top of the name, px.
    """
    left, top = point[0] + 6, point[1] - 12
    if left + width > WIDTH - RIGHT:
        left = max(4, point[0] - 6 - width)
    while any(abs(top - y) < LINE and left < x + w and x < left + width for x, y, w in taken):
        top += LINE
    taken.append((left, top, width))
    return left, top


def weight_maps(path: Path, maps: Mapping[int, Float]) -> None:
    """Write maps of the weight, black 0 and white 1, side by side under their steps, and their means.

    Args:
        path: Gets the endings ``.png`` and ``.csv``.
        maps: ``(H, W)`` by step.
    """
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    steps = sorted(maps, reverse=True)
    sheet = contact_sheet([[_named(maps[t], f"step {t}, W 0 to 1") for t in steps]])
    with write_whole(path.with_suffix(".png")) as partial:
        Image.fromarray(sheet).save(partial, "PNG")
    values = ((t, (maps[t].min(), maps[t].mean(), maps[t].max())) for t in steps)
    rows = ([str(t), *(f"{value:.5f}" for value in three)] for t, three in values)
    write_csv(path.with_suffix(".csv"), ["t", "least", "mean", "most"], rows)


def _named(weight: Float, name: str) -> NDArray[np.uint8]:
    """Draw a map in greys, ``(H + LINE, W, 3)``, with its name above."""
    from PIL import Image, ImageDraw

    grey = np.rint(np.clip(weight, 0, 1) * 255).astype(np.uint8)
    picture = Image.new("RGB", (grey.shape[1], grey.shape[0] + LINE), "white")
    picture.paste(Image.fromarray(grey), (0, LINE))
    ImageDraw.Draw(picture).text((2, 1), name, fill="black")
    return np.asarray(picture)


@dataclass(frozen=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Convert a point to a place in the picture, px."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if np.isfinite(x) and np.isfinite(y)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Find the least and the greatest, with a margin."""
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - air, high + air
