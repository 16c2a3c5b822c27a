"""Define the rasters beside an output: the origin of each pixel, and how uncertain it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

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


@dataclass(frozen=True)
class Uncertainty(SideRaster):
    """The standard deviation of each pixel, DN of the scene: of samples, expected of the model, or both.

    Args:
        of: Which of them, as `Options.uncertainty_of`.
    """

    of: str = ""

    role = "uncertainty"
    ending = "_uncertainty.tif"
    option = "uncertainty"

    @classmethod
    def requested(cls, options: Mapping[str, Any]) -> Self | None:
        """Make one if the options ask for it."""
        return cls(options["uncertainty"]) if options["uncertainty"] else None

    def companion(self, scene: RasterioScene) -> Companion:
        """Describe one band of float32, NaN where nothing is valid."""
        name = f"standard deviation: {self.of}"
        return Companion(scene, (name,), np.dtype(np.float32), np.nan, (("UNITS", "DN of the scene"),))
