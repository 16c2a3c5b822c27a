"""Draw the dialog of the plugin for docs/qgis.md; run by the system's Python, which has `qgis`.

decr-scene qgis install --folder /tmp/plugins
QT_QPA_PLATFORM=offscreen /usr/bin/python3 docs/images/make_qgis_dialog.py /tmp/plugins

"""

import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

import qgis.utils
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.gui import QgsBrowserGuiModel, QgsMapCanvas, QgsMessageBar

HERE = Path(__file__).parent
SCENE = HERE.parents[1] / "sample_scenes" / "landsat_cloudy.tif"


def main() -> None:
    """Open the dialog of one algorithm and grab it."""
    application = QgsApplication([], True)
    application.initQgis()
    sys.path[:0] = [sys.argv[1], "/usr/share/qgis/python/plugins"]
    window = qgis.utils.iface = MagicMock()  # there is no main window; these are the parts that are asked for
    window.mapCanvas.return_value = QgsMapCanvas()
    window.browserModel.return_value = QgsBrowserGuiModel()
    window.messageBar.return_value = QgsMessageBar()
    window.mainWindow.return_value = window.activeLayer.return_value = None
    import decr_scene_qgis
    from processing.core.Processing import Processing
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    Processing.initialize()
    plugin = decr_scene_qgis.classFactory(None)
    plugin.initProcessing()
    QgsProject.instance().addMapLayer(QgsRasterLayer(str(SCENE), SCENE.stem))
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("decr_scene:removeclouds")
    dialog = AlgorithmDialog(algorithm, False, None)
    dialog.resize(760, 640)
    dialog.show()
    application.processEvents()
    saved = dialog.grab().save(str(HERE / "qgis-dialog.png"))
    os._exit(0 if saved else 1)


if __name__ == "__main__":
    main()
