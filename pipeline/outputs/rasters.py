"""Define the rasters beside an output: the origin of each pixel, and how uncertain it is."""

from __future__ import annotations

import numpy as np

from decr_scene.pipeline.outputs.side_file import SideRaster
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration import provenance
from decr_scene.pipeline.writing.origin import Companion


class Provenance(SideRaster):
    """The class of every pixel: nodata, original, blended or generated."""

    role = "provenance"
    ending = "_provenance.tif"

    def companion(self, scene: RasterioScene) -> Companion:
        """Describe one band of classes with a colour table."""
        return Companion(
            scene, ("provenance",), np.dtype(np.uint8), provenance.NODATA, provenance.TAGS, provenance.COLORS
        )


class Uncertainty(SideRaster):
    """The standard deviation of each pixel, DN of the scene: of samples, expected of the model, or both."""

    role = "uncertainty"
    ending = "_uncertainty.tif"
    option = "uncertainty"

    def companion(self, scene: RasterioScene) -> Companion:
        """Describe one band of float32, NaN where nothing is valid."""
        return Companion(
            scene, ("standard deviation",), np.dtype(np.float32), np.nan, (("UNITS", "DN of the scene"),)
        )
