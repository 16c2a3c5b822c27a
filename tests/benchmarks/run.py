"""Measure the scene engine: ``python tests/benchmarks/run.py [BENCHMARK ...]``, see ``--help``; else all.

One table of ratios, each of things measured in this one run, the median of several repetitions. But for
``network`` they are of the engine alone. Takes half an hour and some gigabytes of disk.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

JOBS = Path(__file__).with_name("jobs.py")
BATCH = 16


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``aim`` is the bound, ``most`` whether from above."""

    name: str
    value: float
    aim: float
    unit: str = ""
    most: bool = True

    @property
    def met(self) -> bool:
        """Whether the value keeps to the aim."""
        return self.value <= self.aim if self.most else self.value >= self.aim

    def __str__(self) -> str:
        sign = "<=" if self.most else ">="
        said = "yes" if self.met else "NO"
        return f"{self.name:<62} {self.value:>9.3f} {self.unit:<8} {sign} {self.aim:<6g} {said}"


@dataclass(frozen=True)
class Used:
    """What a job used and printed: CPU seconds, of its children too; peak memory of the largest process."""

    seconds: float
    peak: int
    told: Any


@dataclass(frozen=True)
class Bench:
    """Where and how large.

    Args:
        folder: For scenes and outputs.
        sides: Of the scenes, px; cost compares the first two, memory neighbours.
        repeat: Repetitions, of which the median counts.
        hasty: Whether to let models sleep less: shows that the script works, and measures nothing.
    """

    folder: Path
    sides: tuple[int, ...]
    repeat: int
    hasty: bool

    def scene(self, side: int, bands: int, dtype: str = "uint16") -> str:
        """A scene, drawn once."""
        path = self.folder / f"scene_{side}_{bands}_{dtype}.tif"
        if not path.exists():
            do("scene", dst=str(path), side=side, bands=bands, dtype=dtype)
        return str(path)

    def cost(self) -> Iterator[Figure]:
        """CPU time of `identity` over that of a plain copy; size over that of a copy with overviews."""
        small, large = self.sides[:2]
        ratios, added, size = [], [], 0.0
        for _ in range(self.repeat):
            copies = [self._used("copy", side).seconds for side in (small, large)]
            ours = [self._used("identity", side).seconds for side in (small, large)]
            ratios.append(ours[0] / copies[0])
            added.append((ours[1] - ours[0]) / (copies[1] - copies[0]))
        size = self._size("identity", small) / self._size("copy", small, overviews=True)
        yield Figure(f"cost of identity over a copy, {small} px square", median(ratios), 3.5, "x")
        yield Figure(f"cost of a pixel added, {small} to {large} px square", median(added), 2.5, "x")
        yield Figure(f"size over copy with overviews, {small} px square", size, 1.01, "x")

    def memory(self) -> Iterator[Figure]:
        """Peak memory of `identity` as scenes grow, and the disk that it takes beside the output."""
        peaks = {}
        for side in self.sides:
            peaks[side] = median(self._used("identity", side).peak for _ in range(self.repeat))
        for side, peak in peaks.items():
            yield Figure(f"peak memory of identity, {side} px square", peak / 1e9, 1.2, "GB")
        for one, other in pairwise(self.sides):
            growth = (peaks[other] - peaks[one]) / (other**2 - one**2)
            yield Figure(f"memory for a pixel added, {one} to {other} px square", growth, 1, "bytes")
        side = self.sides[0]
        yield Figure(f"scratch over the raw scene, {side} px square", self._scratch(side), 1.0, "x")

    def scaling(self) -> Iterator[Figure]:
        """How busy one model is, and what several do together."""
        second = 0.1 if self.hasty else 1.0
        ten, forty, hundred = (600, 900, 1200) if self.hasty else (2400, 4900, 7600)
        busy, fast, fed, four, sixteen = [], [], [], [], []
        for _ in range(self.repeat):
            fast.append(self._pace("sleeping", forty, 0.02) * 0.02)
            fed.append(self._pace("sleeping", forty, 0.02, needs_noise=True) * 0.02)
            one = self._pace("sleeping", ten, second)
            busy.append(one * second)
            four.append(self._pace("sleeping", forty, second, workers=4) / one)
            alone = self._pace("sleeping", ten, 4 * second)
            sixteen.append(self._pace("sleeping_on_cluster", hundred, 4 * second, workers=16) / alone)
        yield Figure("share of the time that one model is busy, 1 s a batch", median(busy), 0.95, "", False)
        share = "share of the time that one model is busy, 0.02 s a batch"
        yield Figure(share, median(fast), 0.9, "", False)
        yield Figure("the same, with noise that is drawn here", median(fed), 0.9, "", False)
        yield Figure("four local workers over one, 1 s a batch", median(four), 3.7, "x", False)
        yield Figure("sixteen workers of a cluster over one, 4 s a batch", median(sixteen), 13, "x", False)

    def gating(self) -> Iterator[Figure]:
        """A mask with a cloud over a tenth of the scene against no mask.

        The scene is large, because tiles are: of 3072 px square, a tenth and its soft rim touch 18 % of them.
        """
        side, seconds = (700, 0.01) if self.hasty else (8192, 0.05)
        scene, mask = self.scene(side, 1, "uint8"), self.folder / "mask.tif"
        do("cloud", dst=str(mask), side=side, share=0.1)
        ratios = []
        for _ in range(self.repeat):
            whole = self._sleep("sleeping", scene, seconds)[0]["seconds"]["processing"]
            part = self._sleep("sleeping", scene, seconds, mask=str(mask))[0]["seconds"]["processing"]
            ratios.append(part / whole)
        yield Figure(f"time at a tenth cloud, {side} px square, {seconds} s a tile", median(ratios), 0.13)

    def network(self) -> Iterator[Figure]:
        """What bf16 gains on one core of this CPU over fp32, by torch alone and as `process` computes."""
        runs = [do("network", side=128 if self.hasty else 1024).told for _ in range(self.repeat)]
        for kind, key in (("first guess over a window", "guess"), ("samples of a tile", "sample")):
            for slower, said in (("plain", "fp32 of torch alone"), ("fp32", "fp32")):
                gained = median(told[f"{key} {slower}"] / told[f"{key} bf16"] for told in runs)
                yield Figure(f"{kind} of `default`: bf16 over {said}", gained, 2.5, "x", False)

    def determinism(self) -> Iterator[Figure]:
        """Different files from different batches and workers."""
        scene = self.scene(700 if self.hasty else 1500, 3)
        ways: list[dict[str, int]] = [{"batch_size": n} for n in (1, 5, 16)]
        ways += [{"workers": n} for n in ((2,) if self.hasty else (2, 4))]
        found = set()
        for way in ways:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                do("neighbourly", src=scene, dst=f"{folder}/out.tif", **way)
                found.add(hashlib.sha256(Path(folder, "out.tif").read_bytes()).hexdigest())
        yield Figure("files that differ: batches of 1, 5, 16; 1, 2, 4 workers", len(found) - 1, 0)

    def _used(self, job: str, side: int, **options: Any) -> Used:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return do(job, src=self.scene(side, 4), dst=f"{folder}/out.tif", **options)

    def _size(self, job: str, side: int, **options: Any) -> int:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            do(job, src=self.scene(side, 4), dst=f"{folder}/out.tif", **options)
            return Path(folder, "out.tif").stat().st_size

    def _scratch(self, side: int) -> float:
        """Most disk that hidden files take, but for the output in the making, over the raw size."""
        most, done = 0, threading.Event()

        def watch(folder: Path) -> None:
            nonlocal most
            while not done.wait(0.02):
                hidden = [file for file in folder.glob(".*") if not file.name.endswith(".cog.partial.tif")]
                with contextlib.suppress(FileNotFoundError):
                    most = max(most, sum(file.stat().st_blocks * 512 for file in hidden))

        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            watcher = threading.Thread(target=watch, args=(Path(folder),))
            watcher.start()
            do("identity", src=self.scene(side, 4), dst=f"{folder}/out.tif")
            done.set()
            watcher.join()
        return most / (side * side * 4 * 2)

    def _pace(self, job: str, side: int, seconds: float, **options: Any) -> float:
        """Batches a second, from the beginning of the first to the end of the last."""
        scene = self.scene(side, 1, "uint8")
        calls = self._sleep(job, scene, seconds / BATCH, batch_size=BATCH, **options)[1]
        tiles = sum(tiles for _, _, tiles in calls)
        began, ended = min(begin for begin, _, _ in calls), max(end for _, end, _ in calls)
        return tiles / BATCH / (ended - began)

    def _sleep(self, job: str, scene: str, seconds: float, **options: Any) -> tuple[Any, list[Any]]:
        """Run with a model that sleeps; its report and its calls."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            log = Path(folder, "log")
            log.mkdir()
            used = do(job, src=scene, dst=f"{folder}/out.tif", seconds=seconds, log=str(log), **options)
            lines = [line.split() for file in log.iterdir() for line in file.read_text().splitlines()]
            return used.told, [(float(begin), float(end), int(tiles)) for begin, end, tiles in lines]


def do(job: str, **arguments: Any) -> Used:
    """Run a job in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(JOBS), job, json.dumps(arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{job} failed: {arguments}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, json.loads(told or "null"))


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks asked for; 1 if an aim was missed."""
    names = ("cost", "memory", "scaling", "gating", "network", "determinism")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=["all"], metavar="|".join((*names, "all")))
    parser.add_argument("--sides", default="4096,8192,16384", help="of the scenes of cost and memory, px")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for scenes and outputs, up to 8 GB; they are removed")
    parser.add_argument("--hasty", action="store_true", help="only show that the script works")
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.what) - {*names, "all"}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = [name for name in names if {name, "all"} & set(parsed.what)]
    sides = tuple(int(side) for side in parsed.sides.split(","))
    missed = False
    if parsed.folder is not None:
        parsed.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parsed.folder, prefix="decr-scene-bench-") as folder:
        bench = Bench(Path(folder), sides, parsed.repeat, parsed.hasty)
        for name in chosen:
            benchmark: Callable[[], Iterator[Figure]] = getattr(bench, name)
            for figure in benchmark():
                print(figure, flush=True)
                missed |= not figure.met
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
