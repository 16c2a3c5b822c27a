"""`decr-scene simulate`: clouds drawn over clear scenes, as pairs of GeoTIFFs with a mask."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.clouds.simulate import CloudRecipe, simulate
from decr_scene.pipeline.errors import OptionError, SceneError
from decr_scene.pipeline.files import check_no_input, check_target, make_folder, written_for
from decr_scene.pipeline.inputs.bands import resolve_names
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.origin import Companion, CopyOf, Origin
from decr_scene.pipeline.writing.writer import SceneWriter

GROUND_TOP = 0.45
"""Value of the ground's brightest 0.1 % on the [0, 1] scale that clouds are drawn on; not for uint8."""

MOST_PIXELS = 4096 * 4096
"""Clouds are drawn over the whole scene at once."""

_WORD = 0xFFFFFFFFFFFFFFFF
"""A seed below 0 is taken as its 64 bits: numpy takes none."""


@dataclass(frozen=True)
class Drawn:
    """Files of one simulated pair, and the share of cloud (thin included)."""

    cloudy: Path
    clear: Path
    mask: Path
    cover: float


def simulate_scene(
    src: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    coverage: tuple[float, float] | None = None,
    thickness: tuple[float, float] | None = None,
    scale: tuple[float, float] | None = None,
    finest: tuple[float, float] | None = None,
    recipe: CloudRecipe | None = None,
    bands: str | None = None,
    overwrite: bool = False,
) -> Drawn:
    """Draw clouds over a clear scene.

    Args:
        src: The clear scene, at most `MOST_PIXELS` px.
        out: Folder that gets ``cloudy/``, ``clear/`` and ``mask/`` with files of the scene's name; the mask
            is 0 clear, 1 cloud, 2 shadow, 3 thin cloud.
        seed: Of the clouds; with the name of the scene it determines them.
        coverage: Range of the share of cloud.
        thickness: Range of the greatest optical thickness.
        scale: Range of the size of the largest structures, px: the same cloud is 60 times as large on images
            of half a metre as on those of 30 m, which the default is for.
        finest: Range of the size below which structures fade, px.
        recipe: Everything about the clouds, instead of these ranges.
        bands: As ``--bands``, where the file names none.
        overwrite: Replace files that exist.

    Returns:
        The files written.

    Raises:
        SceneError: The scene is too large.
        OptionError: A range is out of bounds.
        DecrSceneError: As `process_scene`.
    """
    src, out = Path(src), Path(out)
    paths = [out / kind / f"{src.stem}.tif" for kind in ("cloudy", "clear", "mask")]
    chosen = recipe or _recipe(coverage=coverage, thickness=thickness, scale=scale, finest=finest)
    with RasterioScene.open(src, bands) as scene:
        if scene.shape[0] * scene.shape[1] > MOST_PIXELS:
            raise SceneError(f"{src} has {scene.shape} px, clouds are drawn over at most 4096 x 4096: cut it")
        names = resolve_names(scene.bands, bands)
        written = [name for path in paths for name in written_for(path)]
        check_no_input(written, [("a file of the scene", name) for name in (scene.path, *scene.files())])
        for path in paths:
            make_folder(path.parent)
            check_target(src, path, overwrite)
        whole = Span(0, 0, *scene.shape)
        clear = scene.read(whole.window)
        valid = scene.valid(whole.window, clear)
        rng = np.random.default_rng([seed & _WORD, zlib.crc32(src.stem.encode())])
        drawn_over = [number for number, name in enumerate(names) if name != "alpha"]
        cloudy, own = clear.copy(), tuple(names[number] for number in drawn_over)
        cloudy[drawn_over], classes = draw_clouds(
            clear[drawn_over], valid[drawn_over], own, rng, chosen, scene.nodata
        )
        mask = Companion(scene, ("",), classes.dtype)
        origins: tuple[Origin, ...] = (CopyOf(scene), CopyOf(scene), mask)
        images = (cloudy, clear, classes[None])
        for path, origin, pixels in zip(paths, origins, images, strict=True):
            shrunk_by = "nearest" if origin is mask else "average"  # between two classes lies none
            with SceneWriter(origin, path, overwrite=overwrite, resampling=shrunk_by) as writer:
                writer.write(whole, pixels)
    seen = valid[drawn_over].any(axis=0)
    return Drawn(
        paths[0], paths[1], paths[2], float(np.isin(classes, (1, 3))[seen].mean()) if seen.any() else 0.0
    )


def draw_clouds(
    clear: NDArray[Any],
    valid: NDArray[np.bool_],
    names: tuple[str, ...],
    rng: np.random.Generator,
    recipe: CloudRecipe,
    nodata: float | None = None,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Draw clouds over digital numbers.

    Args:
        clear: ``(C, H, W)``.
        valid: Which pixels count; the others stay.
        names: Bands, for how clear a cloud is in each.
        rng: Of the clouds.
        recipe: What clouds.
        nodata: A value that no valid pixel may take.

    Returns:
        Cloudy digital numbers, those of clear ground bit for bit the same, and the classes ``(H, W)``, 0
        where nothing is valid.
    """
    radiometry = _with_headroom(clear, valid)
    scaled = radiometry.to_model(clear, valid)
    drawn = simulate(scaled, names, rng, recipe)
    classes = np.where(valid.any(axis=0), drawn.mask, drawn.mask.dtype.type(0))
    return radiometry.apply(clear, drawn.cloudy - scaled, valid, nodata), classes


def _with_headroom(clear: NDArray[Any], valid: NDArray[np.bool_]) -> Radiometry:
    """Make a scaling that leaves room for clouds above the ground."""
    if clear.dtype == np.uint8:
        return Radiometry((0.0,) * len(clear), (255.0,) * len(clear))
    tops = [np.percentile(band[ok], 99.9) if ok.any() else 1.0 for band, ok in zip(clear, valid, strict=True)]
    if any(ok.any() and np.median(band[ok]) < 0 for band, ok in zip(clear, valid, strict=True)):
        raise SceneError(
            "the scene's values are negative, as decibels are: clouds are drawn as light, from 0 up; convert "
            "it to reflectance or digital numbers"
        )
    return Radiometry((0.0,) * len(clear), tuple(max(float(top), 1e-6) / GROUND_TOP for top in tops))


def _recipe(**ranges: tuple[float, float] | None) -> CloudRecipe:
    try:
        return CloudRecipe(clear=0, aside=0, **{name: v for name, v in ranges.items() if v is not None})  # type: ignore[arg-type]  # ranges only
    except ValueError as error:
        raise OptionError(str(error)) from error
