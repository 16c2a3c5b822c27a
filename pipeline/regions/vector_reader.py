"""Read the polygons of a vector file: ``python -m decr_scene.pipeline.regions.vector_reader FILE LAYER``.

A program of its own because pyogrio brings a GDAL of its own: two in one process break each other. It prints
JSON: the layers, and CRS and WKB of the one that is named, or the only one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pyogrio
import pyogrio.raw


def read(path: str, layer: str | None) -> dict[str, Any]:
    """Return ``layers``, and ``crs`` and ``wkb`` (hexadecimal) of the chosen one."""
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if layer is None and len(layers) == 1:
        layer = layers[0]
    if layer is None:
        return {"layers": layers}
    meta, _, wkb, _ = pyogrio.raw.read(path, layer=layer, columns=[])
    return {"layers": layers, "crs": meta["crs"], "wkb": [bytes(g).hex() for g in wkb if g is not None]}


if __name__ == "__main__":
    json.dump(read(sys.argv[1], sys.argv[2] or None), sys.stdout)
