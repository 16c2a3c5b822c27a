"""Adds the provider of algorithms to QGIS and takes it away again."""

from qgis.core import QgsApplication

from .provider import DecrSceneProvider


class DecrScenePlugin:
    """The plugin; all that it has is a provider for Processing."""

    def __init__(self, iface):
        self.iface = iface
        self.provider = None

    def initProcessing(self):
        """Add the provider; ``qgis_process`` calls this alone."""
        self.provider = DecrSceneProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Add the provider to a QGIS with windows."""
        self.initProcessing()

    def unload(self):
        """Remove the provider."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
