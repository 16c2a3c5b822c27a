"""Types of the arrays that go from room to room, here and in the pipeline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
"""Images on the models' scale of [-1, 1], and weights."""

Double = NDArray[np.float64]
"""Coordinates, and sums that must not round."""

Bool = NDArray[np.bool_]
"""Masks and validity."""

Pixels = NDArray[Any]
"""Digital numbers, in the dtype of their raster."""
