"""Pairs that the tests of training share."""

import numpy as np
import pytest
from pair_cases import save_png, smooth_ground


@pytest.fixture
def root(tmp_path):
    """Six pairs of 64 px: noise smoothed by hand, with a white square for a cloud and another tone."""
    rng = np.random.default_rng(0)
    for number in range(6):
        ground = smooth_ground(rng, 8, 64, (40, 160))
        cloudy = ground * 0.8 + 20
        cloudy[10:30, 20:40] = 250
        save_png(tmp_path / "clear" / f"{number}.png", ground)
        save_png(tmp_path / "cloudy" / f"{number}.png", cloudy)
    return tmp_path
