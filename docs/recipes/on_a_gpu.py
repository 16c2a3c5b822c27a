"""Train networks on a card in minutes: images as one file, crops drawn by all cores, held on the card.

    python on_a_gpu.py pack DATA images.zip RUN.toml [RUN.toml ...]
    python on_a_gpu.py train images.zip OUT RUN.toml:MINUTES [RUN.toml:MINUTES ...] [--init MODEL ...]

`pack` takes what the runs would read. `train` trains them one after the other: each begins with what the
ones before have reached, and its learning rate falls to a hundredth over its minutes, however many steps
those are. OUT gets the averaged weights of what each run has reached, of the networks of its stage, in half
precision and in files of 15 MiB at most, ``RUN-1.pt``, ``RUN-2.pt``, .., which ``decr-scene train --init``
takes. Where the card is, numpy, scipy, Pillow, safetensors and torch are needed, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import mmap
import os
import pickle
import signal
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.contexts import CELL
from decr_scene.models.data.crops import area_reduced
from decr_scene.models.data.source import Batch, Pair, PairSource, draw_crop, shares_of
from decr_scene.models.training.config import RunConfig, read_config
from decr_scene.models.training.loop import CHECKPOINT, Trainer
from decr_scene.models.training.weights import write_checkpoint

Array = NDArray[Any]

HALVES = np.float16
"""What crops are carried and held as; its coarsest step is a sixteenth of a DN of 255."""

QUALITY = 90
"""Of the pictures that images are packed as."""


def as_picture(bands: Array, quality: int) -> bytes:
    """Pack one to three bands, ``(C, H, W)`` in [-1, 1], without subsampling of colour."""
    levels = np.clip(np.rint((bands + 1) * 127.5), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1))
    file = io.BytesIO()
    image.save(file, "AVIF", quality=quality, subsampling="4:4:4", speed=6)
    return file.getvalue()


def as_bands(data: bytes, count: int) -> Array:
    """Unpack ``count`` bands, float32 ``(C, H, W)`` in [-1, 1]."""
    image = Image.open(io.BytesIO(data))
    levels = np.asarray(image.convert("L" if count == 1 else "RGB"))
    bands = levels[None] if count == 1 else np.moveaxis(levels, -1, 0)
    return np.ascontiguousarray(bands, np.float32) / np.float32(127.5) - 1


class Packer:
    """Writes every band of every image once, however many runs and sources hold it."""

    def __init__(self, archive: zipfile.ZipFile, quality: int) -> None:
        self.archive, self.quality = archive, quality
        self.places: dict[str, tuple[str, int]] = {}

    def image(self, image: Any) -> list[tuple[str, int]]:
        """Pack an image ``(C, H, W)``; return file and place in it of each band."""
        bands = [np.asarray(image[i : i + 1, :, :]) for i in range(image.shape[0])]
        names = [hashlib.sha256(band.tobytes()).hexdigest()[:16] for band in bands]
        new = [i for i, name in enumerate(names) if name not in self.places and name not in names[:i]]
        for some in (new[:3], new[3:]):
            self._write([(names[i], bands[i]) for i in some])
        return [self.places[name] for name in names]

    def _write(self, bands: list[tuple[str, Array]]) -> None:
        for group in [bands] if len(bands) in (1, 3) else [[band] for band in bands]:
            if group:
                file = f"{group[0][0]}-{len(group)}"
                self.archive.writestr(file, as_picture(np.concatenate([b for _, b in group]), self.quality))
                self.places |= {name: (file, place) for place, (name, _) in enumerate(group)}


def pack(data: Path, out: Path, runs: list[Path], quality: int) -> None:
    """Write the images of runs, and how their sources are made of them."""
    from decr_scene.pipeline.training.stage import sources_of

    table: dict[str, Any] = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        packer = Packer(archive, quality)
        for config in map(read_config, runs):
            for part in config.data:
                if _key(config, part) not in table:
                    (source,), _ = sources_of(replace(config, data=(part,), validation=None), data)
                    table[_key(config, part)] = [
                        (pair.name, packer.image(pair.cloudy), packer.image(pair.clear), pair.tone)
                        for pair in source.pairs[0]
                    ]
        archive.writestr("sources", pickle.dumps(table))
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {len(packer.places)} bands")


def _key(config: RunConfig, part: DataConfig) -> str:
    """Name what is read for a source: the same for all that differ only in what is drawn of it."""
    return repr(
        (part.clear, part.cloudy, part.folder, part.bands, part.tone, part.holdout, config.takes_held_out)
    )


def unpack(archive: Path, configs: list[RunConfig]) -> list[list[PairSource]]:
    """Make the sources of runs; an image that several of them hold is held once."""
    with zipfile.ZipFile(archive) as file:
        table = pickle.loads(file.read("sources"))  # written by `pack`
        wanted = {_key(config, part) for config in configs for part in config.data}
        used = {band[0] for key in wanted for pair in table[key] for band in (*pair[1], *pair[2])}
        packed = {name: file.read(name) for name in sorted(used)}
    with ThreadPoolExecutor() as pool:
        files = pool.map(lambda name: as_bands(packed[name], int(name.split("-")[1])), packed)
        bands = dict(zip(packed, files, strict=True))
    images: dict[str, Array] = {}

    def image(places: list[tuple[str, int]], factor: int) -> Array:
        key = json.dumps([factor, places])
        if key not in images:
            whole = np.stack([bands[file][place] for file, place in places])
            images[key] = whole if factor == 1 else area_reduced(whole, factor)
        return images[key]

    def source(config: RunConfig, part: DataConfig) -> PairSource:
        packed_pairs, factors = table[_key(config, part)], [round(1 / scale) for scale in part.scales]
        scales = tuple(
            tuple(Pair(name, image(y, f), image(x, f), tone) for name, y, x, tone in packed_pairs)
            for f in factors
        )
        return PairSource(part, scales)

    return [[source(config, part) for part in config.data] for config in configs]


class Crops:
    """Crops that other processes draw, in memory that they share with this one.

    The processes are forked, and hold the images together; so this must come before anything of a GPU. Each
    writes its crops in turn and then how many they are, which x86 and this process see in that order.

    Args:
        sources: Where crops are drawn from.
        config: The run.
        drawers: Number of processes.
        slots: Crops that one of them is ahead, at most.
    """

    def __init__(self, sources: list[PairSource], config: RunConfig, drawers: int, slots: int = 24) -> None:
        bands, cells = len(config.bands), -(-config.crop // CELL)
        shapes = [(bands, config.crop, config.crop)] * 2 + [(bands + 3, cells, cells)]
        self.rings = [_shared((drawers, slots, *shape), HALVES) for shape in shapes]
        self.done, self.taken = _shared((drawers,), np.int64), _shared((drawers,), np.int64)
        self.slots, self.processes = slots, []
        for drawer in range(drawers):
            process = os.fork()
            if process == 0:
                try:
                    os.nice(19)  # or the process that keeps the card busy waits for a core
                    self._draw(sources, config, drawer)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            self.processes.append(process)

    def _draw(self, sources: list[PairSource], config: RunConfig, drawer: int) -> None:
        shares, spectrum = shares_of(sources), config.spectrum or config.bands
        while True:
            count = int(self.done[drawer])
            if count - self.taken[drawer] >= self.slots:
                time.sleep(0.05)
                continue
            crop = draw_crop(sources, shares, (config.seed, drawer, count), config.crop, spectrum)
            for ring, part in zip(self.rings, crop, strict=True):
                ring[drawer, count % self.slots] = part
            self.done[drawer] = count + 1

    def take(self) -> list[tuple[Array, ...]]:
        """Take all crops that are there: cloudy, clear and context of each.

        Raises:
            RuntimeError: A process has ended, after what it printed.
        """
        if any(os.waitpid(process, os.WNOHANG)[0] for process in self.processes):
            raise RuntimeError("a process that draws crops has ended")
        crops = []
        for drawer, (done, taken) in enumerate(zip(self.done.tolist(), self.taken.tolist(), strict=True)):
            crops += [
                tuple(ring[drawer, count % self.slots].copy() for ring in self.rings)
                for count in range(taken, done)
            ]
            self.taken[drawer] = done
        return crops

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        self.processes = []


def _shared(shape: tuple[int, ...], kind: Any) -> Array:
    memory = mmap.mmap(-1, max(1, math.prod(shape) * np.dtype(kind).itemsize))
    return np.frombuffer(memory, kind).reshape(shape)


def held_batches(
    crops: Crops, config: RunConfig, device: torch.device, held: int
) -> Generator[Batch, None, None]:
    """Yield batches of the last ``held`` crops, which are held on the card; each is turned anew every time.

    To a noise network a crop counts by what its cloud changes, so that most of its work goes where there is
    most to do; a reference must see clear ground as often as it is met, or it moves it.
    """
    generator = torch.Generator(device).manual_seed(config.seed)
    pools: list[Tensor] = []
    weights, count = torch.zeros(held, device=device), 0
    while True:
        for parts in _stacked(crops.take()):
            new = [torch.from_numpy(part).to(device) for part in parts]
            if not pools:
                pools = [
                    torch.zeros((held, *part.shape[1:]), dtype=part.dtype, device=device) for part in new
                ]
            places = (count + torch.arange(len(new[0]), device=device)) % held
            for pool, part in zip(pools, new, strict=True):
                pool[places] = part
            change = (new[0].float() - new[1].float()).abs().mean((1, 2, 3))
            weights[places] = 0.04 + change if config.stage == "diffusion" else 1.0
            count += len(new[0])
        if count < min(held, 8 * config.batch):
            time.sleep(0.05)
            continue
        chosen = torch.multinomial(weights, config.batch, replacement=True, generator=generator)
        turns, mirrored = (int(torch.randint(n, ())) for n in (4, 2))
        yield Batch(*(_turned(pool[chosen].float(), turns, bool(mirrored)) for pool in pools))


def _turned(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    images = images.rot90(turns, (2, 3))
    return images.flip(3) if mirrored else images


def _stacked(crops: list[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
    return [tuple(np.stack(parts) for parts in zip(*crops, strict=True))] if crops else []


def train(
    archive: Path,
    out: Path,
    runs: list[tuple[Path, float]],
    initial: list[Path],
    device: str,
    drawers: int,
    held: int,
) -> None:
    """Train runs one after the other, each over its minutes."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    configs = [replace(read_config(path), checkpoint_every=10**9, validate_every=10**9) for path, _ in runs]
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    sources = unpack(archive, configs)
    print(f"{time.perf_counter() - began:.0f} s: images are there", flush=True)
    before = list(initial)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        crops = []
        for own, config in zip(sources, configs, strict=True):
            crops.append(Crops(own, config, drawers))
            stack.callback(crops[-1].close)
        for (path, minutes), config, drawn in zip(runs, configs, crops, strict=True):
            trainer = Timed.start(config, folder / path.stem, before, torch.device(device))
            assert isinstance(trainer, Timed)
            trainer.began, trainer.minutes = time.perf_counter(), minutes
            _train(trainer, drawn, out, path.stem, minutes, held)
            drawn.close()
            before.append(trainer.folder / CHECKPOINT)
            print(f"{time.perf_counter() - began:.0f} s: {path.stem} is done", flush=True)


