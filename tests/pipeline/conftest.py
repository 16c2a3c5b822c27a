"""What several test files need as a fixture."""

import pytest
from batch_cases import scene


@pytest.fixture
def folders(tmp_path):
    """Three scenes, and where they go."""
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    for name in ("a", "b", "c"):
        scene(src / f"{name}.tif")
    return src, dst
