"""Detect cloud and shadow in blue, green, red and near infrared with `ukis-csmask`, imported on first use.

A network of the German Aerospace Center (Apache-2.0), trained on CloudSEN12+ and SPARCS at 10 to 30 m. It
takes top-of-atmosphere reflectance in windows of 256 px, and answers with clear, cloud and shadow. The
package gives hard classes; its network, which is called here, gives probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from dask.system import CPU_COUNT

from decr_scene.models.arrays import Float
from decr_scene.pipeline.errors import OptionError

BANDS = ("blue", "green", "red", "nir")
"""Its bands, in order."""

SIDE = 256
"""Side of its window, px."""

REACH = 48
"""Windows overlap by twice this, px."""

CLEAR, CLOUD, SHADOW = range(3)

THREADS = 4
"""Greatest number of windows at a time, of some 200 MB and one thread each: sums are reproducible."""


def installed_version() -> str | None:
    """Return the version of the package, or ``None`` if it or a dependency is not installed."""
    if find_spec("onnxruntime") is None:
        return None
    try:
        return version("ukis-csmask")
    except PackageNotFoundError:
        return None


def probabilities(windows: Sequence[Float]) -> list[Float]:
    """Return probabilities of clear, cloud and shadow of windows of reflectance.

    Args:
        windows: ``(4, h, w)``, `BANDS`, up to `SIDE` px a side; smaller ones are mirrored up to it.

    Returns:
        ``(3, h, w)`` for each, which sum to 1.

    Raises:
        OptionError: The package is not installed.
    """
    session, mean, std = open_network()

    def answer(window: Float) -> Float:
        height, width = window.shape[1:]
        extended = np.pad(window, ((0, 0), (0, SIDE - height), (0, SIDE - width)), mode="symmetric")
        logits = session.run(None, {session.get_inputs()[0].name: ((extended - mean) / std)[None]})[0][0]
        odds = np.exp(logits - logits.max(axis=0))
        return np.asarray((odds / odds.sum(axis=0))[:, :height, :width], np.float32)

    with ThreadPoolExecutor(min(THREADS, CPU_COUNT)) as pool:
        return list(pool.map(answer, windows))


@lru_cache(maxsize=2)
def open_network(inner: tuple[str, ...] = ()) -> tuple[Any, Float, Float]:
    """Open the network, with mean and standard deviation of its bands, each ``(4, 1, 1)``.

    Args:
        inner: Names of tensors inside it that it is to give as well.

    Raises:
        OptionError: The package is not installed, or its network has no such tensors.
    """
    if installed_version() is None:
        raise OptionError("detector ukis is not installed: pip install ukis-csmask onnxruntime")
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    package = find_spec("ukis_csmask")
    assert package is not None, "its version is known"
    assert package.origin is not None, "it is a package"
    path = Path(package.origin).parent / "model_4b_l1c.onnx"
    statistics = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["data"][
        "dataset_statistics"
    ]
    assert statistics["band_names"] == list(BANDS), statistics
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = path.read_bytes() + _as_outputs(inner)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Fail as error:
        raise OptionError(
            f"ukis-csmask {installed_version()} has another network than the one known here, "
            "that of 1.0.0: pip install ukis-csmask==1.0.0"
        ) from error
    mean, std = (np.array(values, np.float32)[:, None, None] for values in statistics["img"])
    return session, mean, std


def _as_outputs(names: Sequence[str]) -> bytes:
    """Return bytes that, put behind those of an ONNX model, make outputs of tensors inside it.

    Two messages of protobuf in a row are read as one, with the lists of both; so this is a model (field 7:
    its graph) with a graph of nothing but outputs (field 12), of which only the names are given (field 1).
    """
    return _field(7, b"".join(_field(12, _field(1, name.encode())) for name in names))


def _field(number: int, content: bytes) -> bytes:
    """Encode a field of protobuf: key, length in groups of 7 bits, the lowest first, and content."""
    length, groups = len(content), []
    while length > 127:
        groups.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *groups, length]) + content
