"""Read what the digital numbers of Landsat and Sentinel-2 are in reflectance: ``scale * DN + offset``.

* Sentinel-2: ``(DN + BOA_ADD_OFFSET) / BOA_QUANTIFICATION_VALUE`` at the ground, ``RADIO_ADD_OFFSET`` and
  ``QUANTIFICATION_VALUE`` above the atmosphere, by band. Since baseline 04.00 (January 2022) the offset is
  -1000; before, there is none.
* Landsat, Collection 2, level 2: ``2.75e-5 DN - 0.2``. Level 1: ``REFLECTANCE_MULT_BAND_n`` and
  ``REFLECTANCE_ADD_BAND_n``, over the sine of ``SUN_ELEVATION``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from decr_scene.pipeline.inputs.text import xml_root
from decr_scene.pipeline.products.layouts import Stack

Unit = tuple[float, float]
"""Scale and offset of a band."""

_OF_LEVEL_2 = 2.75e-5, -0.2
_LANDSAT = re.compile(r".*?(?P<kind>_SR)?_B(?P<band>\d)\.tiff?", re.I)
_SENTINEL = re.compile(r".*_B(?P<band>\d\d)(_10m)?\.(jp2|tiff?)", re.I)
_OF_SENTINEL = (("BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET"), ("QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET"))
_BAND_IDS = {"02": "1", "03": "2", "04": "3", "08": "7"}
"""Numbers of the bands of 10 m among all thirteen, from 0: 8A stands between 08 and 09."""


def units_of(stack: Stack, metadata: Path | None) -> dict[str, Unit]:
    """Return scale and offset of reflectance for each band of a stack, or nothing if one is not known.

    Args:
        stack: Names of bands, and their files.
        metadata: The product's XML.
    """
    root = None
    if metadata is not None:
        try:
            root = xml_root(metadata.read_bytes())
        except (OSError, ET.ParseError):
            root = None
    for pattern, unit_of in ((_SENTINEL, _of_sentinel), (_LANDSAT, _of_landsat)):
        matches = {name: pattern.fullmatch(path.name) for name, path in stack}
        known = {name: unit_of(match, root) for name, match in matches.items() if match is not None}
        units = {name: unit for name, unit in known.items() if unit is not None}
        if len(units) == len(stack):
            return units
    return {}


def _of_sentinel(match: re.Match[str], root: ET.Element | None) -> Unit | None:
    number = _BAND_IDS.get(match["band"])
    for name, offset_name in _OF_SENTINEL if root is not None and number is not None else ():
        quantification = _number(root, name)
        if quantification is not None and quantification > 0:
            offset = _number(root, offset_name, lambda each: each.get("band_id") == number) or 0.0
            return 1 / quantification, offset / quantification
    return None


def _of_landsat(match: re.Match[str], root: ET.Element | None) -> Unit | None:
    if match["kind"]:
        return _OF_LEVEL_2
    scale = _number(root, f"REFLECTANCE_MULT_BAND_{match['band']}")
    offset = _number(root, f"REFLECTANCE_ADD_BAND_{match['band']}")
    sun = _number(root, "SUN_ELEVATION")
    if scale is None or offset is None or sun is None or not (scale > 0 and 0 < sun <= 90):
        return None
    height = math.sin(math.radians(sun))
    return scale / height, offset / height


def _number(
    root: ET.Element | None, name: str, is_it: Callable[[ET.Element], bool] = lambda element: True
) -> float | None:
    """Return the finite number in the first element of a name, without prefix, that is the one meant."""
    for element in () if root is None else root.iter():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name and is_it(element):
            try:
                value = float(element.text or "")
            except ValueError:
                return None
            return value if math.isfinite(value) else None
    return None
