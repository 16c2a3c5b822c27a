"""Read what the digital numbers of Landsat and Sentinel-2 are in reflectance: ``scale * DN + offset``.

* Sentinel-2: ``(DN + BOA_ADD_OFFSET) / BOA_QUANTIFICATION_VALUE`` at the ground, ``RADIO_ADD_OFFSET`` and
  ``QUANTIFICATION_VALUE`` above the atmosphere, by band. Since baseline 04.00 (January 2022) the offset is
  -1000; before, there is none.
* Landsat, surface reflectance: ``2.75e-5 DN - 0.2`` of Collection 2, ``1e-4 DN`` of Collection 1. Level 1:
  ``REFLECTANCE_MULT_BAND_n`` and ``REFLECTANCE_ADD_BAND_n``, over the sine of ``SUN_ELEVATION``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from decr_scene.pipeline.products.document import document_root
from decr_scene.pipeline.products.layouts import Stack

Unit = tuple[float, float]
"""Scale and offset of a band."""

_LANDSAT = re.compile(r"(?P<scene>.*?)_(?P<kind>SR_B|sr_band|B)(?P<band>\d)\.tiff?", re.I)
_OF_SURFACE = {"sr_b": (2.75e-5, -0.2), "sr_band": (1e-4, 0.0)}
_OF_LEVEL_1 = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING")
"""Groups of level 1: that of level 2 has elements of the same names."""

_SENTINEL = re.compile(r".*_B(?P<band>\d\d)(_10m)?\.(jp2|tiff?)", re.I)
_OF_SENTINEL = (
    ("BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET"),
    ("L2A_BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET"),
    ("QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET"),
)
_MOST_STEPS = 1e6
"""Greatest quantification that is believed: steps in a reflectance of 1, which are 10 000."""

_BAND_IDS = {"02": "1", "03": "2", "04": "3", "08": "7"}
"""Numbers of the bands of 10 m among all thirteen, from 0: 8A stands between 08 and 09."""


def units_of(stack: Stack, metadata: Path | None) -> dict[str, Unit]:
    """Return scale and offset of reflectance for each band of a stack, or nothing if one is not known.

    Args:
        stack: Names of bands, and their files.
        metadata: The product's XML; of Landsat it has the name of the scene, or is that of another one.
    """
    root = document_root(metadata)
    units: dict[str, Unit] = {}
    for name, path in stack:
        unit = None
        if (match := _LANDSAT.fullmatch(path.name)) is not None:
            unit = _of_landsat(match, metadata, root)
        elif (match := _SENTINEL.fullmatch(path.name)) is not None and root is not None:
            unit = _of_sentinel(match["band"], root)
        if unit is None:
            return {}
        units[name] = unit
    return units


def _of_sentinel(band: str, root: ET.Element) -> Unit | None:
    for name, offset_name in _OF_SENTINEL:
        quantification = _number(root, name)
        if quantification is None or not 1 <= quantification <= _MOST_STEPS:
            continue
        if next(_named(root, offset_name), None) is None:
            return 1 / quantification, 0.0
        offset = _number(root, offset_name, lambda each: each.get("band_id") == _BAND_IDS.get(band))
        return None if offset is None else (1 / quantification, offset / quantification)
    return None


def _of_landsat(match: re.Match[str], metadata: Path | None, root: ET.Element | None) -> Unit | None:
    if unit := _OF_SURFACE.get(match["kind"].lower()):
        return unit
    if metadata is None or root is None or metadata.stem.upper() != f"{match['scene']}_MTL".upper():
        return None
    group = next((found for name in _OF_LEVEL_1 for found in _named(root, name)), None)
    if group is None:
        return None
    scale = _number(group, f"REFLECTANCE_MULT_BAND_{match['band']}")
    offset = _number(group, f"REFLECTANCE_ADD_BAND_{match['band']}")
    sun = _number(root, "SUN_ELEVATION")
    if scale is None or offset is None or sun is None or not (scale > 0 and 0 < sun <= 90):
        return None
    height = math.sin(math.radians(sun))
    return scale / height, offset / height


def _named(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield the elements of a name, whatever its prefix."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name:
            yield element


def _number(
    root: ET.Element, name: str, is_it: Callable[[ET.Element], bool] = lambda element: True
) -> float | None:
    """Return the finite number in the first element of a name that is the one meant."""
    for element in filter(is_it, _named(root, name)):
        try:
            value = float(element.text or "")
        except ValueError:
            return None
        return value if math.isfinite(value) else None
    return None
