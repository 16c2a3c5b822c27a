"""Write a GeoPackage from JSON on stdin: ``python -m decr_scene.pipeline.regions.vector_writer``.

A program of its own because pyogrio brings a GDAL of its own: two in one process break each other.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pyogrio.raw


def write(content: dict[str, Any]) -> None:
    """Write ``layers``, each a name, WKB in hexadecimal and rows of attributes, to ``path`` in ``crs``."""
    for number, (layer, wkb, rows) in enumerate(content["layers"]):
        fields = {"class": np.array([row["class"] for row in rows], object)}
        for name in ("area_m2", "share", "generated"):
            fields[name] = np.array([row[name] for row in rows], float)
        pyogrio.raw.write(
            content["path"],
            np.array([bytes.fromhex(text) for text in wkb], object),
            list(fields.values()),
            list(fields),
            layer=layer,
            crs=content["crs"],
            geometry_type="MultiPolygon",
            driver="GPKG",
            append=number > 0,
        )


if __name__ == "__main__":
    write(json.load(sys.stdin))
