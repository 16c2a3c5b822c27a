"""Open rasters without reading a pixel, and read them by window.

A `RasterioScene` travels to other threads and processes as its path and a few numbers; each thread opens the
file for itself, once, because a GDAL dataset serves one thread at a time and a forked child must not share
its parent's file position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.env import getenv, hasenv
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from decr_scene.models.arrays import Bool, Pixels
from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.errors import SceneError, SceneReadError
from decr_scene.pipeline.inputs.bands import name_bands, resolve_names
from decr_scene.pipeline.inputs.names import full_name
from decr_scene.pipeline.raster.handles import Handles, file_state, message_in, row_by_row
from decr_scene.pipeline.raster.nodata import is_nodata, mask_of, nodata_outside_mask
from decr_scene.pipeline.raster.refusals import (
    advice,
    cannot_open,
    check_georeferencing,
    check_mask_file,
    check_supported,
    one_line,
)
from decr_scene.pipeline.raster.vrt import band_names

if TYPE_CHECKING:
    import xarray as xr  # takes a second to import, and most runs have no use for it


GDAL_CACHE = 48 << 20
"""Least size of GDAL's block cache, bytes."""
SMALL_CACHE = 16 << 20
"""Size of that cache where no block is wanted twice, bytes; `gdal_env` has it beside the rows that are."""

_FAULTS = (RasterioError, CPLE_BaseError, OSError)
"""The second is GDAL's own, under no public name, of damaged headers that rasterio lets through."""


class Raster(Protocol):
    """Size and dtype of a raster."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(height, width)``, px."""
        ...

    @property
    def count(self) -> int:
        """Return the number of bands."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of all bands."""
        ...


