"""Damaged GeoTIFFs, drawn from a seed: what a broken disk, transfer or writer may leave behind.

    python tests/pipeline/fuzz_cases.py 500        # a longer run than the tests'

Each case goes through `process_scene` in a child process, which may not crash, hang, swallow the machine's
memory or tell anything but an error of ours; an output that it leaves must have the pixels that GDAL reads.
"""

from __future__ import annotations

import multiprocessing
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from raster_cases import draw, write

SEED = 20240607
TIMEOUT = 200.0
"""Seconds for one case; most take a tenth of one, one with 65535 rows takes some on an idle machine."""

MEMORY = 3 << 30
"""Bytes of data a child may have, its libraries included."""

Random = np.random.Generator
Damage = Callable[[bytearray, Random], bytearray]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: ``refused`` or ``same``; never ``wrong``, ``error``, ``died`` or ``hung``."""

    number: int
    verdict: str
    told: str

    @property
    def good(self) -> bool:
        """Whether that is as it should be."""
        return self.verdict in ("refused", "same")


# -- the files -----------------------------------------------------------------------------------------------


def base_files(folder: Path) -> list[bytes]:
    """Small rasters of several layouts, to be damaged."""
    layouts: list[dict[str, Any]] = [
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0},
        {"compress": None},
        {"compress": "packbits", "interleave": "band"},
        {"compress": "zstd", "tiled": True, "blockxsize": 32, "blockysize": 32, "BIGTIFF": "YES"},
        {"compress": "deflate", "ENDIANNESS": "BIG"},
        {"compress": "jpeg", "tiled": True, "blockxsize": 64, "blockysize": 64},
    ]
    found = []
    for number, layout in enumerate(layouts):
        dtype = "uint8" if layout["compress"] == "jpeg" else ("uint16", "float32", "int16")[number % 3]
        if layout.get("compress") is None:
            layout = {**layout, "compress": "none"}
        path = write(folder / f"base{number}.tif", draw((90, 110), 3, dtype), **layout)
        found.append(path.read_bytes())
    return found


def damaged(bases: list[bytes], number: int) -> bytes:
    """Case ``number`` of the one endless row of damaged files."""
    rng = np.random.default_rng([SEED, number])
    data = bytearray(bases[int(rng.integers(len(bases)))])
    for _ in range(int(rng.integers(1, 4))):
        data = DAMAGES[int(rng.integers(len(DAMAGES)))](data, rng)
    return bytes(data)


def flip_bytes(data: bytearray, rng: Random) -> bytearray:
    """A few bytes anywhere."""
    for place in rng.integers(0, len(data), int(rng.integers(1, 12))) if data else ():
        data[place] = int(rng.integers(256))
    return data


def flip_header(data: bytearray, rng: Random) -> bytearray:
    """A few bytes of the header and the first directory."""
    for place in rng.integers(0, max(1, min(len(data), 300)), int(rng.integers(1, 6))):
        if place < len(data):
            data[place] = int(rng.integers(256))
    return data


def truncate(data: bytearray, rng: Random) -> bytearray:
    """The end is missing."""
    return data[: int(rng.integers(0, len(data) + 1))]


def cut_out(data: bytearray, rng: Random) -> bytearray:
    """A piece in the middle is missing."""
    first, last = sorted(int(v) for v in rng.integers(0, len(data) + 1, 2))
    return data[:first] + data[last:]


def blank(data: bytearray, rng: Random) -> bytearray:
    """A sector of zeros."""
    start = int(rng.integers(0, len(data) + 1))
    end = min(len(data), start + int(rng.integers(1, 2048)))
    data[start:end] = bytes(end - start)
    return data


def insane_tag(data: bytearray, rng: Random) -> bytearray:
    """One entry of the first directory with another value, count or type."""
    entries = list(tiff_entries(data))
    if not entries:
        return data
    place, wide, order = entries[int(rng.integers(len(entries)))]
    which = int(rng.integers(4))
    huge = int(rng.choice([0, 1, 7, 255, 4096, 65535, 2**20 + 3, 2**31 - 1, 2**32 - 1]))
    if which == 0:
        struct.pack_into(order + "H", data, place, int(rng.integers(254, 600)))  # the tag itself
    elif which == 1:
        struct.pack_into(order + "H", data, place + 2, int(rng.integers(0, 20)))  # its type
    elif which == 2:
        struct.pack_into(order + ("Q" if wide else "I"), data, place + 4, huge)  # its count
    else:
        struct.pack_into(order + ("Q" if wide else "I"), data, place + (12 if wide else 8), huge)  # its value
    return data


def insane_size(data: bytearray, rng: Random) -> bytearray:
    """Width, height, bands or blocks of another size, in the type that is there."""
    wanted = {256, 257, 277, 278, 322, 323, 258}
    for place, wide, order in tiff_entries(data):
        tag = struct.unpack_from(order + "H", data, place)[0]
        if tag in wanted and rng.random() < 0.4:
            value = int(rng.choice([0, 1, 3, 100, 1000, 40000, 65535]))
            struct.pack_into(order + "HH", data, place, tag, 3)
            start = place + (12 if wide else 8)
            struct.pack_into(order + "HH", data, start, value, 0)
    return data


def swap_tags(data: bytearray, rng: Random) -> bytearray:
    """Two entries of the first directory have each other's values."""
    entries = list(tiff_entries(data))
    if len(entries) < 2:
        return data
    one, other = rng.choice(len(entries), 2, replace=False)
    length = 16 if entries[0][1] else 8
    a, b = entries[int(one)][0] + 4, entries[int(other)][0] + 4
    data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    return data


