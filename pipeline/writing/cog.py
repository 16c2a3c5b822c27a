"""Write a cloud-optimised GeoTIFF from a VRT, and check that it is whole."""

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

from decr_scene.models.allocation import give_back_freed_memory
from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.inputs.text import carried, released
from decr_scene.pipeline.raster.scene import SMALL_CACHE
from decr_scene.pipeline.raster.vrt import MARK, has_mask
from decr_scene.pipeline.writing.scratch import as_geotiff, predictor_of

_MARK_ATTRIBUTE = f' domain="{MARK}"'.encode()
_PREDICTED = ("DEFLATE", "ZSTD", "LZW")
_LEVELS = (1, 4, 6)
"""Levels of deflate, faster ones first: most scenes are noisy, and get no smaller by a longer search."""
_TRIALS, _TRIAL_SIDE, _LOSS = 8, 256, 1.005
"""Number of squares that levels are tried on, their side in px, and the greatest share of the least bytes."""

_CONFIG = {"GDAL_CACHEMAX": SMALL_CACHE, "COG_TMP_COMPRESSION": "ZSTD", "ZSTD_LEVEL_OVERVIEW": "1"}
"""Settings of GDAL: overviews are first written to a lightly compressed file beside the COG."""


def write_cog(
    text: str, marked: int, path: Path, compression: dict[str, str], blocksize: int, resampling: str
) -> None:
    """Copy a VRT into a COG with overviews, and put it on the disk.

    Args:
        text: The VRT.
        marked: Number of tags of its bands under the mark.
        path: The COG.
        compression: From `lossless`.
        blocksize: Side of its blocks, px.
        resampling: Of the overviews; bands with a colour table get ``NEAREST``.

    Raises:
        OutputError: A block or tag is missing, as when the disk was full: GDAL does not always report it.
    """
    with rasterio.Env(**_CONFIG), _opened(text) as vrt, rasterio.Env(**_predictor(vrt)):
        give_back_freed_memory()  # of the run before, and of GDAL's cache, which is smaller from here on
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
        head = check_blocks(path, file)
        in_file = _release_band_tags(file, head)
        file.flush()
        os.fsync(file.fileno())
    in_sidecar = _release_in_sidecar(path.with_name(path.name + ".aux.xml"))
    if marked not in (in_file, in_sidecar):
        raise OutputError(
            f"GDAL {rasterio.__gdal_version__} has not kept the tags of the bands: please report"
        )


@contextmanager
def _opened(text: str) -> Iterator[Any]:
    """Open a VRT whose text may have other bytes than UTF-8, which rasterio would not pass on."""
    with MemoryFile(released(text), ext=".vrt") as memory, rasterio.open(memory.name) as vrt:
        yield vrt


def lossless(requested: str, stored: str, indexed: bool) -> dict[str, str]:
    """Return creation options of a lossless compression for the COG driver.

    Args:
        requested: One of `defaults.COMPRESSIONS`; ``auto``: as stored, if that is lossless, else deflate.
        stored: That of the input, as GDAL names it.
        indexed: Whether pixels are indexes of a colour table.
    """
    compress = requested.upper() if requested != "auto" else stored
    if compress not in (*_PREDICTED, "LZMA", "NONE"):
        compress = "DEFLATE"
    return {"COMPRESS": compress, "PREDICTOR": "YES" if compress in _PREDICTED and not indexed else "NO"}


def has_palette(dataset: Any) -> bool:
    """Return whether pixels are indexes of a colour table."""
    return any(colour.name == "palette" for colour in dataset.colorinterp)


def _predictor(vrt: Any) -> dict[str, str]:
    """Return a predictor for overviews, which saves a fifth.

    There is none with a mask, which may have single bits.
    """
    return {} if has_mask(vrt) else {"PREDICTOR_OVERVIEW": str(predictor_of(np.dtype(vrt.dtypes[0])))}


def _level(vrt: Any, compression: dict[str, str]) -> dict[str, str]:
    """Return the fastest level of deflate that a trial on parts finds as good as any.

    The first one takes two thirds of the default's time, and gives a hundredth less bytes of most satellite
    images behind a predictor, but a tenth more of smooth ones.
    """
    if compression["COMPRESS"] != "DEFLATE":
        return {}
    predictor = predictor_of(np.dtype(vrt.dtypes[0])) if compression["PREDICTOR"] == "YES" else 1
    block = {"tiled": True, "blockxsize": _TRIAL_SIDE, "blockysize": _TRIAL_SIDE}
    profile = {"compress": "deflate", "predictor": predictor, "interleave": "pixel", **block}
    sizes = dict.fromkeys(_LEVELS, 0)
    for window in _spread_squares(vrt.shape):
        pixels = vrt.read(window=window)
        for level in _LEVELS:
            sizes[level] += len(as_geotiff(pixels, {**profile, "zlevel": level}))
    best = min(sizes.values()) * _LOSS
    return {"LEVEL": str(next(level for level in _LEVELS if sizes[level] <= best))}


def _spread_squares(shape: tuple[int, int]) -> list[Window]:
    """Return different squares for the trial, in different rows and columns where there are enough."""
    rows, cols = (-(-side // _TRIAL_SIDE) for side in shape)
    last = _TRIALS - 1
    places = {(k * (rows - 1) // last, k * 3 % _TRIALS * (cols - 1) // last) for k in range(_TRIALS)}
    whole = Window(0, 0, shape[1], shape[0])
    return [
        Window(col * _TRIAL_SIDE, row * _TRIAL_SIDE, _TRIAL_SIDE, _TRIAL_SIDE).intersection(whole)
        for row, col in sorted(places)
    ]


def check_blocks(path: Path, file: Any) -> int:
    """Check every block of image and overviews, and return the offset of the first.

    The COG driver writes a block's size before it and its last four bytes again behind it.

    Args:
        path: The COG.
        file: It, opened to be read as bytes.

    Raises:
        OutputError: A block is not whole.
    """
    first = os.fstat(file.fileno()).st_size
    for offset, size in _blocks(path):
        file.seek(max(0, offset - 4))
        before = file.read(4)
        file.seek(max(0, offset + size - 4))
        last = file.read(8)
        if len(last) != 8 or before != struct.pack("<I", size) or last[4:] != last[:4]:
            raise OutputError(f"{path}: the block at byte {offset} is not whole: check the disk, run again")
        first = min(first, offset)
    return first


def _blocks(path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and size in bytes of all blocks, of the image and then of its overviews, 0 for none."""
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
    """Move the tags of bands from the marked domain into the default one, in place, and count them.

    Asked to copy all domains, GDAL 3.10 forgets the default domain of the bands, where statistics belong; not
    asked to, it forgets all others. So they travel in a domain of their own, whose name is blanked out in the
    finished file, byte for byte: XML does not mind the spaces, and nothing moves.
    """
    file.seek(0)
    text = file.read(head)
    file.seek(0)
    file.write(text.replace(_MARK_ATTRIBUTE, b" " * len(_MARK_ATTRIBUTE)))
    return int(text.count(_MARK_ATTRIBUTE))


def _release_in_sidecar(path: Path) -> int:
    """Move them in the sidecar, where GDAL puts tags as soon as one is a JSON document, and count them."""
    if not path.exists():
        return 0
    root = ET.fromstring(carried(path.read_bytes()))
    places = root.findall(f".//PAMRasterBand/Metadata[@domain='{MARK}']")
    for place in places:
        del place.attrib["domain"]
    path.write_bytes(released(ET.tostring(root, encoding="unicode")))
    return sum(len(place) for place in places)