@dataclass(frozen=True)
class RasterioScene:
    """A raster file; use `RasterioScene.open`.

    Equal scenes are the same state of the same file. Pickling carries these values, not the pixels and not
    the open file. ``masks`` has the 1-based band under whose number GDAL's mask of each band is read, 0 where
    the values decide alone; ``nodatavals`` the nodata values that are not part of those masks; ``state`` is
    the `file_state` of the file when it was opened.
    """

    path: str
    shape: tuple[int, int]
    count: int
    dtype: np.dtype[Any]
    bands: tuple[str, ...]
    crs: CRS | None
    transform: Affine
    nodata: float | None
    block_shape: tuple[int, int]
    nodatavals: tuple[float | None, ...]
    masks: tuple[int, ...]
    state: tuple[int, ...] = ()

    @staticmethod
    def open(path: str | os.PathLike[str], bands: str | None = None) -> RasterioScene:
        """Open a raster, without reading pixels.

        Opening the same file again costs little.

        Args:
            path: A file, or anything else that GDAL opens, such as ``/vsizip/…`` or a VRT's text.
            bands: Its bands, such as ``blue,green,red,nir``, where the file names none or wrong ones.

        Raises:
            SceneNotFoundError: There is no such file.
            SceneReadError: It is a directory, or not a raster.
            SceneError: It has no bands, or of a dtype other than `DTYPES`.
            BandError: ``bands`` does not fit the file.
        """
        name = full_name(path)
        return _describe(name, file_state(name), bands)

    def read(self, window: Window, indexes: Sequence[int] | None = None) -> Pixels:
        """Read digital numbers.

        Args:
            window: Inside the scene.
            indexes: 1-based band numbers; all if not given.

        Returns:
            ``(C, h, w)``.

        Raises:
            SceneReadError: The file is damaged there, missing, or has changed.
            ValueError: The window reaches beyond the scene.
        """
        self._check_inside(window)
        with self.dataset(window) as dataset:
            pixels: Pixels = dataset.read(None if indexes is None else list(indexes), window=window)
        return pixels

    def valid(self, window: Window, pixels: Pixels | None = None) -> Bool:
        """Mark valid pixels by GDAL's masks, and without NaN and infinities.

        A mask of 0 or an alpha of 0 invalidates all bands, but for the alpha band itself, which is valid
        everywhere.

        Args:
            window: Inside the scene.
            pixels: All bands of the window, where the caller has read or changed them.

        Returns:
            ``(C, h, w)``: False for nodata of that band, NaN, infinities, a mask of 0 and an alpha of 0.

        Raises:
            SceneReadError: As `read`.
        """
        if pixels is None:
            pixels = self.read(window)
        with self.dataset(window) as dataset:
            return self._valid(pixels, lambda number: dataset.read_masks(number, window=window) != 0)

    def decimated(
        self,
        shape: tuple[int, int],
        resampling: Resampling = Resampling.nearest,
        window: Window | None = None,
    ) -> tuple[Pixels, Bool]:
        """Read the whole scene, or a window, on a coarser grid, from its overviews if it has some.

        Args:
            shape: ``(h, w)`` of that grid.
            resampling: Of the pixels.
            window: Inside the scene; ``None``: all of it.

        Returns:
            ``(C, h, w)`` digital numbers; and their validity, that of the nearest pixel.

        Raises:
            SceneReadError: As `read`.
        """
        bands = {"out_shape": (self.count, *shape), "window": window}
        with self.dataset(window) as dataset:
            pixels: Pixels = dataset.read(**bands, resampling=resampling)
            nearest = pixels
            if resampling != Resampling.nearest:
                nearest = dataset.read(**bands)
            valid = self._valid(
                nearest, lambda number: dataset.read_masks(number, out_shape=shape, window=window) != 0
            )
        return pixels, valid & np.isfinite(pixels)

    @contextmanager
    def dataset(self, window: Window | None = None) -> Iterator[Any]:
        """Yield the open rasterio dataset of this thread.

        Do not close it.

        Raises:
            SceneReadError: GDAL's errors while it is used, with the window, if given.
        """
        try:
            dataset = _handles.get(self.path, self.state)
            with row_by_row(dataset):
                yield dataset
        except (*_FAULTS, UnicodeDecodeError) as error:
            reason = message_in(error) if isinstance(error, UnicodeDecodeError) else one_line(error)
            if isinstance(error, DecrSceneError) or reason is None:
                raise
            subject = _window_text(window) if window is not None else "its description"
            raise SceneReadError(
                f"{self.path}: cannot read {subject} ({reason}): {advice(self.path)}"
            ) from error

    @property
    def is_placed(self) -> bool:
        """Return whether CRS and transform tell where it lies; GCPs or RPCs may where they do not."""
        return self.crs is not None and not self.transform.is_identity

    @property
    def always_valid(self) -> bool:
        """Return whether every pixel is valid: there is no nodata, mask, alpha or floating point."""
        has_markers = any(v is not None for v in self.nodatavals) or any(self.masks) or "alpha" in self.bands
        return not has_markers and self.dtype.kind != "f"

    @property
    def meaning_of_values(self) -> list[str]:
        """Return what says which values are valid, and what they are in physical units, as text.

        GDAL keeps it in ``.aux.xml`` beside files whose format has no place for it, so it may change while
        the file does not.
        """
        with self.dataset() as dataset:
            masks = [[flag.value for flag in flags] for flags in dataset.mask_flag_enums]
            said = (dataset.nodatavals, masks, dataset.scales, dataset.offsets)
        return [repr(values) for values in said]

    def other_files(self) -> list[str]:
        """List files that pixels come from besides its own: a mask, the sources of a VRT."""
        return [name for name in self.files() if not name.endswith((".aux.xml", ".ovr"))]

    def files(self) -> list[str]:
        """List all files besides its own, also those of the sources of a VRT."""
        with self.dataset() as dataset:
            names = [os.path.abspath(name) for name in dataset.files if os.path.isfile(name)]
        for name in [name for name in names if name != self.path and name.lower().endswith(".vrt")]:
            with suppress(DecrSceneError):
                names += RasterioScene.open(name).files()
        return [name for name in dict.fromkeys(names) if name != self.path]

    def close(self) -> None:
        """Close the file in all threads of this process.

        Reading opens it again.
        """
        _handles.close(self.path, self.state)

    def __enter__(self) -> RasterioScene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_inside(self, window: Window) -> None:
        bottom, right = window.row_off + window.height, window.col_off + window.width
        if min(window.row_off, window.col_off) < 0 or bottom > self.shape[0] or right > self.shape[1]:
            raise ValueError(f"window of {_window_text(window)} reaches beyond a scene of {self.shape}")

    def _valid(self, pixels: Pixels, mask: Callable[[int], Bool]) -> Bool:
        """Mark valid pixels, ``(C, h, w)``, with a function that returns the mask of a band number."""
        valid = np.ones(pixels.shape, bool) if pixels.dtype.kind != "f" else np.isfinite(pixels)
        for band, nodata in enumerate(self.nodatavals):
            if nodata is not None:
                valid[band] &= ~is_nodata(pixels[band], nodata)
        for number in {number for number in self.masks if number}:
            valid[np.equal(self.masks, number)] &= mask(number)
        if "alpha" in self.bands:
            alpha = self.bands.index("alpha")
            valid &= pixels[alpha] != 0
            valid[alpha] = True
        return valid


