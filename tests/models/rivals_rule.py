"""The rule that fills the networks of the paper's other systems, as their golden files have it."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

GAINS = {"spagan": 1.1, "amgan": 1.3, "cloudnet": 1.2}
FACTORS = {
    ("spagan", "gen.gen.conv_out.0.weight"): 0.5,
    ("spagan", "gen.gen.SAM1.conv_out.weight"): 3,
    ("amgan", "gen.gen.conv_out.0.weight"): 0.3,
    ("amgan", "gen.gen.det_conv_mask.0.weight"): 2,
    ("cvae", "decoder.layer5.4.weight"): 0.1,
    ("cloudnet", "conv2d_33.weight"): 0.3,
    ("diffcr", "ending.weight"): 0.15,
}


def filled(tag: str, shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    """Published state dict of a system, all values by the rule."""
    return {name: _value(tag, name, shape, seed) for name, shape in shapes.items()}


def _value(tag: str, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    key = f"{seed}:{tag}:{name}".encode("ascii")
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key))).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if leaf in ("position_embeddings", "mu_tokens", "log_var_tokens"):
        v = n
    elif leaf == "running_mean":
        v = 0.1 * n
    elif len(shape) >= 2:
        bright = tag == "cvae" and name.startswith(("decoder.layer", "decoder.up"))
        v = n / np.sqrt(np.prod(shape[1:])) * (2 if bright else GAINS.get(tag, 1))
    elif leaf == "bias":
        v = 0.02 * n
    elif tag == "cvae" and name.startswith("decoder."):
        v = 0.2 + 0.05 * n
    else:
        v = 1 + 0.1 * n
    return torch.from_numpy(np.asarray(v * FACTORS.get((tag, name), 1)).astype(np.float32))
