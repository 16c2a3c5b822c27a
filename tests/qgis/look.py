"""Look at a raster with QGIS and tell as JSON what it sees; run by the system's Python, which has `qgis`.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 look.py TASK.json

A task is ``{"raster": path, "style": path or null, "pictures": [{"extent": [xmin, ymin, xmax, ymax],
"size": [width, height], "path": path}, ...]}``; an extent of ``null`` is the layer's own. Pictures are drawn
without smoothing on a transparent background, as the map canvas draws them, pixel for pixel.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterBandStats,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def look(task: dict[str, Any]) -> dict[str, Any]:
    """Open, style and draw; say what was found."""
    layer = QgsRasterLayer(task["raster"], "raster")
    found: dict[str, Any] = {"qgis": Qgis.version(), "valid": layer.isValid()}
    if not layer.isValid():
        return found
    found |= describe(layer)
    if task.get("style"):
        message, styled = layer.loadNamedStyle(task["style"])
        found |= {"styled": bool(styled), "style_message": message, "style": renderer_of(layer)}
    found["errors"] = [error for picture in task.get("pictures", ()) for error in draw(layer, picture)]
    return found


def describe(layer: QgsRasterLayer) -> dict[str, Any]:
    """What QGIS knows of a layer before it is drawn."""
    provider, extent = layer.dataProvider(), layer.extent()
    numbers = range(1, layer.bandCount() + 1)
    return {
        "crs": layer.crs().authid(),
        "crs_valid": layer.crs().isValid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "size": [layer.width(), layer.height()],
        "renderer": layer.renderer().type(),
        "style": renderer_of(layer),
        "bands": [layer.bandName(number) for number in numbers],
        "interpretation": [provider.colorInterpretationName(number) for number in numbers],
        "nodata": [
            provider.sourceNoDataValue(number) if provider.sourceHasNoDataValue(number) else None
            for number in numbers
        ],
        "statistics": [statistics(provider, number) for number in numbers],
        "pyramids": [[p.xDim, p.yDim] for p in provider.buildPyramidList() if p.exists],
    }


def statistics(provider: Any, number: int) -> dict[str, float]:
    """Of all pixels of a band."""
    values = provider.bandStatistics(number, QgsRasterBandStats.All, provider.extent(), 0)
    return {
        "minimum": values.minimumValue,
        "maximum": values.maximumValue,
        "mean": values.mean,
        "std": values.stdDev,
    }


def renderer_of(layer: QgsRasterLayer) -> dict[str, Any]:
    """Kind of renderer, the bands it draws, and its legend."""
    renderer = layer.renderer()
    legend = [[text, colour.name()] for text, colour in renderer.legendSymbologyItems()]
    return {"type": renderer.type(), "bands": list(renderer.usesBands()), "legend": legend}


def draw(layer: QgsRasterLayer, picture: dict[str, Any]) -> list[str]:
    """Render one picture as the map canvas does; return what went wrong."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(QgsRectangle(*picture["extent"]) if picture.get("extent") else layer.extent())
    settings.setOutputSize(QSize(*picture["size"]))
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    for flag in (QgsMapSettings.Antialiasing, QgsMapSettings.RenderMapTile):
        settings.setFlag(flag, flag == QgsMapSettings.RenderMapTile)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    errors = [error.message for error in job.errors()]
    if not job.renderedImage().save(picture["path"], "PNG"):
        errors.append(f"cannot write {picture['path']}")
    return errors


def main() -> None:
    """One task, one answer."""
    application = QgsApplication([], False)
    application.initQgis()
    found = look(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(found), flush=True)
    os._exit(0)  # taking QGIS down crashes it in some versions, after the work is done


if __name__ == "__main__":
    main()
