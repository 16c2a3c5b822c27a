"""Areas of interest: polygons of any vector file, laid over any scene; outside nothing changes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import shapely
from area_cases import geojson
from raster_cases import NORTH_UP, UTM, draw, plain, rotated, south_up, with_gcps, with_rpc, write
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from test_resume import failing_after
from test_run import pixels_of, smooth

from decr_scene.pipeline import open_scene, process_scene, restore
from decr_scene.pipeline.errors import MaskError, OptionError, ResumeError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import georeferencing_of
from decr_scene.pipeline.regions.aoi import FALLOFF, Aoi
from decr_scene.pipeline.tiling.grid import Span, TileGrid

SHAPE = (700, 900)


def brighter(tiles, noise):
    return np.clip(tiles + 0.2, -1, 1)


@pytest.fixture
def scene(tmp_path):
    """Flat: whatever changes, changes visibly."""
    return write(tmp_path / "scene.tif", np.full((3, *SHAPE), 100, "uint8"))


def in_pixels(*points):
    """A polygon whose corners are (row, col)."""
    return shapely.Polygon([(col, row) for row, col in points])


TRIANGLE = in_pixels((100, 120), (150, 480), (400, 200))
FAR_CORNER = in_pixels((600, 800), (600, 900), (700, 900), (700, 800))


def on_the_ground(polygon, transform=NORTH_UP):
    return shapely.transform(polygon, lambda xy: np.column_stack(transform @ (xy[:, 0], xy[:, 1])))


def inside(polygon, shape=SHAPE):
    return rasterize([polygon], shape).astype(bool)


def changed(scene, out):
    return (pixels_of(scene) != pixels_of(out)).any(axis=0)


def vector_file(path, polygons, crs, layer=None):
    """Any format, written by pyogrio in a process of its own: it brings another GDAL."""
    code = """
import sys, json, pyogrio, shapely, numpy as np
path, crs, layer, *texts = sys.argv[1:]
wkb = np.array([shapely.to_wkb(shapely.from_wkt(t)) for t in texts], dtype=object)
pyogrio.raw.write(path, geometry=wkb, field_data=[np.arange(len(wkb))], fields=["id"],
    geometry_type="Polygon", crs=crs or None, layer=layer or None, append=bool(layer),
    driver="KML" if path.endswith(".kml") else None)
