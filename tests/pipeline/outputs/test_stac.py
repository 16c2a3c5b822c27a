"""The STAC item beside an output: where, when and what, for whoever reads items."""

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from beside_cases import run
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from raster_cases import no_georeferencing, plain, rational
from rasterio.crs import CRS
from resume_cases import hidden

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.outputs.polygons import to_wgs84
from decr_scene.pipeline.outputs.stac import _bbox, acquired
from decr_scene.pipeline.products.stac_item import find_asset
from decr_scene.pipeline.raster.scene import RasterioScene


def item_of(path):
    """Read an Item and hold it against the core schema; those of extensions are not to be had offline."""
    item = pystac.Item.from_dict(json.loads(path.read_text()))
    JsonSchemaSTACValidator().validate_core(
        item.to_dict(), pystac.STACObjectType.ITEM, str(pystac.get_stac_version())
    )
    return item


def test_the_stac_item_says_where_when_and_what(scene, tmp_path):
    with rasterio.open(scene, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2021-05-04 02:11:00")
    run(scene, stac=True, samples=2, quicklook=True)
    item = item_of(tmp_path / "clean.stac.json")
    assert item.datetime.isoformat() == "2021-05-04T02:11:00+00:00"
    assert item.properties["decr_scene:datetime_from"] == "IMAGERY:ACQUISITIONDATETIME"
    assert item.properties["proj:code"] == "EPSG:32650"
    assert item.properties["proj:shape"] == [300, 280]
    assert item.properties["processing:software"].keys() == {"decr-scene"}
    assert {"data", "provenance", "uncertainty", "report", "style"} <= item.assets.keys()
    assert all((tmp_path / unquote(asset.href)).exists() for asset in item.assets.values())
    assert all(asset.roles for asset in item.assets.values())
    titles = [asset.title for asset in item.assets.values()]
    assert len({*titles} - {None, ""}) == len(titles), "of each its own"
    assert [band["data_type"] for band in item.assets["data"].extra_fields["raster:bands"]] == ["uint16"] * 4
    place = rasterio.warp.transform_bounds("EPSG:32650", "EPSG:4326", *rasterio.open(scene).bounds)
    np.testing.assert_allclose(item.bbox, place, atol=1e-5)
    outline = shapely.geometry.shape(item.geometry)
    corners = shapely.geometry.mapping(shapely.box(*rasterio.open(scene).bounds))
    whole = shapely.geometry.shape(rasterio.warp.transform_geom("EPSG:32650", "EPSG:4326", corners))
    assert outline.area / whole.area == pytest.approx(1 - 40 * 50 / (300 * 280), abs=0.003), "without nodata"


@pytest.mark.parametrize(
    ("tags", "first", "last", "origin"),
    [
        ({"TIFFTAG_DATETIME": "2020:01:02 03:04:05"}, "2020-01-02T03:04:05", None, "TIFFTAG_DATETIME"),
        ({"DATE_ACQUIRED": "2020-01-02"}, "2020-01-02T00:00:00", "2020-01-02T23:59:59", "DATE_ACQUIRED"),
        (
            {"TIFFTAG_DATETIME": "2020:01:02 03:04:05", "ACQUISITION_TIME": "2019-05-06T07:08:09+08:00"},
            *("2019-05-05T23:08:09", None, "ACQUISITION_TIME"),
        ),
        ({"ACQUISITION_TIME": "yesterday"}, None, None, None),
    ],
)
def test_the_time_is_what_a_tag_says(tags, first, last, origin, scene):
    with rasterio.open(scene, "r+") as dataset:
        dataset.update_tags(**tags)
    with RasterioScene.open(scene) as opened:
        found = acquired(opened)
    if first is None:
        assert found is None
    else:
        expected = (f"{first}+00:00", f"{last or first}+00:00", origin)
        assert (found[0].isoformat(), found[1].isoformat(), found[2]) == expected


def test_a_day_is_a_span_and_no_time_at_all_is_said(scene, tmp_path):
    run(scene, stac=True)
    item = item_of(tmp_path / "clean.stac.json")
    assert item.properties["decr_scene:datetime_from"].startswith("time of processing")
    with rasterio.open(scene, "r+") as dataset:
        dataset.update_tags(DATE_ACQUIRED="2020-01-02")
    run(scene, stac=True, overwrite=True)
    item = item_of(tmp_path / "clean.stac.json")
    assert item.datetime is None
    assert item.properties["end_datetime"] == "2020-01-02T23:59:59Z"


@pytest.mark.parametrize(("crs", "x"), [("EPSG:4326", 179.999), ("EPSG:4326", 539.999), ("EPSG:32601", None)])
def test_across_180_degrees_outline_and_box_are_cut(crs, x, tmp_path):
    y, side = 10.0, 1e-5
    if x is None:
        (x,), (y,), side = *rasterio.warp.transform("EPSG:4326", crs, [179.999], [-17.0]), 4.0
    place = rasterio.transform.from_origin(x, y, side, side)
    scene = plain(tmp_path / "scene.tif", (60, 300), 1, crs=crs, transform=place)
    run(scene, stac=True, polygons=tmp_path / "areas.geojson")
    item = item_of(tmp_path / "clean.stac.json")
    west, south, east, north = item.bbox
    assert 179.9 < west < 180
    assert -180 < east < -179.9
    assert south < north
    outline = shapely.geometry.shape(item.geometry)
    assert outline.is_valid
    assert len(outline.geoms) == 2
    assert outline.bounds[::2] == (-180, 180)
    area = json.loads((tmp_path / "areas.geojson").read_text())["features"][0]
    assert shapely.geometry.shape(area["geometry"]).bounds[2] == 180


def test_what_touches_180_degrees_leaves_areas_alone():
    corner = shapely.Polygon([(179, 0), (181, 0), (181, 1), (180, 1), (180, 2), (179, 2)])
    cut = to_wgs84(corner, CRS.from_epsg(4326))
    assert cut.geom_type == "MultiPolygon"
    assert cut.bounds == (-180, 0, 180, 2)
    metres = shapely.box(5e5, 4e6 - 64, 5e5 + 64, 4e6)
    assert to_wgs84(metres, CRS.from_epsg(4326)).bounds == metres.bounds
    parts = ((-180, 50, -60, 70), (-73, 72, -10, 83), (-20, -30, 50, 30), (60, 50, 180, 70))
    world = shapely.MultiPolygon([shapely.box(*part) for part in parts])
    assert _bbox(world) == [-180, -30, 180, 83]


def test_an_item_takes_any_name_that_a_file_may_have(scene, tmp_path):
    process_scene(scene, tmp_path / "a#b?c;d%20e.tif", model="identity", stac=True)
    item = pystac.Item.from_dict(json.loads((tmp_path / "a#b?c;d%20e.stac.json").read_text()))
    assert item.id == "a#b?c;d%20e"
    assert item.assets["data"].href == "./a%23b%3Fc%3Bd%2520e.tif"
    process_scene(scene, tmp_path / "a b%41.tif", model="identity", stac=True)
    assert Path(find_asset(tmp_path / "a b%41.stac.json", None).href) == tmp_path / "a b%41.tif"
    assert not hidden(tmp_path)


def test_a_scene_without_a_place_has_an_item_without_geometry(tmp_path):
    scene = no_georeferencing(tmp_path)
    process_scene(scene, tmp_path / "clean.tif", model="identity", stac=True)
    item = item_of(tmp_path / "clean.stac.json")
    assert item.geometry is None
    assert item.properties["proj:code"] is None


def test_a_scene_with_a_crs_that_rpcs_alone_place_has_no_pixel_numbers_for_coordinates(tmp_path):
    scene = plain(tmp_path / "scene.tif", (120, 90), 4, crs="EPSG:4326", transform=None)
    with rasterio.open(scene, "r+") as dataset:
        dataset.rpcs = rational()
    process_scene(scene, tmp_path / "clean.tif", model="identity", stac=True)
    item = item_of(tmp_path / "clean.stac.json")
    assert item.geometry is None
    assert "proj:bbox" not in item.properties
    with pytest.raises(SceneError, match="has no CRS and transform, polygons need them"):
        process_scene(scene, tmp_path / "b.tif", model="identity", polygons=str(tmp_path / "b.geojson"))
