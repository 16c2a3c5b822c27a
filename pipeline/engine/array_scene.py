"""Read what an array of xarray says of itself as a scene: bands, place, nodata, scale and offset."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr
from rasterio.crs import CRS
from rasterio.transform import Affine

from decr_scene.pipeline.errors import OptionError, SceneError
from decr_scene.pipeline.raster.refusals import DTYPES
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import pixel_size


def check_array(scene: Any) -> None:
    """Refuse an object that is no scene, before a pixel is read.

    Raises:
        SceneError: It is no DataArray of bands, or of another dtype.
    """
    if isinstance(scene, xr.Dataset):
        raise SceneError(
            f"this is a Dataset of {', '.join(map(str, scene.data_vars)) or 'nothing'}, expected a DataArray:"
            " take one variable, or make one with .to_dataarray('band')"
        )
    if not isinstance(scene, xr.DataArray):
        raise SceneError(f"this is a {type(scene).__name__}, expected a DataArray, as open_scene gives one")
    if scene.dims != ("band", "y", "x"):
        raise SceneError(
            f"the array has dimensions {scene.dims}, expected ('band', 'y', 'x'): select one time, add the "
            "band with .expand_dims('band'), transpose or rename it"
        )
    if not scene.size:
        raise SceneError(f"the array has no pixels, its shape is {scene.shape}")
    if str(scene.dtype) not in DTYPES:
        raise SceneError(f"the array is of {scene.dtype}, expected one of {', '.join(DTYPES)}: convert it")


def as_scene(scene: xr.DataArray, aoi: bool) -> RasterioScene:
    """Describe an array as a scene for masks and areas, which ask for its place alone.

    Args:
        scene: The array.
        aoi: Whether there is an area of interest.

    Raises:
        OptionError: There is one, and the array is not georeferenced.
    """
    crs, transform = _place(scene)
    if aoi and (crs is None or transform.is_identity):
        raise OptionError(
            "the array has no CRS and transform, which an aoi needs: set them with .rio.write_crs and "
            ".rio.write_transform"
        )
    shape, count = (scene.shape[1], scene.shape[2]), scene.shape[0]
    none = (None,) * count
    return RasterioScene(
        "(the array)",
        shape,
        count,
        scene.dtype,
        names_of(scene),
        crs,
        transform,
        None,
        shape,
        none,
        (0,) * count,
    )


def pixel_of(scene: xr.DataArray) -> float | None:
    """Return the side of a pixel, m; ``None``: the array is not georeferenced."""
    return pixel_size(*_place(scene), (scene.shape[1], scene.shape[2]))


def _place(scene: xr.DataArray) -> tuple[CRS | None, Affine]:
    """Read the CRS of an array, if it has one, and its transform.

    Raises:
        SceneError: They are none, such as coordinates that are dates.
    """
    import rioxarray  # noqa: F401  # registers .rio

    try:
        return scene.rio.crs, scene.rio.transform()
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise SceneError(
            f"the array's place is none ({error}), expected a CRS and coordinates that are numbers: set them "
            "with .rio.write_crs and .rio.write_transform, or drop them"
        ) from error


def nodata_of(scene: xr.DataArray) -> float | None:
    """Read the nodata value of an array, ``None`` if it has none.

    Raises:
        SceneError: It is no number.
    """
    import rioxarray  # noqa: F401  # registers .rio

    try:
        nodata = scene.rio.nodata
        return None if nodata is None else float(nodata)
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"the array's nodata value is no number ({error}): set it with .rio.write_nodata"
        ) from error


_ATTRIBUTES = {"scale": ("scales", "scale_factor"), "offset": ("offsets", "add_offset")}
"""Where rioxarray keeps what GDAL says of bands: of each band, or one for all."""


def said_of_bands(scene: xr.DataArray, what: str, default: float) -> list[float]:
    """Read scale or offset of all bands of an array, which its values have not been multiplied by."""
    for name in _ATTRIBUTES[what]:
        with suppress(TypeError, ValueError):
            values = np.asarray(scene.attrs.get(name, default), np.float64)
            said = np.broadcast_to(values, len(scene))
            if name in scene.attrs and np.isfinite(said).all():
                return [float(value) for value in said]
    return [default] * len(scene)


def names_of(scene: xr.DataArray) -> tuple[str, ...]:
    """Read the names of an array's bands: ``long_name``, or the ``band`` coordinate, or nothing."""
    names = scene.attrs.get("long_name")
    if isinstance(names, str):
        names = (names,)
    own = scene["band"].values if "band" in scene.coords and scene["band"].dtype.kind in "UO" else None
    names = _names_of_some(scene, names)
    names = names if isinstance(names, (tuple, list)) and len(names) == len(scene) else None
    if names is not None and (own is None or set(map(str, own)) != set(map(str, names))):
        return tuple(str(name) for name in names)
    if own is not None:  # it moves with the data, which attributes do not
        return tuple(str(name) for name in own)
    return ("",) * len(scene)


def _names_of_some(scene: xr.DataArray, names: Any) -> Any:
    """Choose the names of bands that were taken out of an array, by their numbers in it; else all."""
    if not isinstance(names, (tuple, list)) or len(names) == len(scene) or "band" not in scene.coords:
        return names
    if scene["band"].dtype.kind not in "iu":
        return names
    numbers = scene["band"].values.tolist()
    places = [number - (0 not in numbers) for number in numbers]
    return [names[k] for k in places] if all(0 <= k < len(names) for k in places) else names


def check_order(scene: xr.DataArray) -> None:
    """Refuse bands in another order than that of the file, which their names do not follow.

    Raises:
        SceneError: Their coordinate counts them in another order.
    """
    names = scene.attrs.get("long_name")
    if not isinstance(names, (tuple, list)) or len(names) != len(scene) or "band" not in scene.coords:
        return
    numbers = scene["band"].values.tolist()
    in_order = [list(range(first, first + len(scene))) for first in (0, 1)]
    if numbers not in in_order and sorted(numbers) in in_order:
        raise SceneError(
            f"the array's bands are in the order {', '.join(map(str, numbers))}, its long_name is in that of "
            "the file: give bands=..., or assign 1 to n to its coordinate band once long_name is right"
        )