class Timed(Trainer):
    """A run whose learning rate falls by the time that is over, not by steps."""

    began = 0.0
    minutes = math.inf

    def _rate(self) -> float:
        part = min(1.0, (time.perf_counter() - self.began) / (60 * self.minutes))
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))


def _train(trainer: Trainer, crops: Crops, out: Path, name: str, minutes: float, held: int) -> None:
    """Train one run; its averaged weights are written from time to time."""
    config = trainer.config
    kept = "reference." if config.stage == "reference" else "network."

    def keep() -> None:
        own = {n: v.cpu() for n, v in trainer.ema.state_dict().items() if n.startswith(kept)}
        for number, part in enumerate(cut(own), 1):
            state = {"config": f"{name}, step {trainer.step}", "ema": part}
            write_checkpoint(out / f"{name}-{number}.pt", state)

    drawn = held_batches(crops, config, trainer.device, held)
    trainer.run([], [], _reporter(name, keep), None, minutes, 0, drawn)
    keep()


def cut(weights: dict[str, Tensor], most: int = 15 * 2**20) -> list[dict[str, Tensor]]:
    """Cut weights into parts that are not larger than a file may be, in half precision."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, weight in weights.items():
        half = weight.half() if weight.is_floating_point() else weight
        size += half.nbytes
        if size > most and parts[-1]:
            parts.append({})
            size = half.nbytes
        parts[-1][name] = half
    return parts


def _reporter(
    name: str, keep: Callable[[], None], every: float = 20
) -> Callable[[int, dict[str, float]], None]:
    """Print means of the losses, and keep the weights, from time to time."""
    rows: list[dict[str, float]] = []
    last = time.perf_counter()

    def report(step: int, figures: dict[str, float]) -> None:
        nonlocal last
        rows.append(figures)
        if time.perf_counter() - last > every:
            means = {key: float(np.mean([row[key] for row in rows])) for key in figures}
            rate = len(rows) / (time.perf_counter() - last)
            print(
                name,
                step,
                f"{rate:.1f} steps/s",
                " ".join(f"{k} {v:.5f}" for k, v in means.items()),
                flush=True,
            )
            rows.clear()
            keep()
            last = time.perf_counter()

    return report


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("data", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("runs", type=Path, nargs="+")
    packing.add_argument("--quality", type=int, default=QUALITY)
    training = commands.add_parser("train")
    training.add_argument("archive", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("runs", nargs="+", help="RUN.toml:MINUTES")
    training.add_argument("--init", type=Path, action="append", default=[])
    training.add_argument("--device", default="cuda")
    training.add_argument("--drawers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    training.add_argument("--held", type=int, default=6144, help="crops on the card")
    given = parser.parse_args()
    if given.command == "pack":
        pack(given.data, given.out, given.runs, given.quality)
        return
    runs = [(Path(run.rsplit(":", 1)[0]), float(run.rsplit(":", 1)[1])) for run in given.runs]
    train(given.archive, given.out, runs, given.init, given.device, given.drawers, given.held)


if __name__ == "__main__":
    main()
