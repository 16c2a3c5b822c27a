"""Read the XML of a product once, though several modules look for what they want in it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree as ET

from decr_scene.pipeline.inputs.text import xml_file_root

_KEPT = 2
"""Documents that are kept: of a scene, and of its PAN."""


def document_root(path: Path | None) -> ET.Element | None:
    """Return the root of an XML file, not to be changed, or ``None`` if there is none, or it cannot be read.

    A file that has changed is read again.
    """
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return _read(path.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(_KEPT)
def _read(path: Path, *_state: int) -> ET.Element | None:
    return xml_file_root(path)
