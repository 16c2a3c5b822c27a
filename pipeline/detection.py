"""Where a scene is cloudy, as its model's detector sees it: one look over the whole scene before it is tiled.

The scene is read once, a few rows at a time, averaged to the detector's coarse pixels, and looked at in
windows that overlap by as far as the detector sees, so that they join without a seam. The answer is a small
raster beside the output that takes the same road as a mask of the user's. Memory follows the scene's width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.pipeline.errors import OutputError, SceneError
from decr_scene.pipeline.grid import Span
from decr_scene.pipeline.masks import DetectedMask
from decr_scene.pipeline.planning import Coverage, Options, ScenePlan, gated
from decr_scene.pipeline.radiometry import fill_invalid
from decr_scene.pipeline.scene import RasterioScene
from decr_scene.pipeline.source import FileSource
from decr_scene.pipeline.tiles import Plan

if TYPE_CHECKING:
    from decr_scene.models.detector import Detector

Bool = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]

STRIP = 256
"""Side of the windows that the detector answers for at a time, coarse pixels; a multiple of 8."""

ROWS = 64
"""About so many rows of the scene are read at a time."""

_LOST = "the cloud detector's raster"


def detection_path(output: Path) -> Path:
    """Where the raster lies while an output is made."""
    return output.with_name(f".{output.name}.cloud.partial.tif")


@contextmanager
def detection_kept(raster: Path, journal: Path) -> Iterator[None]:
    """Remove the raster in the end, unless there is a journal to go on from, which goes with it."""
    try:
        yield
    finally:
        if not journal.exists():
            raster.unlink(missing_ok=True)


def detect_clouds(
    planned: ScenePlan, scene: RasterioScene, options: Options, raster: Path, again: bool = False
) -> ScenePlan:
    """Let the model's detector, if it has one and the mask is ``auto``, choose where a plan restores.

    Args:
        planned: The plan.
        scene: The scene.
        options: Those that the plan was made of.
        raster: Where the raster is written; workers read it there.
        again: Take the raster that an interrupted run of the same plan has left, if there is one.

    Raises:
        SceneReadError: The scene cannot be read somewhere.
        OutputError: The raster cannot be written.
    """
    config = planned.detector
    if config is None:
        return planned
    coverage = _read_coverage(raster) if again else None
    if coverage is None:
        from decr_scene.models.model import load_detector

        detector = load_detector(planned.plan.spec.name, options.device)
        assert detector is not None, "the plan says that there is one"
        source = FileSource(scene.path, options.bands)
        coverage = write_detection(detector, scene, source, planned.plan, raster)
    mask = DetectedMask(str(raster.resolve()), scene, config.factor, round(255 * config.threshold))
    return replace(gated(planned, mask), coverage=coverage)


def scene_coverage(planned: ScenePlan, scene: RasterioScene, options: Options, raster: Path) -> Coverage:
    """How cloudy a scene is; the raster is left where it was written.

    Raises:
        SceneError: The model has no detector.
    """
    coverage = detect_clouds(planned, scene, options, raster).coverage
    if coverage is None:
        raise SceneError(
            f"model {options.model} has no cloud detector to look at {scene.path} with: take one that has"
        )
    return coverage


def write_detection(
    detector: Detector, scene: RasterioScene, source: FileSource, plan: Plan, path: Path
) -> Coverage:
    """Look at a whole scene and write what was found, under its name only when it is whole.

    Args:
        detector: The detector.
        scene: The scene.
        source: Its pixels.
        plan: For the bands and their scaling.
        path: The raster: uint8 probabilities, 0 to 255, of needing restoration and of cloud; 0 where no
            pixel is valid.
    """
    from decr_scene.models.detector import CLOUD, RESTORE

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
    partial = path.with_name(path.name + ".new")
    count, cloud, restore = 0, 0.0, 0
    try:
        with rasterio.open(partial, "w", **profile) as target:
            for window, found, valid in _look(detector, scene, source, plan):
                target.write(found, window=window)
                count += int(valid.sum())
                cloud += float(found[CLOUD][valid].sum(dtype=np.int64)) / 255
                restore += int((found[RESTORE] >= round(255 * detector.config.threshold)).sum())
            total = max(1, count)
            coverage = Coverage(cloud / total, restore / total, count / (height * width))
            target.update_tags(**{name.upper(): repr(value) for name, value in vars(coverage).items()})
        os.replace(partial, path)
    except RasterioError as error:
        raise OutputError(f"{_LOST} {path} cannot be written ({error}): is the disk full?") from error
    finally:
        partial.unlink(missing_ok=True)
    return coverage


def _read_coverage(path: Path) -> Coverage | None:
    """What the tags of a raster that is there say; ``None``: there is none, or it is damaged."""
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
        return Coverage(*(float(tags[name]) for name in ("CLOUD", "RESTORE", "VALID")))
    except (RasterioError, LookupError, ValueError):
        return None


def _look(
    detector: Detector, scene: RasterioScene, source: FileSource, plan: Plan
) -> Iterator[tuple[Window, Bytes, Bool]]:
    """Windows of the raster from top to bottom, with the two answers and the valid pixels of each."""
    from decr_scene.models.detector import REACH

    width = -(-scene.shape[1] // detector.config.factor)
    for own, near, image, valid in _strips(scene, source, plan, detector.config.factor, REACH):
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
    scene: RasterioScene, source: FileSource, plan: Plan, factor: int, reach: int
) -> Iterator[tuple[range, range, Float, Bool]]:
    """Strips of coarse pixels: own rows, those within reach of them, and image and validity of the latter."""
    height = -(-scene.shape[0] // factor)
    chunk = max(1, ROWS // factor)
    parts: list[tuple[Float, Bool]] = []
    first = last = 0
    for top in range(0, height, STRIP):
        own = range(top, min(height, top + STRIP))
        near = range(max(0, top - reach), min(height, own.stop + reach))
        while last < near.stop:
            rows = range(last, min(last + chunk, height))
            parts.append(_coarse_rows(scene, source, plan, factor, rows))
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
    scene: RasterioScene, source: FileSource, plan: Plan, factor: int, rows: range
) -> tuple[Float, Bool]:
    """Some rows of coarse pixels over the whole width, in [-1, 1], and whether any pixel of each is valid."""
    height, width = scene.shape
    row = rows.start * factor
    span = Span(row, 0, min(height, rows.stop * factor) - row, width)
    bands = list(plan.indexes)
    pixels = source.read(span)
    valid = source.valid(span, pixels)[bands]
    image = plan.radiometry.to_model(pixels[bands])
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
