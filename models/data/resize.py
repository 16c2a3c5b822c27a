"""The paper's resize: MATLAB's bicubic `imresize` with antialiasing, in numpy.

The published networks saw their images through it, in training and in evaluation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Double, Float

Index = NDArray[np.int64]

KERNEL_WIDTH = 4
"""Keys' cubic is zero from a distance of 2 on, to both sides."""


def resize(image: NDArray[Any], scale: float) -> Float:
    """Resize both sides by one scale.

    Shrinking smooths first, by a wider kernel. Output pixel ``i`` lies at ``u_i`` on the input, pixels
    counted from 1, and is a weighted mean around it::

        u_i    = i / s + (1 - 1 / s) / 2
        w_ij   = k(r (u_i - j)) / sum_j k(r (u_i - j)),    r = min(s, 1)
        out_i  = sum_j w_ij in_j
        k(d)   = 3/2 |d|^3 - 5/2 |d|^2 + 1                 for      |d| <= 1
                -1/2 |d|^3 + 5/2 |d|^2 - 4 |d| + 2         for  1 < |d| <  2  (Keys, a = -1/2)

    Beyond its edges the input is mirrored, edge pixel included. Rows are resized first, then columns.

    Args:
        image: ``(C, H, W)``, in any unit.
        scale: Output over input, ``s`` above; 256 / 512 halves an image.

    Returns:
        ``(C, ceil(H * scale), ceil(W * scale))``, neither rounded nor clipped: the cubic overshoots at edges.

    Raises:
        ValueError: The image does not have three axes of pixels, or ``scale`` is not above zero.
    """
    if image.ndim != 3 or not image.size:
        raise ValueError(f"image must be (C, H, W) with pixels in it, got shape {image.shape}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be finite and above zero, got {scale}")
    for axis in (1, 2):
        image = _resize_axis(image.astype(np.float32, copy=False), scale, axis)
    return image


def _resize_axis(image: Float, scale: float, axis: int) -> Float:
    """Sum tap by tap, so that memory holds two outputs and not all taps at once."""
    taps, weights = _contributions(image.shape[axis], scale)
    shape = [1, 1, 1]
    shape[axis] = len(taps)
    resized = np.zeros((*image.shape[:axis], len(taps), *image.shape[axis + 1 :]), np.float32)
    for tap, weight in zip(taps.T, weights.T.astype(np.float32), strict=True):
        resized += np.take(image, tap, axis) * weight.reshape(shape)
    return resized


def _contributions(length: int, scale: float) -> tuple[Index, Double]:
    """List input pixels (from 0, mirrored) and weights of every output pixel, both ``(outputs, taps)``.

    MATLAB takes one tap more at each end and drops those columns when they hold a zero. They always do: they
    lie at or beyond the kernel's edge. So they are not made here.
    """
    reach = min(scale, 1.0)
    support = KERNEL_WIDTH / reach
    centre = np.arange(1, math.ceil(length * scale) + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - support / 2).astype(np.int64) + 1
    taps = first[:, None] + np.arange(math.ceil(support))
    weights = _cubic(reach * (centre[:, None] - taps))
    return _mirror(taps - 1, length), weights / weights.sum(axis=1, keepdims=True)


def _cubic(distance: Double) -> Double:
    """Return Keys' kernel ``k`` with a = -1/2, same shape."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _mirror(index: Index, length: int) -> Index:
    """Fold any index into ``[0, length)``: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    folded = index % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)
