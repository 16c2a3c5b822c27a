"""Where each pixel of a result comes from: one class a pixel, in a raster beside the output.

The classes are what a user can check: an original pixel has the input's bits in every band, and every other
valid pixel has not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Bool, Float, Pixels

Classes = NDArray[np.uint8]

NODATA, ORIGINAL, BLENDED, GENERATED, OTHER_DATE = range(5)

NAMES = ("nodata", "original", "blended", "generated", "other date")
"""What the classes 0, 1, 2, 3, 4 are called."""

COLORS = (
    (0, 0, 0, 0),
    (226, 226, 220, 255),
    (244, 177, 84, 255),
    (200, 54, 92, 255),
    (62, 120, 178, 255),
)
"""``(red, green, blue, alpha)`` of the classes."""

TAGS = tuple((f"CLASS_{number}", name) for number, name in enumerate(NAMES))


def untouched(valid: Bool) -> Classes:
    """Give the classes of a window that nothing changed.

    Args:
        valid: ``(C, h, w)``, of the bands that are restored.

    Returns:
        ``(1, h, w)``.
    """
    classes: Classes = np.asarray(valid.any(axis=0, keepdims=True), np.uint8)
    return classes  # NODATA is 0, ORIGINAL is 1


def classify(
    before: Pixels, after: Pixels, valid: Bool, share: Float | None, other: Float | None = None
) -> Classes:
    """Find the classes of a window.

    Args:
        before: ``(C, h, w)`` digital numbers of the input, of the bands that are restored.
        after: The same of the output.
        valid: Which of them are neither nodata nor masked.
        share: ``(h, w)``: how much of the model's change was taken; ``None``: all of it, everywhere.
        other: ``(h, w)``: how much of the first guess was another date's; ``None``: nothing.

    Returns:
        ``(1, h, w)``: `NODATA` where no band is valid; `ORIGINAL` where no band changed; where one did,
        `BLENDED` if a part of the change was taken, else `OTHER_DATE` if half of the first guess or more was
        another date's, else `GENERATED`.
    """
    classes = untouched(valid)
    changed = ((after != before) & valid).any(axis=0, keepdims=True)
    classes[changed] = GENERATED
    if other is not None:
        classes[changed & (other >= 0.5)] = OTHER_DATE
    if share is not None:
        classes[changed & (share < 1)] = BLENDED
    return classes
