"""Areas of interest in longitudes, which are the same places a turn apart."""

import numpy as np
import pytest
import shapely
from area_cases import geojson
from raster_cases import write
from rasterio.transform import Affine

from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.tiling.grid import Span


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4720"], ids=["its own CRS", "of another datum"])
@pytest.mark.parametrize(
    "boxes",
    [
        [(179.9, 180), (-180, -179.95)],
        [(179.9, 180.05)],
        [(-180.1, -179.95)],
    ],
    ids=["cut at the antimeridian", "beyond it to the east", "a turn to the west"],
)
def test_longitudes_a_turn_apart_are_the_same_place(boxes, crs, tmp_path):
    """A scene in degrees from 179.85 on, of .001 a pixel: the area lies in its columns 50 to 199."""
    scene = write(
        tmp_path / "scene.tif",
        np.full((1, 60, 300), 9, "uint8"),
        crs=crs,
        transform=Affine(1e-3, 0, 179.85, 0, -1e-3, 10),
    )
    area = tmp_path / "area.geojson"
    parts = [shapely.box(west, 9.9, east, 10.1) for west, east in boxes]
    geojson(area, shapely.union_all(parts), crs="EPSG:4326", own="EPSG:4326")
    with RasterioScene.open(scene) as opened:
        rows, cols = np.nonzero(Aoi.read(str(area), opened).soft(Span(0, 0, 60, 300)))
    assert (rows.min(), rows.max()) == (0, 59)
    assert cols.min() == pytest.approx(50, abs=1)
    assert cols.max() == pytest.approx(199, abs=1)
    assert len(np.unique(cols)) == cols.max() - cols.min() + 1


def test_an_area_about_greenwich_lies_at_both_ends_of_a_world_from_0_to_360(tmp_path):
    scene = write(
        tmp_path / "scene.tif",
        np.full((1, 60, 1440), 9, "uint8"),
        crs="EPSG:4326",
        transform=Affine(0.25, 0, 0, 0, -0.25, 7.5),
    )
    area = tmp_path / "area.geojson"
    for own in ("EPSG:4326", "EPSG:3857"):
        geojson(area, shapely.box(-9, -20, 9, 20), crs="EPSG:4326", own=own)
        with RasterioScene.open(scene) as opened:
            _, cols = np.nonzero(Aoi.read(str(area), opened).soft(Span(0, 0, 60, 1440)))
        np.testing.assert_array_equal(np.unique(cols), [*range(36), *range(1404, 1440)])


def test_an_area_on_a_map_lies_across_the_antimeridian(tmp_path):
    scene = write(
        tmp_path / "scene.tif",
        np.full((1, 60, 300), 9, "uint8"),
        crs="EPSG:4326",
        transform=Affine(1e-3, 0, 179.85, 0, -1e-3, 10),
    )
    area = tmp_path / "area.geojson"
    geojson(area, shapely.box(179.9, 9.9, 180.05, 10.1), crs="EPSG:4326", own="EPSG:32660")
    with RasterioScene.open(scene) as opened:
        _, cols = np.nonzero(Aoi.read(str(area), opened).soft(Span(0, 0, 60, 300)))
    assert cols.min() == pytest.approx(50, abs=2)
    assert cols.max() == pytest.approx(199, abs=2)
    assert len(np.unique(cols)) == cols.max() - cols.min() + 1
