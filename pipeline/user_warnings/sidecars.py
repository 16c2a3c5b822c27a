"""What lies beside a raster and GDAL passes over without a word."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from decr_scene.pipeline.files import with_ending
from decr_scene.pipeline.inputs.text import xml_root
from decr_scene.pipeline.raster.scene import RasterioScene


def damaged_sidecars(scene: RasterioScene) -> tuple[str, ...]:
    """Say that the ``.aux.xml`` of a scene is no XML: GDAL then does without all that it says."""
    path = with_ending(Path(scene.path), ".aux.xml") if scene.state else None
    try:
        if path is not None and path.is_file():
            xml_root(path.read_bytes())
    except (OSError, ET.ParseError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        return (
            f"{path} is damaged ({reason}), so what it says of CRS, nodata, scale and tags of the scene "
            "is not known: get it again, or take it away",
        )
    return ()
