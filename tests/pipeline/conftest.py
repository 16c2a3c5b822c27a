"""What several test files need as a fixture."""

from datetime import timedelta

import batch_cases
import beside_cases
import pytest
from hypothesis import settings

# a busy machine fails no test: examples take some milliseconds each
settings.register_profile("any machine", deadline=timedelta(seconds=2))
settings.load_profile("any machine")


@pytest.fixture
def folders(tmp_path):
    """Three scenes, and where they go."""
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    for name in ("a", "b", "c"):
        batch_cases.scene(src / f"{name}.tif")
    return src, dst


@pytest.fixture
def scene(tmp_path):
    """Four bands with a corner of nodata, in files that have no scene of their own."""
    return beside_cases.bgrn(tmp_path)


@pytest.fixture
def mask(tmp_path):
    """Cloud over a part of that scene."""
    return beside_cases.cloud_mask(tmp_path)
