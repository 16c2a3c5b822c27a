"""The plugin for QGIS, which travels as data, and how it gets into QGIS."""
