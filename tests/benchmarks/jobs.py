"""What a benchmark measures, each job a process of its own: ``python jobs.py JOB '{"src": …}'``.

A job prints one line of JSON, if it has anything to say; its CPU time and memory are read off by the parent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.allocation import share_one_heap

Float = NDArray[np.float32]
BLOCK = 512
PROFILE = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 2}
PLACE = {"crs": "EPSG:32650", "transform": Affine(0.5, 0, 500000, 0, -0.5, 4000000)}


class Sleeper:
    """A model that takes its time and no processor; it darkens, so that something is written.

    Args:
        seconds: For a tile.
        log: Folder for what it did: one file a process, one line ``begin end tiles`` a batch.
        needs_noise: Whether noise is to be drawn for it here; a GPU draws its own.
    """

    def __init__(self, seconds: float, log: str, needs_noise: bool) -> None:
        self.seconds, self.log, self.needs_noise = seconds, log, needs_noise

    def __repr__(self) -> str:
        return f"Sleeper({self.seconds})"

    def __call__(self, tiles: Float, noise: Float | None) -> Float:
        begin = time.monotonic()
        time.sleep(self.seconds * len(tiles))
        with open(f"{self.log}/{os.getpid()}", "a") as file:
            file.write(f"{begin} {time.monotonic()} {len(tiles)}\n")
        tiles -= np.float32(0.1)  # in place: it has arrays of its own
        return np.maximum(tiles, -1, out=tiles)


class Neighbourly:
    """A restorer that looks around and at the noise, as a network does, and always says the same."""

    def __repr__(self) -> str:
        return "Neighbourly()"

    def __call__(self, tiles: Float, noise: Float) -> Float:
        from scipy.ndimage import uniform_filter

        return np.clip(0.7 * uniform_filter(tiles, (0, 0, 9, 9)) + np.float32(0.05) * noise, -1, 1)


def scene(dst: str, side: int, bands: int, dtype: str = "uint16") -> None:
    """Draw ground with texture and sensor noise: 11 bits of 16, as satellites deliver."""
    profile = {**PROFILE, "driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": dtype}
    rng, x = np.random.default_rng(0), np.arange(side, dtype=np.float32)
    top = 180 if dtype == "uint8" else 1500
    with rasterio.open(dst, "w", **profile, bigtiff="IF_SAFER", **PLACE) as dataset:
        for row in range(0, side, BLOCK):
            y = np.arange(row, min(side, row + BLOCK), dtype=np.float32)[:, None]
            ground = top * (0.5 + 0.2 * np.sin(y / 37) * np.cos(x / 23) + 0.1 * np.sin((x + 2 * y) / 301))
            for band in range(1, bands + 1):
                noise = rng.integers(0, top // 20, ground.shape, dtype=np.int16)
                window = Window(col_off=0, row_off=row, width=side, height=len(y))
                dataset.write((ground * (0.6 + 0.1 * band) + noise + 1).astype(dtype), band, window=window)


def cloud(dst: str, side: int, share: float) -> None:
    """A mask with one square cloud that covers ``share`` of it."""
    width = round(side * share**0.5)
    mask = np.zeros((side, side), np.uint8)
    first = (side - width) // 2
    mask[first : first + width, first : first + width] = 1
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8"}
    with rasterio.open(dst, "w", **profile, compress="deflate", **PLACE) as dataset:
        dataset.write(mask, 1)


def copy(src: str, dst: str, overviews: bool = False) -> None:
    """Block by block, with rasterio alone: what the pipeline's cost is compared to."""
    with rasterio.open(src) as source:
        profile = {**source.profile, **PROFILE, "driver": "GTiff", "bigtiff": "IF_SAFER"}
        with rasterio.open(dst, "w", **profile) as target:
            for _, window in source.block_windows(1):
                target.write(source.read(window=window), window=window)
    if overviews:
        levels = [2**k for k in range(1, 20) if profile["width"] >> (k - 1) > BLOCK]
        with rasterio.Env(PREDICTOR_OVERVIEW="2"), rasterio.open(dst, "r+") as target:
            target.build_overviews(levels, Resampling.average)


def identity(src: str, dst: str) -> None:
    """The whole road, without a model."""
    from decr_scene.pipeline.run import process_scene

    process_scene(src, dst, model="identity", compress="deflate", blocksize=BLOCK)


def sleeping(src: str, dst: str, seconds: float, log: str, needs_noise: bool = False, **options: Any) -> None:
    """With a model that sleeps."""
    from decr_scene.pipeline.run import process_scene

    report = process_scene(src, dst, restorer=Sleeper(seconds, log, needs_noise), **options)
    print(json.dumps({"tiles": report.tiles, "seconds": report.seconds}))


def sleeping_on_cluster(src: str, dst: str, seconds: float, log: str, workers: int, **options: Any) -> None:
    """The same on a cluster that is there already."""
    from distributed import LocalCluster

    os.environ["OMP_NUM_THREADS"] = "1"
    with LocalCluster(
        n_workers=workers, threads_per_worker=2, resources={"GPU": 1}, dashboard_address=":0"
    ) as cluster:
        cluster.wait_for_workers(workers, timeout=300)
        sleeping(src, dst, seconds, log, scheduler=cluster.scheduler_address, **options)


def network(side: int) -> None:
    """A first guess and samples of `default`, in turns: the least seconds of four of each.

    In fp32 and bf16 as `process` computes, and in fp32 by what torch has of its own, without `kernels`.
    """
    import torch

    from decr_scene.models import kernels
    from decr_scene.models.model import load_model

    torch.set_num_threads(1)
    models = {
        precision: load_model("default", device="cpu", precision=precision) for precision in ("fp32", "bf16")
    }
    models["plain"], suits = models["fp32"], kernels.suits
    generator = torch.Generator().manual_seed(0)
    window, tile, noise = (
        torch.rand(1, 4, width, width, generator=generator) * 2 - 1 for width in (side, 256, 256)
    )
    context = torch.zeros(1, 7, side // 16, side // 16)
    told: dict[str, float] = {}
    for _ in range(4):
        for precision, model in models.items():
            kernels.suits = suits if precision != "plain" else lambda x: False
            calls = {
                "guess": lambda model=model: model.reference(window, context, 512),
                "sample": lambda model=model: model.sample(tile, noise=noise, reference=-tile),
            }
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                key = f"{name} {precision}"
                told[key] = min(told.get(key, float("inf")), time.perf_counter() - began)
    print(json.dumps(told))


def neighbourly(src: str, dst: str, **options: Any) -> None:
    """With a restorer whose result may depend on nothing but place and seed."""
    from decr_scene.pipeline.run import process_scene

    process_scene(src, dst, restorer=Neighbourly(), **options)


JOBS = {
    job.__name__: job
    for job in (scene, cloud, copy, identity, network, sleeping, sleeping_on_cluster, neighbourly)
}

if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # `copy` and its like are names of the library's too
    share_one_heap()  # as `decr-scene` does
    JOBS[sys.argv[1]](**json.loads(sys.argv[2]))
