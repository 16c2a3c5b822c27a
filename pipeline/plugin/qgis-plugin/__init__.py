"""QGIS's door to the plugin; nothing is imported before QGIS asks for it."""


def classFactory(iface):
    """Make the plugin; ``iface`` is None where there is no window."""
    from .plugin import DecrScenePlugin

    return DecrScenePlugin(iface)
