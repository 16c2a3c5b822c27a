"""Infer the time zone of an acquisition time from daylight: optical scenes are taken by day."""

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
"""Hours of mean solar time within which optical scenes are taken: of two zones 8 h apart, seldom both fit."""

_IN_NAME = re.compile(r"(?:^|_)([EW])(\d{1,3}(?:\.\d+)?)_[NS]\d", re.IGNORECASE)


def utc_by_daylight(moment: datetime, longitude: float | None) -> datetime | None:
    """Convert a moment without zone to UTC, if by day it can only be UTC or only Beijing time.

    Args:
        moment: Without zone.
        longitude: Of the scene, degrees east; ``None``: unknown.
    """
    if longitude is None:
        return None
    candidates = [moment.replace(tzinfo=zone).astimezone(UTC) for zone in (UTC, BEIJING)]
    by_day = [each for each in candidates if DAY[0] <= solar_hour(each, longitude) < DAY[1]]
    return by_day[0] if len(by_day) == 1 else None


def solar_hour(moment: datetime, longitude: float) -> float:
    """Return the mean solar time at a longitude in degrees east, hours."""
    utc = moment.astimezone(UTC)
    return (utc.hour + utc.minute / 60 + utc.second / 3600 + longitude / 15) % 24


def longitude_in_name(name: str) -> float | None:
    """Return the longitude in a name such as ``GF2_PMS1_E116.5_N39.9_…``, degrees east."""
    if (match := _IN_NAME.search(name)) is None:
        return None
    degrees = float(match[2]) * (1 if match[1].upper() == "E" else -1)
    return degrees if abs(degrees) <= 180 else None


def longitude_of_raster(path: Path) -> float | None:
    """Return the longitude of the middle of a raster, degrees east, or ``None`` without georeferencing."""
    try:
        with RasterioScene.open(path).dataset() as dataset:
            if dataset.crs is not None and not dataset.transform.is_identity:
                x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
                degrees, _ = transform(dataset.crs, CRS.from_epsg(4326), [x], [y])
            elif dataset.gcps[0] and dataset.gcps[1] is not None:
                middle = np.mean([(point.x, point.y) for point in dataset.gcps[0]], axis=0)
                degrees, _ = transform(dataset.gcps[1], CRS.from_epsg(4326), [middle[0]], [middle[1]])
            else:
                degrees = [dataset.rpcs.long_off] if dataset.rpcs is not None else []
    except (DecrSceneError, ValueError):
        return None
    return float(degrees[0]) if len(degrees) and np.isfinite(degrees[0]) and abs(degrees[0]) <= 360 else None