DAMAGES: tuple[Damage, ...] = (
    *(flip_bytes, flip_header, truncate, cut_out, blank, insane_tag, insane_tag, insane_size, swap_tags),
)


def tiff_entries(data: bytearray) -> list[tuple[int, bool, str]]:
    """Offsets of the entries of the first directory, whether it is a BigTIFF's, and its byte order."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]), "")
    try:
        wide = bool(order) and struct.unpack_from(order + "H", data, 2)[0] == 43
        start = struct.unpack_from(order + ("Q" if wide else "I"), data, 8 if wide else 4)[0]
        count = struct.unpack_from(order + ("Q" if wide else "H"), data, start)[0]
    except struct.error:
        return []
    first, length = start + (8 if wide else 2), 20 if wide else 12
    places = range(first, first + min(count, 100) * length, length)
    return [(place, wide, order) for place in places if order and place + length <= len(data)]


# -- the run -------------------------------------------------------------------------------------------------


def judge(folder: Path, number: int, data: bytes) -> Outcome:
    """Process one damaged file and compare what comes out."""
    from decr_scene.models.errors import DecrSceneError
    from decr_scene.pipeline import process_scene

    source, out = folder / f"case{number}.tif", folder / f"out{number}.tif"
    source.write_bytes(data)
    try:
        process_scene(source, out, model="identity")
    except DecrSceneError as error:
        left = sorted(path.name for path in folder.glob(f"*out{number}.*"))
        if left:
            return Outcome(number, "wrong", f"refused, but left {left}: {error}")
        if "\n" in str(error).strip():
            return Outcome(number, "error", f"more than one line: {error}")
        return Outcome(number, "refused", str(error))
    except BaseException:
        return Outcome(number, "error", traceback.format_exc())
    return Outcome(number, *compare(source, out))


def compare(source: Path, out: Path) -> tuple[str, str]:
    """Whether an output has the pixels of its input."""
    try:
        one, other = pixels_of(source), pixels_of(out)
    except Exception as error:
        return "wrong", f"an output of what cannot be read: {error}"
    if one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes():
        return "same", ""
    return "wrong", f"{one.shape} {one.dtype} became {other.shape} {other.dtype}, or other pixels"


def pixels_of(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def work(folder: str, numbers: Any, outcomes: Any) -> None:
    """A child: case after case, telling which it is at, until there are no more."""
    import warnings

    warnings.simplefilter("ignore")  # damaged rasters make GDAL warn; what counts is how the program ends
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 30, 4 << 30))
    bases = [path.read_bytes() for path in sorted(Path(folder).glob("base*.tif"))]
    while (number := numbers.get()) is not None:
        outcomes.put((number, None))
        outcomes.put((number, judge(Path(folder), number, damaged(bases, number))))
        for path in Path(folder).glob(f"*{number}.*"):
            if path.name.startswith(("case", "out")):
                path.unlink()


def run(numbers: list[int], workers: int = 2) -> list[Outcome]:
    """Judge cases in children; one that dies or hangs costs its case, not the run."""
    with tempfile.TemporaryDirectory() as folder:
        base_files(Path(folder))
        parts = [numbers[first::workers] for first in range(workers)]
        children = [_Child(folder, part) for part in parts if part]
        try:
            while any(child.left for child in children):
                for child in children:
                    child.look()
                time.sleep(0.02)
        finally:
            for child in children:
                child.stop()
        found = [outcome for child in children for outcome in child.found]
    return sorted(found, key=lambda outcome: outcome.number)


class _Child:
    """A process and the cases that are left to it."""

    def __init__(self, folder: str, numbers: list[int]) -> None:
        self.folder, self.left = folder, list(numbers)
        self.found: list[Outcome] = []
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.numbers, self.outcomes = context.Queue(), context.Queue()
        for number in [*self.left, None]:
            self.numbers.put(number)
        self.process = context.Process(target=work, args=(self.folder, self.numbers, self.outcomes))
        self.process.start()
        self.since = time.monotonic() + 30  # time to import everything

    def look(self) -> None:
        if not self.left:
            return
        alive = self.process.is_alive()
        while not self.outcomes.empty():
            number, outcome = self.outcomes.get()
            self.since = time.monotonic()
            if outcome is not None:
                self.found.append(outcome)
                self.left.remove(number)
        if not self.left:
            return
        if not alive:
            self.lose("died", f"exit code {self.process.exitcode}")
        elif time.monotonic() - self.since > TIMEOUT:
            self.lose("hung", f"for more than {TIMEOUT} s")

    def lose(self, verdict: str, told: str) -> None:
        """The case at hand is lost; another child takes the rest."""
        self.stop()
        self.found.append(Outcome(self.left.pop(0), verdict, told))
        if self.left:
            self.start()

    def stop(self) -> None:
        if self.process.is_alive() and self.left:
            self.process.kill()
        self.process.join()
        for queue in (self.numbers, self.outcomes):
            queue.close()
            queue.cancel_join_thread()


def main() -> None:
    """Run as many cases as the command line says, from the number that it may say, too."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.monotonic()
    found = run(list(range(first, first + count)))
    for outcome in found:
        if not outcome.good:
            print(f"case {outcome.number}: {outcome.verdict}: {outcome.told}")
    counts = Counter(outcome.verdict for outcome in found)
    print(f"{len(found)} cases in {time.monotonic() - began:.0f} s: {dict(counts)}")
    sys.exit(any(not outcome.good for outcome in found))


if __name__ == "__main__":
    main()
