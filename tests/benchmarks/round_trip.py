"""What comes through of unusual rasters: a table, made by running them.

    python tests/benchmarks/round_trip.py DATA docs/round-trip.md

DATA has the folders `odd` and `scenes`; files drawn by script come on top. Each file goes through the
`identity` model. What is said of it is looked up in it, what came of it is what `verify_roundtrip` and a
comparison of the pixels found; what is refused is quoted.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

sys.path[:0] = [str(Path(__file__).parents[1] / "pipeline")]

import raster_cases as cases  # noqa: E402  # it lies where the path has just been led

from decr_scene.models.errors import DecrSceneError  # noqa: E402  # after the path, as above
from decr_scene.pipeline import process_scene  # noqa: E402  # after the path, as above
from decr_scene.pipeline.outputs.metadata_checks import verify_roundtrip  # noqa: E402  # after the path, as above

HEAD = """# What comes through

Every file went through `decr-scene process FILE --model identity`. *kept* means: all {count} properties that
`verify_roundtrip` compares are equal ({names}), and the pixels are identical, NaN and nodata too. What is
refused is quoted with its one line. Made by `python tests/benchmarks/round_trip.py`; GDAL {gdal}.
"""


def generated(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files drawn by script: every odd one of the tests, JPEG 2000, VRT, and 1 to 8 bands of all dtypes."""
    for name, make in cases.ODD.items():
        place = folder / name
        place.mkdir()
        yield name.replace("_", " "), make(place)
    for name, make in (("JPEG 2000", as_jpeg2000), ("tags and a mask behind a VRT", as_vrt_with_mask)):
        place = folder / name.replace(" ", "_")
        place.mkdir()
        yield name, make(place)
    for count in range(1, 9):
        dtype = ("uint8", "uint16", "int16", "float32")[count % 4]
        yield f"{count} bands of {dtype}", cases.plain(folder / f"bands{count}.tif", (150, 170), count, dtype)


def as_jpeg2000(folder: Path) -> Path:
    """A lossless JPEG 2000."""
    source = cases.described(folder / "for_jp2.tif", ("blue", "green", "red", "nir"))
    path = folder / "scene.jp2"
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    rasterio.shutil.copy(source, path, **options)
    return path


def as_vrt_with_mask(folder: Path) -> Path:
    """A VRT over a file with an internal mask."""
    path = folder / "over.vrt"
    path.write_text(cases.vrt_of(cases.internal_mask(folder)))
    return path


def describe(path: Path) -> str:
    """What is unusual about a raster, looked up in it."""
    try:
        with rasterio.open(path) as dataset:
            return ", ".join(_properties(dataset))
    except RasterioError as error:
        return f"does not open: {error}"


def _properties(dataset: Any) -> Iterator[str]:
    yield f"{dataset.driver}, {dataset.count} x {dataset.dtypes[0]}, {dataset.width} x {dataset.height} px"
    if dataset.compression is not None:
        yield dataset.compression.value.lower()
    if dataset.gcps[0]:
        yield f"{len(dataset.gcps[0])} GCPs"
    if dataset.rpcs is not None:
        yield "RPCs"
    if dataset.transform.is_identity:
        yield "no transform"
    elif dataset.transform.b or dataset.transform.d:
        yield "rotated"
    elif dataset.transform.e > 0:
        yield "south up"
    yield dataset.crs.to_string()[:24] if dataset.crs else "no CRS"
    if dataset.nodata is not None:
        yield f"nodata {dataset.nodata:g}"
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags:
        yield "alpha" if MaskFlags.alpha in flags else "mask"
    if any(scale != 1 for scale in dataset.scales) or any(dataset.offsets):
        yield "scale and offset"
    if any(dataset.descriptions):
        yield "band names"


def outcome(path: Path, out: Path) -> tuple[str, str]:
    """``kept``, ``refused`` or ``LOST``, and the line that tells more."""
    try:
        process_scene(path, out, model="identity", overwrite=True)
    except DecrSceneError as error:
        return "refused", str(error).replace(f"{path.resolve().parent}/", "")
    lost = [name for name, good in verify_roundtrip(path, out).items() if not good]
    with rasterio.open(path) as one, rasterio.open(out) as other:
        if not np.array_equal(one.read(), other.read(), equal_nan=one.dtypes[0].startswith("float")):
            lost.append("pixels")
    return ("LOST", ", ".join(lost)) if lost else ("kept", "")


def table(title: str, files: list[tuple[str, Path]], folder: Path) -> tuple[str, int]:
    """One section, and how many files lost something."""
    rows, lost = [], 0
    for name, path in files:
        verdict, told = outcome(path, folder / "out.tif")
        lost += verdict == "LOST"
        rows.append(f"| {name} | {describe(path)} | {verdict} | {told.replace('|', '/')} |")
        print(rows[-1], flush=True)
    head = f"\n## {title}\n\n| file | what it is | outcome | told |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n", lost


def main() -> None:
    """Write the page; exit with 1 where anything was lost."""
    data, page = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")  # rasters that GDAL warns of are what is tried here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections: list[tuple[str, Callable[[], list[tuple[str, Path]]]]] = [
            ("Unusual files from the field", lambda: _listed(data / "odd")),
            ("Scenes", lambda: _listed(data / "scenes")),
            ("Drawn by script", lambda: list(generated(folder))),
        ]
        made = [table(title, files(), folder) for title, files in sections]
        same = verify_roundtrip(folder / "bands1.tif", folder / "bands1.tif")
    head = HEAD.format(count=len(same), names=", ".join(same), gdal=rasterio.__gdal_version__)
    page.write_text(head + "".join(text for text, _ in made))
    sys.exit(any(lost for _, lost in made))


def _listed(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted(folder.glob("*.tif"))]


if __name__ == "__main__":
    main()
