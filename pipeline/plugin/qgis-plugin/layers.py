"""What becomes of the outputs in the map: one group, the clean scene above its original."""

import os

from qgis.core import QgsLayerTree, QgsProcessingLayerPostProcessorInterface, QgsProject

TITLES = {"output": "clean", "provenance": "provenance", "uncertainty": "uncertainty"}
"""Roles of the outputs that are layers, from top to bottom of their group, and their names there."""

ROLE = "decr-scene/role"
"""Property of a layer that has its role."""


class Arranged(QgsProcessingLayerPostProcessorInterface):
    """Styles a layer that was loaded and puts it into the group of its run."""

    waiting = []
    """QGIS holds no reference to these until it calls them."""

    def __init__(self, role, path, original, moves):
        super().__init__()
        self.role, self.path, self.moves = role, path, moves
        self.original, self.name = original.id(), group_name(original.name())  # it may be gone after the run
        Arranged.waiting.append(self)

    def postProcessLayer(self, layer, context, feedback):
        """Style and place one layer; the original goes to the foot of the group."""
        style = os.path.splitext(self.path)[0] + ".qml"
        if os.path.exists(style):
            layer.loadNamedStyle(style)
        if self.moves:
            project = context.project() or QgsProject.instance()
            arrange(project, layer, self.role, self.original, self.name)
        if self in Arranged.waiting:
            Arranged.waiting.remove(self)


def group_name(name):
    """Name the group of a run."""
    return f"Without clouds: {name}"


def arrange(project, layer, role, original, name):
    """Move a layer into the group of its run.

    Args:
        project: The project that it is in.
        layer: It.
        role: A key of `TITLES`.
        original: Id of the layer that was cleaned; its place in the tree stays, the group has a second one,
            if it is a layer of the project.
        name: Of the group.
    """
    root = project.layerTreeRoot()
    before = project.mapLayer(original)
    group = root.findGroup(name) or root.insertGroup(0, name)
    if before is not None and not any(node.layerId() == original for node in group.findLayers()):
        group.addLayer(before)
    nodes = [node for node in root.findLayers() if node.layerId() == layer.id()]
    layer.setCustomProperty(ROLE, role)
    if role != "output":
        layer.setName(TITLES[role])
    placed = group.insertLayer(_place(group, layer), layer)
    placed.setItemVisibilityChecked(role == "output")
    placed.setExpanded(False)
    for node in nodes:  # not before: QGIS removes a layer from the project that is nowhere in the tree
        node.parent().removeChildNode(node)


def _place(group, layer):
    """Return the index of a layer in the group: above all that stand after it in `TITLES`."""
    for place, node in enumerate(group.children()):
        if QgsLayerTree.isLayer(node) and node.layerId() != layer.id() and _rank(node.layer()) > _rank(layer):
            return place
    return len(group.children())


def _rank(layer):
    """Return the place of a layer's role in `TITLES`; layers of others come last."""
    order = list(TITLES)
    role = layer.customProperty(ROLE, "") if layer is not None else ""
    return order.index(role) if role in order else len(order)
