"""In which time zone a clock was that nobody tells of: the sun stood over the scene when it was taken."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.raster.scene import RasterioScene

BEIJING = timezone(timedelta(hours=8))

DAY = 7.0, 17.0
"""Hours of the sun's own time in which optical scenes are taken: seldom do clocks 8 h apart both fit."""

_IN_NAME = re.compile(r"(?:^|_)([EW])(\d{1,3}(?:\.\d+)?)_[NS]\d", re.IGNORECASE)


def zoned(moment: datetime, longitude: float | None) -> datetime | None:
    """A moment without zone in UTC, if by day it can only have been UTC or only Beijing's time.

    Args:
        moment: Without zone.
        longitude: Of the scene, degrees east; ``None``: nobody knows.
    """
    if longitude is None:
        return None
    read = [moment.replace(tzinfo=zone).astimezone(UTC) for zone in (UTC, BEIJING)]
    by_day = [each for each in read if DAY[0] <= solar_hour(each, longitude) < DAY[1]]
    return by_day[0] if len(by_day) == 1 else None


def solar_hour(moment: datetime, longitude: float) -> float:
    """Mean solar time of a place, hours."""
    utc = moment.astimezone(UTC)
    return (utc.hour + utc.minute / 60 + utc.second / 3600 + longitude / 15) % 24


def longitude_in_name(name: str) -> float | None:
    """Of ``GF2_PMS1_E116.5_N39.9_…``, degrees east."""
    if (found := _IN_NAME.search(name)) is None:
        return None
    degrees = float(found[2]) * (1 if found[1].upper() == "E" else -1)
    return degrees if abs(degrees) <= 180 else None


def longitude_of_raster(path: Path) -> float | None:
    """Of the middle of a raster, degrees east, if it says where it lies."""
    try:
        with RasterioScene.open(path).dataset() as dataset:
            if dataset.crs is not None and not dataset.transform.is_identity:
                x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
                found, _ = transform(dataset.crs, CRS.from_epsg(4326), [x], [y])
            elif dataset.gcps[0] and dataset.gcps[1] is not None:
                middle = np.mean([(point.x, point.y) for point in dataset.gcps[0]], axis=0)
                found, _ = transform(dataset.gcps[1], CRS.from_epsg(4326), [middle[0]], [middle[1]])
            else:
                found = [dataset.rpcs.long_off] if dataset.rpcs is not None else []
    except (DecrSceneError, ValueError):
        return None
    return float(found[0]) if len(found) and np.isfinite(found[0]) and abs(found[0]) <= 360 else None
