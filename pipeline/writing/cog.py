"""From a VRT to a cloud-optimised GeoTIFF that is sure to be whole."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.windows import Window

from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.inputs.text import carried, released
from decr_scene.pipeline.raster.vrt import MARK, has_mask
from decr_scene.pipeline.writing.scratch import as_geotiff, predictor_of

_MARKED = f' domain="{MARK}"'.encode()
_PREDICTED = ("DEFLATE", "ZSTD", "LZW")
_LIGHT, _USUAL = 4, 6
"""Levels of deflate. What sensor noise leaves of many images gets no smaller by a longer search."""
_TRIALS, _TRIAL_SIDE, _LOSS = 8, 256, 1.005
"""On so many squares of so many px the lighter level is tried; so much larger may the file become."""

_CONFIG = {"GDAL_CACHEMAX": 16 << 20, "COG_TMP_COMPRESSION": "ZSTD", "ZSTD_LEVEL_OVERVIEW": "1"}
"""The overviews lie on the disk twice, for a while: first in a file beside the COG, lightly compressed."""


def write_cog(
    text: str, marked: int, path: Path, compression: dict[str, str], blocksize: int, resampling: str
) -> None:
    """Copy a VRT into a COG with overviews, and put it on the disk.

    Args:
        text: The VRT.
        marked: Tags of bands that it has under the mark.
        path: The COG.
        compression: From `lossless`.
        blocksize: Side of its blocks, px.
        resampling: Of the overviews; bands with a colour table get ``NEAREST``.

    Raises:
        OutputError: Something is missing in it, as when the disk was full: GDAL does not always say.
    """
    with rasterio.Env(**_CONFIG), _opened(text) as vrt, rasterio.Env(**_predictor(vrt)):
        indexed = has_palette(vrt)
        rasterio.shutil.copy(
            vrt,
            path,
            driver="COG",
            **compression,
            **_level(vrt, compression),
            BLOCKSIZE=str(blocksize),
            OVERVIEW_RESAMPLING="NEAREST" if indexed else resampling,
            BIGTIFF="IF_SAFER",
            NUM_THREADS="ALL_CPUS",
            COPY_SRC_MDD="YES",
        )
    with path.open("r+b") as file:
        head = _check_blocks(path, file)
        inside = _release_band_tags(file, head)
        file.flush()
        os.fsync(file.fileno())
    beside = _release_in_sidecar(path.with_name(path.name + ".aux.xml"))
    if marked not in (inside, beside):
        raise OutputError(
            f"GDAL {rasterio.__gdal_version__} has not kept the tags of the bands: please report"
        )


@contextmanager
def _opened(text: str) -> Iterator[Any]:
    """A VRT whose text may have other bytes than UTF-8, which rasterio would not hand on."""
    with MemoryFile(released(text), ext=".vrt") as memory, rasterio.open(memory.name) as vrt:
        yield vrt


def lossless(asked: str, stored: str, indexed: bool) -> dict[str, str]:
    """Lossless compression for the COG driver.

    Args:
        asked: One of `defaults.COMPRESSIONS`; ``auto``: as stored, if that is lossless, else deflate.
        stored: What GDAL says of the input.
        indexed: Whether pixels are indexes of a colour table.
    """
    compress = asked.upper() if asked != "auto" else stored
    if compress not in (*_PREDICTED, "LZMA", "NONE"):
        compress = "DEFLATE"
    return {"COMPRESS": compress, "PREDICTOR": "YES" if compress in _PREDICTED and not indexed else "NO"}


def has_palette(dataset: Any) -> bool:
    """Whether pixels are indexes of a colour table."""
    return any(colour.name == "palette" for colour in dataset.colorinterp)


def _predictor(vrt: Any) -> dict[str, str]:
    """For overviews on their way, a fifth less to store; a mask's may have single bits, which have none."""
    return {} if has_mask(vrt) else {"PREDICTOR_OVERVIEW": str(predictor_of(np.dtype(vrt.dtypes[0])))}


def _level(vrt: Any, compression: dict[str, str]) -> dict[str, str]:
    """The lighter level of deflate, a fifth quicker, where a trial on parts of the image finds it as good."""
    if compression["COMPRESS"] != "DEFLATE":
        return {}
    predictor = predictor_of(np.dtype(vrt.dtypes[0])) if compression["PREDICTOR"] == "YES" else 1
    profile = {"compress": "deflate", "predictor": predictor, "interleave": "pixel"}
    light = usual = 0
    for window in _spread_squares(vrt.shape):
        pixels = vrt.read(window=window)
        light += len(as_geotiff(pixels, {**profile, "zlevel": _LIGHT}))
        usual += len(as_geotiff(pixels, {**profile, "zlevel": _USUAL}))
    return {"LEVEL": str(_LIGHT)} if light <= usual * _LOSS else {}


def _spread_squares(shape: tuple[int, int]) -> list[Window]:
    """Where to try: different squares, in different rows and columns of the image if it has so many."""
    rows, cols = (-(-side // _TRIAL_SIDE) for side in shape)
    last = _TRIALS - 1
    places = {(k * (rows - 1) // last, k * 3 % _TRIALS * (cols - 1) // last) for k in range(_TRIALS)}
    whole = Window(0, 0, shape[1], shape[0])
    return [
        Window(col * _TRIAL_SIDE, row * _TRIAL_SIDE, _TRIAL_SIDE, _TRIAL_SIDE).intersection(whole)
        for row, col in sorted(places)
    ]


def _check_blocks(path: Path, file: Any) -> int:
    """Find every block of image and overviews in place; return where the first begins.

    The COG driver writes a block's size before it and its last four bytes again behind it.
    """
    first = os.fstat(file.fileno()).st_size
    for where, size in _blocks(path):
        file.seek(max(0, where - 4))
        block = file.read(size + 8)
        if len(block) != size + 8 or block[:4] != struct.pack("<I", size) or block[-4:] != block[-8:-4]:
            raise OutputError(f"{path}: the block at byte {where} is not whole: check the disk, run again")
        first = min(first, where)
    return first


def _blocks(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and size in bytes of all blocks, of the image and then of its overviews; 0 for none."""
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
        if has_mask(dataset):
            dataset.read_masks(
                1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1)
            )  # its last block
    for level in (None, *range(levels)):
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as dataset:
            height, width = dataset.block_shapes[0]
            for row in range(-(-dataset.height // height)):
                for col in range(-(-dataset.width // width)):
                    place = [
                        dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)
                        for what in ("OFFSET", "SIZE")
                    ]
                    yield int(place[0] or 0), int(place[1] or 0)


def _release_band_tags(file: Any, head: int) -> int:
    """Move the tags of bands from the marked domain into the default one, in place; return how many.

    Asked to copy all domains, GDAL 3.10 forgets the default domain of the bands, where statistics belong; not
    asked to, it forgets all others. So they travel in a domain of their own, whose name is blanked out in the
    finished file, byte for byte: XML does not mind the spaces, and nothing moves.
    """
    file.seek(0)
    text = file.read(head)
    file.seek(0)
    file.write(text.replace(_MARKED, b" " * len(_MARKED)))
    return int(text.count(_MARKED))


def _release_in_sidecar(path: Path) -> int:
    """The same where GDAL puts tags beside the file too, as it does when one of them is a JSON document."""
    if not path.exists():
        return 0
    root = ET.fromstring(carried(path.read_bytes()))
    places = root.findall(f".//PAMRasterBand/Metadata[@domain='{MARK}']")
    for place in places:
        del place.attrib["domain"]
    path.write_bytes(released(ET.tostring(root, encoding="unicode")))
    return sum(len(place) for place in places)
