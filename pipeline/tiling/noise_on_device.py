"""Draw the noise of places where a model computes: the bits of `place_noise`, by operations of torch.

Philox is of whole numbers alone (Salmon et al. 2011), which are the same everywhere. Logarithms, cosines and
sines are not: their last bits differ from numpy's. A number that lies so near the middle of two of single
precision that this might decide is asked of numpy, as `normal_numbers` does it: a few in a million.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import CELL, stream_key
from decr_scene.pipeline.tiling.normal import MARGIN, TURN, exactly

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_COUNTS = CELL * CELL // 8
"""Counts of a cell: four words each, a word for two pixels."""


def place_noise_on(device: torch.device, seed: int, step: int, bands: int, spans: Sequence[Span]) -> Tensor:
    """Draw standard normal noise for windows of the scene.

    Args:
        device: Where to draw, and to leave it.
        seed: Of the run.
        step: Number of the diffusion step that the noise is for.
        bands: Number of bands.
        spans: The windows, all of one size; what they share is drawn once.

    Returns:
        ``(len(spans), bands, height, width)`` float32, of each window what `place_noise` gives.
    """
    wanted = [_cells(span) for span in spans]
    listed = np.concatenate([cells.reshape(-1, 2) for cells in wanted])
    places, numbers = np.unique(listed, axis=0, return_inverse=True)
    keys = np.stack([stream_key(seed, step, band) for band in range(bands)])
    drawn = _draw(torch.from_numpy(keys.view(np.int64)).to(device), torch.from_numpy(places).to(device))
    chosen = torch.from_numpy(numbers.reshape(-1)).to(device)
    first = 0
    windows = []
    for span, cells in zip(spans, wanted, strict=True):
        rows, cols = cells.shape[:2]
        own, first = chosen[first : first + rows * cols], first + rows * cols
        window = drawn[:, own].view(bands, rows, cols, CELL, CELL).transpose(2, 3)
        top, left = span.row % CELL, span.col % CELL
        window = window.reshape(bands, rows * CELL, cols * CELL)
        windows.append(window[:, top : top + span.height, left : left + span.width])
    return torch.stack(windows)


def _cells(span: Span) -> NDArray[np.int64]:
    """List the cells that a window touches by row and column, ``(rows, cols, 2)``."""
    rows = np.arange(span.row // CELL, -(-span.bottom // CELL), dtype=np.int64)
    cols = np.arange(span.col // CELL, -(-span.right // CELL), dtype=np.int64)
    return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1)


def _draw(keys: Tensor, places: Tensor) -> Tensor:
    """Draw the cells at places ``(N, 2)`` of bands with keys ``(C, 2)``: ``(C, N, CELL, CELL)``."""
    rows, cols = places[:, :, None].unbind(1)
    count = torch.arange(1, _COUNTS + 1, device=places.device)  # numpy counts before it draws
    words = _philox([count, torch.zeros_like(count), rows, cols], keys[:, :, None, None].unbind(1))
    numbers = _normal(torch.stack(words, dim=-1))
    cells = numbers.view(2, len(keys), len(places), CELL // 2, CELL)
    return cells.permute(1, 2, 0, 3, 4).reshape(len(keys), len(places), CELL, CELL)


def _philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Mix counters of four words with keys of two; all are tensors, which are broadcast."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(x0, _MULTIPLIERS[0])
        high1, low1 = _product(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + _signed(_KEY_STEPS[0]), k1 + _signed(_KEY_STEPS[1])
    return x0, x1, x2, x3


def _product(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Multiply words of 64 bits by a number of 64 bits: the upper and the lower word."""
    high, low = _upper(words), words & _LOW
    factor_high, factor_low = factor >> 32, factor & _LOW
    first = high * factor_low + _upper(low * factor_low)
    second = low * factor_high + (first & _LOW)
    return high * factor_high + _upper(first) + _upper(second), words * _signed(factor)


def _upper(words: Tensor) -> Tensor:
    """Take the upper 32 bits: words of torch are signed, so others come in from above."""
    return words >> 32 & _LOW


def _signed(word: int) -> int:
    """Write 64 bits as torch's signed number."""
    return word - (1 << 64) if word >> 63 else word


def _normal(words: Tensor) -> Tensor:
    """Turn words into normal numbers, two each, ``(2, *words.shape)``, as `normal_numbers` does."""
    radius = (-2 * ((_upper(words).double() + 0.5) * 2.0**-32).log()).sqrt()
    angle = (words & _LOW).double() * TURN
    exact = torch.stack([angle.cos(), angle.sin()]) * radius
    numbers = (exact - MARGIN).float()
    doubtful = (numbers != (exact + MARGIN).float()).nonzero(as_tuple=True)
    half, *place = doubtful
    bits = words[tuple(place)].cpu().numpy().view(np.uint64)
    numbers[doubtful] = torch.from_numpy(exactly(bits, half.cpu().numpy())).to(numbers.device)
    return numbers
