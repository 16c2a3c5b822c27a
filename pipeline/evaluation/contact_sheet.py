"""A contact sheet: some of the evaluated images, side by side with their names and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Float
from decr_scene.models.data.pictures import contact_sheet, display_bands
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.files import write_whole
from decr_scene.pipeline.measures.metrics import to_uint8

Picture = NDArray[np.uint8]

MOST_ROWS = 24
"""More images than this are thinned out evenly."""

SIDE = 256
"""Longest side of an image on the sheet, px; larger ones are shrunk."""

CAPTION = 16
"""Height of the line above an image, px."""


class Sheet:
    """Collect rows and write them as one PNG.

    Args:
        bands: Names of the bands, to show red, green and blue as such.
        count: Images that will be added.

    Raises:
        OptionError: Pillow is not installed.
    """

    def __init__(self, bands: tuple[str, ...], count: int) -> None:
        try:
            import PIL  # noqa: F401  # only to say so before the work
        except ModuleNotFoundError:
            raise OptionError("a sheet needs Pillow: pip install 'decr-scene[train]'") from None
        rows = min(MOST_ROWS, count)
        self._chosen = {i * count // rows for i in range(rows)}
        self._display = list(display_bands(bands))
        self._rows: list[list[Picture]] = []

    def add(self, number: int, name: str, images: Mapping[str, Float], decibels: Mapping[str, float]) -> None:
        """Add the images of one pair, each ``(C, H, W)`` in [-1, 1], if it is one of the chosen.

        Args:
            number: Of the pair, from 0.
            name: Of the pair; stands over the first image.
            images: By what they are called.
            decibels: PSNR of those that have one.
        """
        if number not in self._chosen:
            return
        row: list[Picture] = []
        for label, image in images.items():
            caption = f"{label} {decibels[label]:.2f} dB" if label in decibels else label
            row.append(self._captioned(image, caption if row else f"{name}  {caption}"))
        self._rows.append(row)

    def save(self, path: Path) -> None:
        """Write the sheet."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as partial:
            Image.fromarray(contact_sheet(self._rows)).save(partial, "PNG")

    def _captioned(self, image: Float, text: str) -> Picture:
        from PIL import Image, ImageDraw

        picture = Image.fromarray(np.moveaxis(to_uint8(image[self._display]), 0, 2))
        picture.thumbnail((SIDE, SIDE))
        framed = Image.new("RGB", (picture.width, picture.height + CAPTION), "white")
        framed.paste(picture, (0, CAPTION))
        ImageDraw.Draw(framed).text((2, 2), text, fill="black")
        return np.asarray(framed)
