"""The rule that fills the networks of the golden files, and the files themselves.

Weights are not stored: every entry of a published state dict is a function of its name and shape.
"""

import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Any]:
    """The arrays of a golden file; images as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {k: torch.from_numpy(v) if v.ndim > 1 else v for k, v in arrays.items()}


@cache
def manifest(tag: str, bands: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, in its order."""
    entries = json.loads((GOLDEN / f"state_dict_{tag}_{bands}.json").read_text())
    return {name: tuple(shape) for name, shape, _ in entries}


def filled(tag: str, shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    """Published state dict of a module (``cnp``, ``wa``, ``mn``, ``mdsa``), all values by the rule."""
    return {name: _value(tag, name, shape, seed) for name, shape in shapes.items()}


def _value(tag: str, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    key = f"{seed}:{tag}:{name}".encode("ascii")
    normal = np.random.Generator(np.random.PCG64(zlib.crc32(key))).standard_normal(shape)
    return torch.from_numpy(np.asarray(_scaled(tag, name, shape, normal)).astype(np.float32))


def _scaled(tag: str, name: str, shape: tuple[int, ...], n: Any) -> Any:
    if tag == "mn" and shape == (1,):
        return np.full(shape, 0.2)
    if name.rpartition(".")[2] == "coefficient" and tag == "mdsa":
        return 1 + 0.1 * n
    if len(shape) > 1:
        return n / np.sqrt(np.prod(shape[1:])) * _gain(tag, name)
    if name.endswith("bias"):
        return 0.02 * n + (0.5 if (tag, name) == ("wa", "out.2.bias") else 0)
    return 1 + 0.1 * n


def _gain(tag: str, name: str) -> float:
    if tag == "mn":
        return 0.1 if name in ("tail.weight", "sam12.conv2.weight", "sam23.conv2.weight") else 0.6
    if (tag, name) in (("mdsa", "conv_out.weight"), ("wa", "out.2.weight")):
        return 0.5
    return 3.0 if name.startswith("time_embed.") else 1.0
