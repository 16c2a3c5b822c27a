"""Where a scene is cloudy, as its model's detector sees it: one look over the whole scene before it is tiled.

The scene is read once, a few rows at a time, averaged to the detector's coarse pixels, and looked at in
windows that overlap by as far as the detector sees, so that they join without a seam. The answer is a small
raster beside the output that takes the same road as a mask of the user's. Memory follows the scene's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.pipeline.arrays import Bool, Float
from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.files import write_whole
from decr_scene.pipeline.raster.radiometry import Radiometry, fill_invalid
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.tiling.grid import Span

if TYPE_CHECKING:
    from decr_scene.models.networks.detector import Detector


Bytes = NDArray[np.uint8]

STRIP = 256
"""Side of the windows that the detector answers for at a time, coarse pixels; a multiple of 8."""

ROWS = 64
"""About so many rows of the scene are read at a time."""

_LOST = "the cloud detector's raster"


@dataclass(frozen=True)
class Coverage:
    """How cloudy a scene is, over its valid pixels.

    Args:
        cloud: Mean probability of cloud or thin cloud: the paper's cloud coverage probability.
        restore: Share that is taken to need restoring, for cloud or shadow.
        valid: Share of the scene that is valid.
    """

    cloud: float
    restore: float
    valid: float


@contextmanager
def detection_kept(raster: Path, journal: Path) -> Iterator[None]:
    """Remove the raster in the end, unless there is a journal to go on from, which goes with it."""
    try:
        yield
    finally:
        if not journal.exists():
            raster.unlink(missing_ok=True)


def write_detection(
    detector: Detector,
    scene: RasterioScene,
    source: FileSource,
    indexes: Sequence[int],
    radiometry: Radiometry,
    path: Path,
) -> Coverage:
    """Look at a whole scene and write what was found, under its name only when it is whole.

    Args:
        detector: The detector.
        scene: The scene.
        source: Its pixels.
        indexes: Bands that the detector sees, 0-based, in its order.
        radiometry: Their scaling.
        path: The raster: uint8 probabilities, 0 to 255, of needing restoration and of cloud; 0 where no
            pixel is valid.
    """
    from decr_scene.models.networks.detector import CLOUD, RESTORE

    factor = detector.config.factor
    height, width = (-(-side // factor) for side in scene.shape)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 2,
        "height": height,
        "width": width,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "crs": scene.crs,
        "transform": scene.transform @ Affine.scale(factor),
    }
    count, cloud, restore = 0, 0.0, 0
    try:
        with write_whole(path) as partial, rasterio.open(partial, "w", **profile) as target:
            for window, found, valid in _look(detector, scene, source, indexes, radiometry):
                target.write(found, window=window)
                count += int(valid.sum())
                cloud += float(found[CLOUD][valid].sum(dtype=np.int64)) / 255
                restore += int((found[RESTORE] >= round(255 * detector.config.threshold)).sum())
            total = max(1, count)
            coverage = Coverage(cloud / total, restore / total, count / (height * width))
            target.update_tags(**{name.upper(): repr(value) for name, value in vars(coverage).items()})
    except RasterioError as error:
        raise OutputError(f"{_LOST} {path} cannot be written ({error}): is the disk full?") from error
    return coverage


def read_coverage(path: Path) -> Coverage | None:
    """What the tags of a raster that is there say; ``None``: there is none, or it is damaged."""
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
        return Coverage(*(float(tags[name]) for name in ("CLOUD", "RESTORE", "VALID")))
    except (RasterioError, LookupError, ValueError):
        return None


def _look(
    detector: Detector,
    scene: RasterioScene,
    source: FileSource,
    indexes: Sequence[int],
    radiometry: Radiometry,
) -> Iterator[tuple[Window, Bytes, Bool]]:
    """Windows of the raster from top to bottom, with the two answers and the valid pixels of each."""
    from decr_scene.models.networks.detector import REACH

    factor = detector.config.factor
    width = -(-scene.shape[1] // factor)

    def coarse(rows: range) -> tuple[Float, Bool]:
        return _coarse_rows(scene.shape, source, indexes, radiometry, factor, rows)

    for own, near, image, valid in _strips(coarse, scene.shape, factor, REACH):
        for left in range(0, width, STRIP):
            right = min(width, left + STRIP)
            cols = slice(max(0, left - REACH), min(width, right + REACH))
            found, usable = _answer(detector, image[..., cols], valid[..., cols])
            inner = (
                slice(own.start - near.start, own.stop - near.start),
                slice(left - cols.start, right - cols.start),
            )
            window = Window(col_off=left, row_off=own.start, width=right - left, height=len(own))
            yield window, found[(slice(None), *inner)], usable[inner]


def _strips(
    read: Callable[[range], tuple[Float, Bool]], shape: tuple[int, int], factor: int, reach: int
) -> Iterator[tuple[range, range, Float, Bool]]:
    """Strips of coarse pixels: own rows, those within reach of them, and image and validity of the latter."""
    height = -(-shape[0] // factor)
    chunk = max(1, ROWS // factor)
    parts: list[tuple[Float, Bool]] = []
    first = last = 0
    for top in range(0, height, STRIP):
        own = range(top, min(height, top + STRIP))
        near = range(max(0, top - reach), min(height, own.stop + reach))
        while last < near.stop:
            rows = range(last, min(last + chunk, height))
            parts.append(read(rows))
            last = rows.stop
        image, valid = (
            np.concatenate(arrays, axis=1)[:, near.start - first :] for arrays in zip(*parts, strict=True)
        )
        parts, first = [(image, valid)], near.start
        yield own, near, image[:, : len(near)], valid[:, : len(near)]


def _answer(detector: Detector, image: Float, valid: Bool) -> tuple[Bytes, Bool]:
    """Probabilities of 0 to 255, ``(2, h, w)``, and the pixels that they mean anything for."""
    import torch

    usable: Bool = np.asarray(valid.any(axis=0))
    if not usable.any():
        return np.zeros((2, *usable.shape), np.uint8), usable
    filled = image if valid.all() else fill_invalid(image, valid)
    device = next((p.device for p in _parameters(detector)), torch.device("cpu"))
    found = detector.probability(torch.from_numpy(np.ascontiguousarray(filled))[None].to(device))[0]
    bytes_: Bytes = (np.rint(found.cpu().numpy() * 255) * usable).astype(np.uint8)
    return bytes_, usable


def _parameters(detector: Any) -> Iterator[Any]:
    return iter(getattr(detector, "parameters", tuple)())


def _coarse_rows(
    shape: tuple[int, int],
    source: FileSource,
    indexes: Sequence[int],
    radiometry: Radiometry,
    factor: int,
    rows: range,
) -> tuple[Float, Bool]:
    """Some rows of coarse pixels over the whole width, in [-1, 1], and whether any pixel of each is valid."""
    height, width = shape
    row = rows.start * factor
    span = Span(row, 0, min(height, rows.stop * factor) - row, width)
    bands = list(indexes)
    pixels = source.read(span)
    valid = source.valid(span, pixels)[bands]
    image = radiometry.to_model(pixels[bands])
    if valid.all():
        return _block_sums(image, factor) / _block_counts(span, factor), np.ones(
            (len(bands), len(rows), -(-width // factor)), bool
        )
    counts = _block_sums(valid.astype(np.float32), factor)
    sums = _block_sums(np.where(valid, image, np.float32(0)), factor)
    sums /= np.maximum(counts, 1)
    return sums, counts > 0


def _block_sums(image: Float, factor: int) -> Float:
    """Sums over ``factor`` x ``factor`` pixels of ``(C, H, W)``; the last ones of a side may have fewer."""
    bands, height, width = image.shape
    missing = [(0, 0), (0, -height % factor), (0, -width % factor)]
    if any(after for _, after in missing):
        image = np.pad(image, missing)
    rows: Float = image.reshape(bands, -1, factor, image.shape[2]).sum(axis=2, dtype=np.float32)
    sums: Float = rows[..., ::factor].copy()
    for offset in range(1, factor):
        sums += rows[..., offset::factor]
    return sums


def _block_counts(span: Span, factor: int) -> Float:
    """Pixels in each of the blocks of a window that begins at one, ``(h, w)``."""
    down, across = (
        np.minimum(factor, side - factor * np.arange(-(-side // factor)))
        for side in (span.height, span.width)
    )
    return (down[:, None] * across[None, :]).astype(np.float32)
