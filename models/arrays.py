"""Types of the arrays that go from room to room."""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
"""Images on the scale of [-1, 1], and weights."""

Double = NDArray[np.float64]
"""Where float32 would round."""