"""
    texts = [shapely.to_wkt(p) for p in polygons]
    command = [sys.executable, "-W", "ignore", "-c", code, str(path), crs or "", layer or "", *texts]
    subprocess.run(command, check=True)
    return path


# -- what changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [UTM, "EPSG:4326", "EPSG:3857"])
def test_only_inside_anything_changes(own, scene, tmp_path):
    area = geojson(tmp_path / "area.geojson", on_the_ground(TRIANGLE), own=own)
    report = process_scene(scene, tmp_path / "clean.tif", restorer=brighter, mask="none", aoi=str(area))
    change, expected = changed(scene, tmp_path / "clean.tif"), inside(TRIANGLE)
    if own != UTM:  # a corner may fall on another side of a pixel's centre
        expected = rasterize([TRIANGLE.buffer(0.1)], SHAPE).astype(bool)
    assert not change[~expected].any()
    assert change[inside(TRIANGLE.buffer(-3))].all()
    deep = inside(TRIANGLE.buffer(-FALLOFF - 1))
    assert (pixels_of(tmp_path / "clean.tif")[:, deep] == 126).all()
    assert report.tiles["restored"] < report.tiles["total"]


def test_the_edge_is_soft_and_inside(scene, tmp_path):
    area = geojson(tmp_path / "area.geojson", on_the_ground(shapely.box(200, 200, 400, 400)))
    with RasterioScene.open(scene) as opened:
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, *SHAPE))
    assert np.count_nonzero(weights[:200]) == np.count_nonzero(weights[400:]) == 0
    profile = weights[300, 200 : 200 + FALLOFF + 1]
    assert (np.diff(profile) > 0)[: FALLOFF - 1].all()
    assert profile[0] < 0.02
    assert np.diff(profile).max() < 2 / FALLOFF
    assert (weights[200 + FALLOFF : 400 - FALLOFF, 200 + FALLOFF : 400 - FALLOFF] == 1).all()


def test_weights_do_not_depend_on_the_window(scene, tmp_path):
    area = geojson(tmp_path / "a.geojson", on_the_ground(TRIANGLE), on_the_ground(FAR_CORNER))
    with RasterioScene.open(scene) as opened:
        aoi = Aoi.read(str(area), opened)
    whole = aoi.soft(Span(0, 0, *SHAPE))
    for row, col, height, width in [
        (90, 110, 60, 300),
        (0, 0, 700, 7),
        (333, 150, 200, 99),
        (699, 899, 1, 1),
    ]:
        part = aoi.soft(Span(row, col, height, width))
        np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])


def test_the_border_of_the_scene_is_no_edge_of_the_area(scene, tmp_path):
    world = shapely.box(-179, -80, 179, 84)
    area = geojson(tmp_path / "area.geojson", world, crs="EPSG:4326", own="EPSG:4326")
    process_scene(scene, tmp_path / "clean.tif", restorer=brighter, mask="none", aoi=str(area))
    assert (pixels_of(tmp_path / "clean.tif") == 126).all()


def test_holes_stay(scene, tmp_path):
    ring = shapely.Polygon(
        shapely.box(100, 100, 600, 600).exterior, [shapely.box(250, 250, 450, 450).exterior]
    )
    area = geojson(tmp_path / "area.geojson", on_the_ground(ring))
    process_scene(scene, tmp_path / "clean.tif", restorer=brighter, mask="none", aoi=str(area))
    np.testing.assert_array_equal(changed(scene, tmp_path / "clean.tif") & ~inside(ring), False)
    assert changed(scene, tmp_path / "clean.tif")[200, 200]


def test_tiles_that_it_does_not_touch_are_not_sampled(scene, tmp_path):
    seen = []

    def counting(tiles, noise):
        seen.append(len(tiles))
        return brighter(tiles, noise)

    area = geojson(tmp_path / "area.geojson", on_the_ground(FAR_CORNER))
    process_scene(scene, tmp_path / "clean.tif", restorer=counting, mask="none", aoi=str(area))
    grid = TileGrid(SHAPE)
    touched = [tile for tile in grid if tile.row + 256 > 600 and tile.col + 256 > 800]
    assert sum(seen) == len(touched) < len(grid)


def test_mask_and_area_both_restrict(scene, tmp_path):
    area = geojson(tmp_path / "area.geojson", on_the_ground(shapely.box(200, 0, 500, 700)))
    cloud = np.zeros((1, *SHAPE), "uint8")
    cloud[0, 300:400, :350] = 1
    mask = write(tmp_path / "mask.tif", cloud)
    out = tmp_path / "clean.tif"
    process_scene(scene, out, restorer=brighter, mask=str(mask), aoi=str(area))
    change = changed(scene, out)
    assert change[350, 300]
    assert not change[:, :200].any()  # cloud outside the area
    assert not change[:250].any()  # area without cloud
    assert not change[:, 400:].any()


def test_mask_and_area_that_never_meet_change_nothing(scene, tmp_path):
    area = geojson(tmp_path / "area.geojson", on_the_ground(FAR_CORNER))
    cloud = np.zeros((1, *SHAPE), "uint8")
    cloud[0, :50, :50] = 1
    mask = write(tmp_path / "mask.tif", cloud)
    report = process_scene(scene, tmp_path / "c.tif", restorer=brighter, mask=str(mask), aoi=str(area))
    assert not changed(scene, tmp_path / "c.tif").any()
    assert report.tiles["restored"] == 0
    assert any("no pixel is in" in warning for warning in report.warnings)


@pytest.mark.parametrize("make", [rotated, south_up], ids=lambda make: make.__name__)
def test_other_transforms(make, tmp_path):
    scene = make(tmp_path)
    with rasterio.open(scene) as dataset:
        transform, shape = dataset.transform, dataset.shape
    square = shapely.box(20, 25, 66, 71)
    area = geojson(tmp_path / "area.geojson", on_the_ground(square, transform))
    with RasterioScene.open(scene) as opened:
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, *shape))
    np.testing.assert_array_equal(weights > 0, inside(square, shape))


@pytest.mark.parametrize(("make", "shape"), [(with_gcps, (200, 150)), (with_rpc, (120, 90))])
def test_scenes_that_only_points_or_rpcs_place(make, shape, tmp_path):
    """Corners of known pixels, by the scene's own model, come back to these pixels."""
    scene = make(tmp_path)
    square = shapely.box(20, 30, 70, 80)
    with RasterioScene.open(scene) as opened:
        place = georeferencing_of(opened)
        ground = shapely.transform(square.segmentize(5), place.to_coordinates)
        area = geojson(tmp_path / "area.geojson", ground, crs="EPSG:4326", own="EPSG:4326")
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, *shape))
    far = inside(square.buffer(1.5), shape)
    assert not weights[~far].any()
    assert (weights[inside(square.buffer(-1.5), shape)] > 0).all()


