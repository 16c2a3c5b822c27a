"""Small images for pairs as data sets have them, drawn by script, and a reader without any radiometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def smooth_ground(
    rng: np.random.Generator, cells: int, side: int, values: tuple[int, int]
) -> NDArray[np.uint8]:
    """Noise of a few cells a side in a range of DN, enlarged to ``(side, side, 3)``."""
    noise = rng.integers(*values, (cells, cells, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def save_png(path: Path, pixels: NDArray[Any]) -> None:
    """A picture ``(H, W, 3)``, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def read_png(path: Path, like: Path | None = None) -> NDArray[np.float32]:
    """``(3, H, W)`` in [-1, 1]; the scaling is that of bytes, whatever it is to be like."""
    return np.moveaxis(np.asarray(Image.open(path), np.float32), 2, 0) / 127.5 - 1
