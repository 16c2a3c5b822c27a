"""What strangers put beside a scene, drawn from a seed: masks, areas, metadata, configurations, model files.

    python tests/pipeline/fuzz_inputs.py 500        # a longer run than the tests'

Each case is read as a run would read it, and may end in nothing but an answer or an error of ours.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from raster_cases import plain
from rasterio.transform import Affine

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import read_model_config
from decr_scene.models.errors import DecrSceneError
from decr_scene.models.training.config import read_config
from decr_scene.pipeline.products.metadata import bands_of, facts_of, metadata_warnings
from decr_scene.pipeline.products.product import find_product
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.regions.mask_values import Rule
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.tiling.grid import Span

SEED = 20261126
SHAPE = (40, 50)

Random = np.random.Generator

WORDS = (
    "clear",
    "cloud",
    "shadow",
    "SCL",
    "QA_PIXEL",
    "fmask",
    "udm2",
    "udm",
    "",
    "red",
    "\x00",
    "ÿ",
    "clm",
    "hls fmask",
)
VALUES = (
    0,
    1,
    2,
    3,
    4,
    9,
    64,
    128,
    255,
    1024,
    21824,
    22280,
    65535,
    -1,
    -32768,
    0.4,
    0.5,
    1e30,
    np.nan,
    np.inf,
)
DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float32",
    "float64",
    "complex64",
)
PLACES = (
    {},
    {"crs": None},
    {"transform": None},
    {"crs": "EPSG:4326"},
    {"transform": Affine(0, 0, 1, 0, 0, 2)},
)

METADATA = (
    '<?xml version="1.0" encoding="utf-8"?><ProductMetaData><CenterTime>2025-01-12 08:40:05</CenterTime>'
    "<Bands>1,2,3,4</Bands><Gain>0.1,0.2,0.3,0.4</Gain><Bias>0 0 0 1</Bias>"
    "<TopLeftLongitude>116.5</TopLeftLongitude>"
    "<DATE_ACQUIRED>2024-03-15</DATE_ACQUIRED><SCENE_CENTER_TIME>02:53:10Z</SCENE_CENTER_TIME></ProductMetaData>"
)
CONFIGURATION = Path(__file__).parents[2] / "docs/recipes/rice2-reference.toml"
TOKENS = (
    '"x"',
    "7",
    "-1",
    "0",
    "1e400",
    "nan",
    "NaN",
    "null",
    "true",
    "{}",
    "[]",
    "[[1]]",
    '""',
    "1.5",
    "1e9",
)
PIECES = (
    "{",
    "}",
    "[",
    "]",
    '"',
    "<",
    ">",
    "&",
    ",",
    ":",
    "null",
    "NaN",
    "1e999",
    "-1",
    "\x00",
    "é",
    "\ud800",
    "0" * 400,
    "[" * 2000,
)


class Cases:
    """All kinds of inputs, each made and read in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scene = RasterioScene.open(plain(folder / "scene.tif", SHAPE))

    def mask(self, rng: Random) -> None:
        """A raster of few or many values, of any type and place, under any name."""
        dtype, count = str(rng.choice(DTYPES)), int(rng.choice([1, 1, 1, 2, 3, 8]))
        palette = np.array(rng.choice(np.array(VALUES), int(rng.integers(1, 5))))
        palette[0] = 0 if rng.random() < 0.7 else palette[0]
        with np.errstate(all="ignore"):
            pixels = rng.choice(palette, (count, *SHAPE)).astype(dtype)
        profile = {"crs": self.scene.crs, "transform": self.scene.transform} | PLACES[
            rng.integers(len(PLACES))
        ]
        name = "".join(c for c in str(rng.choice(WORDS)) if c not in "\x00/") or "mask"
        path = self.folder / f"{name}.tif"
        height, width = SHAPE
        made = {"count": count, "height": height, "width": width, "dtype": dtype, **profile}
        with rasterio.open(path, "w", driver="GTiff", **made) as file:
            file.write(pixels)
            file.descriptions = [str(rng.choice(WORDS)).replace("\x00", "") for _ in range(count)]
        if rng.random() < 0.2:
            path.write_bytes(cut(path.read_bytes(), rng))
        values = (
            str(rng.choice(["3,8-10", "bit3", "2:1", "1", "-1", "bit0-31"])) if rng.random() < 0.3 else None
        )
        cloud = MaskFile.read(str(path), self.scene, values).cloud(Span(0, 0, *SHAPE))
        assert cloud.dtype == bool
        assert cloud.shape == SHAPE

    def mask_values(self, rng: Random) -> None:
        """What a user might type."""
        alphabet = "0123456789,,--::bit. x"
        _, values = Rule.parse("".join(rng.choice(list(alphabet), int(rng.integers(0, 12)))))
        assert values.hold(np.array([0, 1, 5, 255])).dtype == bool

    def area(self, rng: Random) -> None:
        """GeoJSON with something else in it."""
        path = self.folder / "area.geojson"
        left, bottom, right, top = rasterio.transform.array_bounds(*SHAPE, self.scene.transform)
        ring = [[left, bottom], [right, bottom], [right, top], [left, bottom]]
        feature = {
            "type": "Feature",
            "properties": {},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        named = {"type": "name", "properties": {"name": "EPSG:32650"}}
        path.write_bytes(
            spoilt(json.dumps({"type": "FeatureCollection", "crs": named, "features": [feature]}), rng)
        )
        assert 0 <= Aoi.read(str(path), self.scene).soft(Span(0, 0, *SHAPE)).max() <= 1

    def metadata(self, rng: Random) -> None:
        """A vendor's XML with something else in it."""
        Path(self.folder / "scene.xml").write_bytes(spoilt(METADATA, rng))
        product = find_product(self.folder / "scene.tif")
        bands_of(product)
        metadata_warnings(product)
        json.dumps(facts_of(product, self.folder), allow_nan=False)

    def configuration(self, rng: Random) -> None:
        """TOML with something else in it."""
        path = self.folder / "run.toml"
        path.write_bytes(spoilt(CONFIGURATION.read_text(), rng))
        read_config(path)

    def model(self, rng: Random) -> None:
        """The head of a model file with something else in it."""
        path, raw = self.folder / "m.safetensors", Path(find_model("rice2")).read_bytes()
        size = int.from_bytes(raw[:8], "little")
        head = spoilt(raw[8 : 8 + size].decode(), rng)
        length = len(head) if rng.random() < 0.8 else int(rng.integers(0, 1 << 62))
        path.write_bytes(length.to_bytes(8, "little") + head + raw[8 + size :])
        read_model_config(path)


KINDS = ("mask", "mask_values", "area", "metadata", "configuration", "model")


def cut(raw: bytes, rng: Random) -> bytes:
    """Only a part."""
    return raw[: int(rng.integers(0, len(raw)))]


def spoilt(text: str, rng: Random) -> bytes:
    """A text with a value exchanged, or pieces taken out, put in or exchanged, in some encoding."""
    if rng.random() < 0.5:
        values = list(re.finditer(r'"[^"]*"|[-+.e0-9]+', text))
        place = values[int(rng.integers(len(values)))]
        return (text[: place.start()] + str(rng.choice(TOKENS)) + text[place.end() :]).encode()
    for _ in range(int(rng.integers(1, 4))):
        first, last = sorted(int(place) for place in rng.integers(0, len(text) + 1, 2))
        last = min(last, first + int(rng.integers(0, 30)))
        text = text[:first] + str(rng.choice(PIECES)) * int(rng.integers(0, 3)) + text[last:]
    raw = text.encode(str(rng.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"])), "replace")
    return cut(raw, rng) if rng.random() < 0.1 else raw


def outcome(number: int) -> tuple[str, str]:
    """What became of a case: ``read``, ``refused``, or ``wrong``; and its traceback."""
    rng, kind = np.random.default_rng([SEED, number]), KINDS[number % len(KINDS)]
    with tempfile.TemporaryDirectory() as folder:
        case: Callable[[Random], Any] = getattr(Cases(Path(folder)), kind)
        try:
            case(rng)
        except DecrSceneError as error:
            lines = str(error).strip().splitlines()
            return (
                ("refused", "")
                if len(lines) == 1
                else ("wrong", f"{kind} {number}: {len(lines)} lines: {error}")
            )
        except Exception:
            return "wrong", f"{kind} {number}:\n{traceback.format_exc()}"
    return "read", ""


def main() -> None:
    """Run so many cases, from the number that may follow, and print what was wrong."""
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = Counter()
    for number in range(first, first + int(sys.argv[1])):
        verdict, told = outcome(number)
        found[KINDS[number % len(KINDS)], verdict] += 1
        if told:
            print(told)
    print(dict(sorted(found.items())))


if __name__ == "__main__":
    main()
