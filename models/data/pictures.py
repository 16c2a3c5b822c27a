"""Images for people: which bands are shown, and several images on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GAP = 4
"""White pixels between the images of a picture."""


def display_bands(names: Sequence[str]) -> tuple[int, int, int]:
    """Find red, green and blue, 0-based.

    Without such names they are the first three, or the first thrice. A band named ``alpha`` has no colour and
    is passed over.
    """
    if {"red", "green", "blue"} <= set(names):
        return names.index("red"), names.index("green"), names.index("blue")
    first, *rest = [place for place, name in enumerate(names) if name != "alpha"] or [0]
    return (first, rest[0], rest[1]) if len(rest) >= 2 else (first, first, first)


def contact_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Lay out ``(H, W, 3)`` images in rows on white.

    They may differ in size.
    """
    heights = [max(len(image) for image in row) for row in rows]
    width = max(sum(image.shape[1] + GAP for image in row) for row in rows) - GAP
    sheet = np.full((sum(heights) + GAP * (len(rows) - 1), width, 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for image in row:
            sheet[top : top + len(image), left : left + image.shape[1]] = image
            left += image.shape[1] + GAP
        top += height + GAP
    return sheet
