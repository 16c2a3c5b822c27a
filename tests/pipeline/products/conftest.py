"""A real server of a folder, and a scene on it."""

import pytest
from raster_cases import described
from web_cases import serving


@pytest.fixture
def server(tmp_path):
    """A server of a folder; what it sent is in ``sent``."""
    with serving(tmp_path / "web") as handler:
        yield handler


@pytest.fixture
def scene(server):
    return described(server.folder / "scene.tif", ("blue", "green", "red", "nir"))