def test_gcps_place_an_area_by_hand(tmp_path):
    """Four points at the corners of a plain grid: where a coordinate falls can be told without a library."""
    points = [
        rasterio.control.GroundControlPoint(row, col, 100 + col / 1000, 40 - row / 1000)
        for row, col in ((0, 0), (0, 200), (200, 0), (200, 200))
    ]
    path = tmp_path / "points.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 200, "width": 200, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:4326") as dataset:
        dataset.write(np.full((1, 200, 200), 9, "uint8"))
    area = tmp_path / "area.geojson"
    geojson(area, shapely.box(100.05, 39.85, 100.15, 39.95), crs="EPSG:4326", own="EPSG:4326")
    with RasterioScene.open(path) as opened:
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, 200, 200))
    rows, cols = np.nonzero(weights)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (50, 149, 50, 149)


# -- what is read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".gml"])
def test_any_vector_format(suffix, scene, tmp_path):
    area = vector_file(tmp_path / f"area{suffix}", [on_the_ground(TRIANGLE)], UTM)
    with RasterioScene.open(scene) as opened:
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, *SHAPE))
    assert not weights[~inside(TRIANGLE.buffer(0.1))].any()
    assert (weights[inside(TRIANGLE.buffer(-1))] > 0).all()


@pytest.mark.parametrize("encoding", ["gb2312", "big5", "windows-1251", "shift_jis", "utf-16", "utf-8"])
@pytest.mark.parametrize("suffix", [".kml", ".gml"])
def test_xml_is_read_in_the_encoding_that_it_declares(suffix, encoding, scene, tmp_path):
    west = shapely.geometry.shape(transform_geom(UTM, "EPSG:4326", on_the_ground(TRIANGLE)))
    plain_area = vector_file(tmp_path / f"area{suffix}", [west], "EPSG:4326")
    body = plain_area.read_text("utf-8").partition("?>")[2]
    name = "\u041e" if encoding == "windows-1251" else "\u5c71"  # a letter and a mountain
    document = f'<?xml version="1.0" encoding="{encoding}"?><!-- {name} -->{body}'
    area = tmp_path / f"other{suffix}"
    area.write_bytes(document.encode(encoding))
    with RasterioScene.open(scene) as opened:
        weights = [Aoi.read(str(path), opened).soft(Span(0, 0, *SHAPE)) for path in (plain_area, area)]
    assert weights[0].any()
    np.testing.assert_array_equal(*weights)


def test_a_layer_is_named_as_in_qgis(scene, tmp_path):
    path = tmp_path / "areas.gpkg"
    vector_file(path, [on_the_ground(TRIANGLE)], UTM, "fields")
    vector_file(path, [on_the_ground(FAR_CORNER)], UTM, "towns")
    with RasterioScene.open(scene) as opened:
        weights = Aoi.read(f"{path}|layername=towns", opened).soft(Span(0, 0, *SHAPE))
        assert weights[650, 850] == 1
        assert not weights[:599].any()
        with pytest.raises(
            MaskError, match=r"layers fields, towns, expected one: name it with areas\.gpkg\|la"
        ):
            Aoi.read(str(path), opened)


def test_geojson_of_every_shape(scene, tmp_path):
    bare = shapely.geometry.mapping(on_the_ground(TRIANGLE))
    bare = transform_geom(UTM, "EPSG:4326", bare)
    collection = {
        "type": "GeometryCollection",
        "geometries": [bare, {"type": "Point", "coordinates": [0, 0]}],
    }
    with RasterioScene.open(scene) as opened:
        digests = set()
        for document in (bare, collection, {"type": "Feature", "properties": None, "geometry": bare}):
            path = tmp_path / "area.json"
            path.write_text(json.dumps(document))
            digests.add(Aoi.read(str(path), opened).digest)
    assert len(digests) == 1


# -- what is refused -----------------------------------------------------------------------------------------

BOW_TIE = shapely.Polygon([(125, 40), (125.1, 40.1), (125.1, 40), (125, 40.1)])
ELSEWHERE = shapely.box(10, 50, 10.1, 50.1)


def refused(scene, path):
    with RasterioScene.open(scene) as opened, pytest.raises(MaskError) as caught:
        Aoi.read(str(path), opened)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"type": "FeatureCollection", "features": []}', "has nothing, expected polygons"),
        ('{"type": "Point", "coordinates": [1, 2]}', "has Point, expected polygons"),
        ('{"type": "Polygon"}', "is no GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "is no GeoJSON"),
        ('{"type": "FeatureCollection", "features": [7]}', "is no GeoJSON"),
        ('{"type": "FeatureCollection", "feat', "cannot be read"),
        ("not a vector file", "cannot be read"),
        ("", "cannot be read"),
        (json.dumps(shapely.geometry.mapping(BOW_TIE)), "polygon 1 is invalid (Self-intersection"),
        (json.dumps(shapely.geometry.mapping(ELSEWHERE)), "does not touch the scene"),
        ('{"type": "Polygon", "coordinates": [], "crs": null}', "has no CRS"),
        ('{"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": "x:y"}}}', "an unknown CRS"),
        ('{"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": 7}}}', "an unknown CRS"),
        ('{"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": "[]"}}}', "an unknown CRS"),
    ],
)
def test_a_bad_area_is_one_clear_line(content, told, scene, tmp_path):
    path = tmp_path / "area.geojson"
    path.write_text(content)
    assert told in refused(scene, path)


