"""Run the plugin's algorithms inside a QGIS without windows; run by the system's Python, which has `qgis`.

    plugin_tasks.py FOLDER_OF_PLUGINS SCENE AREA OUT_FOLDER

Prints one JSON object: what the registry has, what the layer tree looks like after a run, what an area with a
selection and a filter gave, how long a cancel took, and what is left after the plugin was unloaded.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsLayerTreeRegistryBridge,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)


class Feedback(QgsProcessingFeedback):
    """Keeps what is pushed."""

    def __init__(self):
        super().__init__(False)
        self.steps, self.texts = [], []
        self.progressChanged.connect(self.steps.append)

    def setProgressText(self, text):  # noqa: N802  # as QGIS calls it
        self.texts.append(text)


def main():
    plugins, scene, area, out = sys.argv[1:]
    application = QgsApplication([], True)
    application.initQgis()
    sys.path[:0] = [plugins, "/usr/share/qgis/python/plugins"]
    import processing
    from processing.core.Processing import Processing

    Processing.initialize()
    import decr_scene_qgis

    plugin = decr_scene_qgis.classFactory(None)
    plugin.initProcessing()
    registry = QgsApplication.processingRegistry()
    found = {"algorithms": sorted(a.id() for a in plugin.provider.algorithms())}
    found["settings"] = "DECR_SCENE_PYTHON" in str(_settings())
    found["loaded"] = loaded(processing, scene, Path(out))
    found["by path"] = by_path(processing, scene, Path(out))
    found["further"] = further(processing, scene, Path(out))
    found["area"] = inside(processing, scene, area, Path(out))
    found["cancel"] = cancelled(registry, scene, Path(out))
    found["refused"] = refused(registry, scene, Path(out))
    found["missing"] = missing(registry, scene)
    plugin.unload()
    found["left"] = registry.providerById("decr_scene") is not None
    print(json.dumps(found), flush=True)
    os._exit(0)


def _settings():
    from processing.core.ProcessingConfig import ProcessingConfig

    return ProcessingConfig.settings


def loaded(processing, scene, out):
    """Run as the dialog does, and look at the layer tree."""
    project = QgsProject.instance()
    before = QgsRasterLayer(scene, "my scene")
    project.addMapLayer(before)
    feedback = Feedback()
    group = project.layerTreeRoot().insertGroup(0, "Without clouds: my scene")
    # the desktop inserts new layers where the user is in the tree, which may be this very group
    point = QgsLayerTreeRegistryBridge.InsertionPoint(group, 0)
    project.layerTreeRegistryBridge().setLayerInsertionPoint(point)
    parameters = {"INPUT": before, "MODEL": "identity", "OUTPUT": str(out / "clean.tif")}
    result = processing.runAndLoadResults("decr_scene:removeclouds", parameters, feedback=feedback)
    point = QgsLayerTreeRegistryBridge.InsertionPoint(project.layerTreeRoot(), 0)
    project.layerTreeRegistryBridge().setLayerInsertionPoint(point)
    again = parameters | {"OUTPUT": str(out / "again.tif")}
    processing.runAndLoadResults("decr_scene:removeclouds", again, feedback=Feedback())
    QgsApplication.processEvents()  # the project loses what is nowhere in its tree
    groups = [
        [group.name(), [[n.layer().name(), n.itemVisibilityChecked()] for n in group.findLayers()]]
        for group in project.layerTreeRoot().findGroups()
    ]
    renderers = {
        node.layer().name(): node.layer().renderer().type()
        for group in project.layerTreeRoot().findGroups()
        for node in group.findLayers()
    }
    return {
        "results": {name: str(value) for name, value in result.items()},
        "groups": groups,
        "renderers": renderers,
        "progress": [min(feedback.steps), max(feedback.steps)],
        "texts": feedback.texts,
    }


def by_path(processing, scene, out):
    """Take a file that is no layer of the project: what its own group is called, and holds."""
    other = out / "by path.tif"
    shutil.copyfile(scene, other)
    parameters = {"INPUT": str(other), "MODEL": "identity", "OUTPUT": str(out / "of path.tif")}
    processing.runAndLoadResults("decr_scene:removeclouds", parameters, feedback=Feedback())
    QgsApplication.processEvents()
    groups = QgsProject.instance().layerTreeRoot().findGroups()
    return {group.name(): [node.layer().name() for node in group.findLayers()] for group in groups}


def further(processing, scene, out):
    """Say something as a further option that a parameter says, too."""
    parameters = {"INPUT": scene, "MODEL": "identity", "OUTPUT": str(out / "more.tif")}
    parameters |= {"SEED": 0, "MORE": "--seed 7"}
    processing.run("decr_scene:removeclouds", parameters, feedback=Feedback())
    return json.loads((out / "more.json").read_text())["parameters"]["seed"]


def inside(processing, scene, area, out):
    """One polygon of three is selected, another one is filtered out."""
    layer = QgsVectorLayer(area, "area")
    layer.setSubsetString("kind = 'field'")
    layer.selectByExpression("number = 1")
    QgsProject.instance().addMapLayer(layer)
    source = QgsProcessingFeatureSourceDefinition(layer.id(), True)
    parameters = {"INPUT": scene, "MODEL": "identity", "AREA": source, "OUTPUT": str(out / "area.tif")}
    processing.run("decr_scene:removeclouds", parameters, feedback=Feedback())
    report = json.loads((out / "area.json").read_text())
    written = QgsVectorLayer(report["parameters"]["aoi"], "written")
    boxes = [feature.geometry().boundingBox() for feature in written.getFeatures()]
    corners = [(box.xMinimum(), box.yMaximum(), box.xMaximum(), box.yMinimum()) for box in boxes]
    return {"crs": written.crs().authid(), "corners": corners}


def cancelled(registry, scene, out):
    """Cancel from outside, as the button does, while the program starts."""
    feedback = Feedback()
    algorithm = registry.createAlgorithmById("decr_scene:removeclouds")
    parameters = {"INPUT": scene, "MODEL": "identity", "OUTPUT": str(out / "never.tif")}
    pressed = []

    def press():
        time.sleep(0.2)
        pressed.append(time.monotonic())
        feedback.cancel()

    button = threading.Thread(target=press)
    button.start()
    result, _ = algorithm.run(parameters, QgsProcessingContext(), feedback)
    button.join()
    return {"seconds": time.monotonic() - pressed[0], "result": result}


def refused(registry, scene, out):
    """What the program cannot be asked for, or what cannot be written, in one line each."""
    layer = QgsRasterLayer(f"{scene}|option:NUM_THREADS=2", "with options")
    bow_tie = polygon("0 0, 9 9, 9 0, 0 9, 0 0", "EPSG:4326", "bow tie")
    nowhere = polygon("0 0, 9 0, 9 9, 0 0", "", "nowhere")
    clean, page = str(out / "refused.tif"), str(out / "no such folder" / "page.html")
    calls = {
        "help": ("removeclouds", {"INPUT": scene, "MORE": "--steps 2 -h", "OUTPUT": clean}),
        "progress": ("removeclouds", {"INPUT": scene, "MORE": "--progress=bar", "OUTPUT": clean}),
        "open options": ("removeclouds", {"INPUT": layer, "OUTPUT": clean}),
        "bow tie": ("removeclouds", {"INPUT": scene, "MODEL": "identity", "AREA": bow_tie, "OUTPUT": clean}),
        "dates": (
            "removeclouds",
            {"INPUT": scene, "MODEL": "identity", "OTHER_DATE": [scene, scene], "OUTPUT": clean},
        ),
        "nowhere": ("removeclouds", {"INPUT": scene, "MODEL": "identity", "AREA": nowhere, "OUTPUT": clean}),
        "folder": ("inspect", {"INPUT": scene, "MODEL": "identity", "OUTPUT": page}),
    }
    said = {}
    for name, (algorithm, parameters) in calls.items():
        try:
            registry.createAlgorithmById(f"decr_scene:{algorithm}").run(
                parameters, QgsProcessingContext(), Feedback(), {}, False
            )
        except QgsProcessingException as error:
            said[name] = str(error)
    return said


def polygon(ring, crs, name):
    """Make a layer of one polygon."""
    layer = QgsVectorLayer(f"Polygon?crs={crs}", name, "memory")
    feature = QgsFeature()
    feature.setGeometry(QgsGeometry.fromWkt(f"POLYGON(({ring}))"))
    layer.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(layer)
    return layer


def missing(registry, scene):
    """The program is named wrongly."""
    os.environ["DECR_SCENE_PYTHON"] = "/no/such/python"
    algorithm = registry.createAlgorithmById("decr_scene:removeclouds")
    able, text = algorithm.canExecute()
    return {"able": able, "text": text}


if __name__ == "__main__":
    main()