def open_scene(
    path: str | os.PathLike[str], chunks: int | dict[str, int] | str = 1024, bands: str | None = None
) -> xr.DataArray:
    """Open a raster as a lazy DataArray on Dask.

    ``.rio`` works on it.

    Args:
        path: As `RasterioScene.open`.
        chunks: Side of a chunk, px, all bands together; or as Dask takes them.
        bands: As `RasterioScene.open`.

    Returns:
        ``(band, y, x)`` in the file's digital numbers; nodata, CRS and transform as rioxarray keeps them, the
        names of the bands in ``long_name``, the path in ``source``.

    Raises:
        DecrSceneError: As `RasterioScene.open`.
    """
    import rioxarray

    scene = RasterioScene.open(path, bands)
    if isinstance(chunks, int):
        chunks = {"band": -1, "y": chunks, "x": chunks}
    array: xr.DataArray = rioxarray.open_rasterio(scene.path, chunks=chunks, masked=False)
    if any(scene.bands):
        array.attrs["long_name"] = scene.bands if scene.count > 1 else scene.bands[0]
    array.attrs["source"] = scene.path
    return array


def gdal_env(scene: RasterioScene | None = None) -> AbstractContextManager[Any]:
    """Bound GDAL's block cache, for a ``with`` around a whole run.

    GDAL's own default is 5 % of the machine. The cache belongs to the process, for all threads, so an
    existing bound, by an outer `rasterio.Env` or in the environment, stays.

    Args:
        scene: Make room for two rows of its blocks: tiles that cut blocks then decode each one once.
    """
    if "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv()):
        return nullcontext()
    size = GDAL_CACHE
    if scene is not None:
        rows = 2 * min(1024, scene.block_shape[0]) * scene.shape[1] * scene.count * scene.dtype.itemsize
        size = max(size, SMALL_CACHE + rows)
    return rasterio.Env(GDAL_CACHEMAX=size)  # bytes here, unlike in the environment


_handles = Handles()


@lru_cache(maxsize=64)
def _describe(path: str, state: tuple[int, ...], bands: str | None) -> RasterioScene:
    try:
        dataset = _handles.get(path, state)
    except (*_FAULTS, UnicodeDecodeError) as error:
        raise cannot_open(path, error) from error
    try:
        check_supported(path, dataset)
        check_georeferencing(path, dataset)
        check_mask_file(f"{path}.msk", dataset)
        names = name_bands(band_names(dataset), [colour.name for colour in dataset.colorinterp])
    except SceneError:
        _handles.close(path, state)
        raise
    except CPLE_BaseError as error:
        _handles.close(path, state)
        raise cannot_open(path, error) from error
    return RasterioScene(
        path=path,
        shape=(dataset.height, dataset.width),
        count=dataset.count,
        dtype=np.dtype(dataset.dtypes[0]),
        bands=names if bands is None else resolve_names(names, bands),
        crs=dataset.crs,
        transform=dataset.transform,
        nodata=dataset.nodatavals[0],
        block_shape=dataset.block_shapes[0],
        nodatavals=tuple(nodata_outside_mask(band, dataset) for band in dataset.indexes),
        masks=tuple(mask_of(band, dataset) for band in dataset.indexes),
        state=state,
    )


def _window_text(window: Window) -> str:
    return (
        f"rows {window.row_off} to {window.row_off + window.height}, "
        f"cols {window.col_off} to {window.col_off + window.width}"
    )