def test_an_area_that_is_not_there(scene, tmp_path):
    assert "no such file" in refused(scene, tmp_path / "nowhere.gpkg")


def test_a_shapefile_without_its_prj_has_no_crs(scene, tmp_path):
    area = vector_file(tmp_path / "area.shp", [on_the_ground(TRIANGLE)], None)
    assert "has no CRS: give it one" in refused(scene, area)


def test_without_pyogrio_geojson_is_still_read(scene, tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "pyogrio.py").write_text("raise ModuleNotFoundError(\"No module named 'pyogrio'\")")
    path = [str(tmp_path / "none"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    area = tmp_path / "area.gpkg"
    area.write_bytes(b"SQLite format 3\0")
    assert "read by pyogrio, which is missing or broken here: pip install pyogrio" in refused(scene, area)
    with RasterioScene.open(scene) as opened:
        Aoi.read(str(geojson(tmp_path / "area.geojson", on_the_ground(TRIANGLE))), opened)


@pytest.mark.parametrize(
    ("profile", "lacks"),
    [({"crs": None, "transform": None}, "georeferencing"), ({"crs": None}, "CRS")],
)
def test_a_scene_of_no_place_is_refused(profile, lacks, tmp_path):
    scene = plain(tmp_path / "nowhere.tif", (100, 80), 3, "uint8", **profile)
    area = geojson(tmp_path / "area.geojson", on_the_ground(TRIANGLE))
    assert f"has no {lacks}, so no area of interest" in refused(scene, area)


def test_a_scene_that_the_area_touches_by_a_line_only_is_not_touched(scene, tmp_path):
    beside = on_the_ground(shapely.box(900, 100, 1000, 300))
    assert "does not touch" in refused(scene, geojson(tmp_path / "a.geojson", beside))


def test_another_area_is_another_run(tmp_path):
    scene = write(tmp_path / "scene.tif", draw((1500, 700), 1, "uint8"))
    path = tmp_path / "area.geojson"
    failing, _ = failing_after(16)
    options = {"mask": "none", "aoi": str(path), "batch_size": 2, "blocksize": 128, "scale": (0, 255)}
    geojson(path, on_the_ground(shapely.box(0, 0, 700, 1500)))
    with pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", restorer=failing, **options)
    geojson(path, on_the_ground(shapely.box(0, 0, 690, 1500)))
    with pytest.raises(ResumeError, match="aoi"):
        process_scene(scene, tmp_path / "clean.tif", restorer=failing, **options)
    geojson(path, on_the_ground(shapely.box(0, 0, 700, 1500)))
    report = process_scene(scene, tmp_path / "clean.tif", restorer=smooth, **options)
    assert report.tiles["windows_resumed"] > 0


def test_an_array_takes_an_area_as_its_file_does(scene, tmp_path):
    path = geojson(tmp_path / "area.geojson", on_the_ground(shapely.box(100, 50, 300, 200)))
    options = {"restorer": smooth, "aoi": str(path), "mask": "none"}
    process_scene(scene, tmp_path / "clean.tif", **options)
    array = open_scene(scene)
    lazy = restore(array, **options).compute(scheduler="synchronous")
    with rasterio.open(tmp_path / "clean.tif") as dataset:
        np.testing.assert_array_equal(lazy.values, dataset.read())
    assert (lazy.values != array.values).any()
    with pytest.raises(OptionError, match="no CRS and transform"):
        restore(array.drop_vars(["spatial_ref", "x", "y"]), **options)


def test_a_transform_at_the_origin_is_a_place(tmp_path):
    """One metre a pixel from (0, 0) downwards: all but the identity."""
    scene = write(
        tmp_path / "scene.tif", np.full((1, 90, 80), 9, "uint8"), transform=Affine(1, 0, 0, 0, -1, 0)
    )
    area = geojson(tmp_path / "area.geojson", shapely.box(10, -50, 40, -20))
    with RasterioScene.open(scene) as opened:
        weights = Aoi.read(str(area), opened).soft(Span(0, 0, 90, 80))
    np.testing.assert_array_equal(weights > 0, inside(shapely.box(10, 20, 40, 50), (90, 80)))
