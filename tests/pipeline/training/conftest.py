"""Pairs to train on."""

import numpy as np
import pytest
from pair_cases import save_png


@pytest.fixture
def data(tmp_path):
    """Six pairs of 64 px, laid out as RICE is."""
    root = tmp_path / "RICE"
    rng = np.random.default_rng(0)
    for kind in ("cloud", "label"):
        (root / kind).mkdir(parents=True)
        for number in range(6):
            save_png(root / kind / f"{number}.png", rng.integers(0, 255, (64, 64, 3)))
    return root
