"""Which scenes have room below a veil: by their pixels, their size and what restores them."""

import numpy as np
import pytest
from raster_cases import write
from rasterio.transform import from_origin

from decr_scene.pipeline import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene


@pytest.mark.parametrize(
    ("model", "metres", "px", "room"),
    [
        ("default", 0.5, 512, True),
        ("default", 2.0, 512, True),
        ("default", 2.5, 512, False),
        ("default", 0.5, 511, False),
        ("fill", 0.5, 512, False),
    ],
)
def test_room_below_a_veil(model, metres, px, room, tmp_path):
    veiled = np.random.default_rng(0).integers(2500, 3000, (4, px, px)).astype(np.uint16)
    place = from_origin(4e5, 4e6, metres, metres)
    path = write(tmp_path / "scene.tif", veiled, transform=place)
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=model, bands="blue,green,red,nir")).plan
    assert (max(plan.radiometry.low) == 0) == room
