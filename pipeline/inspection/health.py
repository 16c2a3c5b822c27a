"""Examine this installation: its parts, and a small scene processed on trial."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import torch
from dask.system import CPU_COUNT
from rasterio.transform import from_origin

from decr_scene.models.arrays import Pixels
from decr_scene.models.bundled import bundled_models
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.run import process_scene

LIBRARIES = (
    "torch",
    "rasterio",
    "dask",
    "distributed",
    "xarray",
    "numpy",
    "numba",
    "onnxruntime",
    "ukis-csmask",
)

TRIAL = (256, 256)
"""``(height, width)`` of the trial's scene, px: one tile."""


def examine(trial: bool = True) -> dict[str, Any]:
    """List the installed parts and the hardware, and process a small scene.

    Args:
        trial: Process the scene, with the bundled model ``default`` at its own steps.

    Returns:
        Plain values, ready for JSON; ``trial`` has ``ok`` and, if it is not, the reason.
    """
    temporary = tempfile.gettempdir()
    return {
        "decr-scene": version("decr-scene"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "gdal": rasterio.__gdal_version__,
        "devices": _devices(),
        "processor cores": CPU_COUNT,
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "free disk": f"{shutil.disk_usage(temporary).free / 1e9:.1f} GB in {temporary}",
        "models": list(bundled_models()),
        "trial": _trial() if trial else None,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _devices() -> list[str]:
    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return ["cpu", *(f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in cards)]


def _trial() -> dict[str, Any]:
    """Process a synthetic scene: a veil must become thinner, and georeferencing must stay."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scene, clean = Path(folder) / "scene.tif", Path(folder) / "clean.tif"
        before = write_sample_scene(scene)
        try:
            report = process_scene(scene, clean, model="default")
            with rasterio.open(clean) as dataset:
                changed = bool((dataset.read() != before).any())
        except (DecrSceneError, OSError, RuntimeError, ImportError) as error:
            return {"ok": False, "reason": " ".join(f"{type(error).__name__}: {error}".split())}
    failed = [name for name, good in report.checks.items() if not good]
    failed += [] if changed else ["nothing was changed under the cloud"]
    seconds = round(time.perf_counter() - began, 1)
    return {"ok": not failed, "seconds": seconds} | ({"reason": ", ".join(failed)} if failed else {})


def write_sample_scene(
    path: Path,
    shape: tuple[int, int] = TRIAL,
    spots: tuple[tuple[int, int, int], ...] = ((80, 90, 40), (190, 180, 30)),
) -> Pixels:
    """Write a scene of smooth ground and some clouds: blue, green, red and near infrared, uint16.

    Args:
        path: The file.
        shape: ``(height, width)``, px.
        spots: Row, column and radius of each cloud, px.

    Returns:
        ``(4, height, width)`` digital numbers.
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    ground = 1500 + 500 * np.sin(rows / 23) * np.cos(cols / 31)
    tones = np.array([0.6, 0.8, 1.0, 1.8])[:, None, None] * ground
    cloud = np.max([np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * s**2)) for r, c, s in spots], axis=0)
    pixels: Pixels = np.round(tones * (1 - 0.9 * cloud) + 0.9 * cloud * 9000).astype(np.uint16)
    place = {"crs": "EPSG:32650", "transform": from_origin(400000, 4400000, 10, 10)}
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "height": shape[0], "width": shape[1]}
    with rasterio.open(path, "w", **profile, **place) as dataset:
        dataset.write(pixels)
        dataset.descriptions = ("blue", "green", "red", "nir")
    return pixels
