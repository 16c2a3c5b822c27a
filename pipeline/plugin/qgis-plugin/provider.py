"""The provider: its algorithms, and its page in *Settings > Options > Processing > Providers*."""

import os

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from . import program
from .algorithms import CloudMask, Inspect, RemoveClouds, RemoveCloudsOfFolder


class DecrSceneProvider(QgsProcessingProvider):
    """All algorithms that run decr-scene."""

    def id(self):
        """Return the name in scripts."""
        return "decr_scene"

    def name(self):
        """Return the name in the toolbox."""
        return "decr-scene"

    def longName(self):
        """Return the long name."""
        return "decr-scene: cloud removal"

    def icon(self):
        """Return the picture in the toolbox."""
        return QIcon(os.path.join(os.path.dirname(__file__), "icon.svg"))

    def versionInfo(self):
        """Return the version of the program that installed the plugin."""
        return program.installed().get("version", "")

    def load(self):
        """Add the page of settings, then the algorithms."""
        settings = _settings()
        if settings is not None:
            config, setting = settings
            config.settingIcons[self.name()] = self.icon()
            text = "Python of decr-scene, or its program; empty: the one that installed this plugin"
            config.addSetting(setting(self.name(), program.SETTING, text, "", valuetype=setting.FILE))
            config.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self):
        """Remove the page of settings."""
        settings = _settings()
        if settings is not None:
            settings[0].removeSetting(program.SETTING)

    def loadAlgorithms(self):
        """Add all algorithms."""
        for algorithm in (RemoveClouds, RemoveCloudsOfFolder, Inspect, CloudMask):
            self.addAlgorithm(algorithm())

    def supportsNonFileBasedOutput(self):
        """Return that outputs are files."""
        return False

    def supportedOutputRasterLayerExtensions(self):
        """Return the ending of GeoTIFF, which the program writes."""
        return ["tif"]

    def defaultRasterFileExtension(self):
        """Return the ending of GeoTIFF, which the program writes."""
        return "tif"


def _settings():
    """Import Processing's settings; ``None`` where its Python part is missing."""
    try:
        from processing.core.ProcessingConfig import ProcessingConfig, Setting
    except ImportError:
        return None
    return ProcessingConfig, Setting
