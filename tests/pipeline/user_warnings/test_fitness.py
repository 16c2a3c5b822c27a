"""A scene that its model was not made for: the size of its pixels, or what its bands are."""

import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from look_cases import BGRN, bright_is_cloud, land, scene_of
from model_cases import idle_model
from places import SAMPLES
from raster_cases import draw, palette, with_gcps, with_rpc, write
from rasterio.transform import Affine, from_origin

from decr_scene.models.checkpoints import model_file
from decr_scene.models.checkpoints.model_file import read_model_config
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import ground_size
from decr_scene.pipeline.user_warnings.fitness import misfits


def placed(path, crs, transform, shape=(80, 90)):
    write(path, draw(shape, 4, "uint16"), crs=crs, transform=transform)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = BGRN
    return RasterioScene.open(path)


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32650", from_origin(500000, 4000000, 0.75, 0.75), 0.75),
        ("EPSG:32650", Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(2, -8), 4),
        ("EPSG:2263", from_origin(985000, 200000, 2, 2), 0.6096),  # feet of a survey
        ("EPSG:4326", from_origin(10, 60.04, 1e-3, 1e-3), np.sqrt(111.42 * 55.8)),
        ("EPSG:3857", from_origin(1e6, 8399738, 1.2, 1.2), 0.6),  # at 60 degrees north, twice as large
        ("EPSG:4326", from_origin(179.99, 1, 1e-3, 1e-3), 110.95),  # over the antimeridian
    ],
)
def test_pixels_are_measured_on_the_ground_in_any_unit_and_projection(tmp_path, crs, transform, metres):
    assert ground_size(placed(tmp_path / "scene.tif", crs, transform)) == pytest.approx(metres, rel=0.01)


def test_pixels_of_scenes_without_a_transform_are_measured_by_their_points(tmp_path):
    # of the points: 1/777 degree a column and 1/999 degree a row, at 43 degrees north
    by_points = ground_size(RasterioScene.open(with_gcps(tmp_path)))
    assert by_points == pytest.approx(np.sqrt(111_090 / 999 * 81_540 / 777), rel=0.01)
    assert ground_size(RasterioScene.open(with_rpc(tmp_path))) > 0
    nowhere = write(tmp_path / "none.tif", draw((100, 120), 4, "uint16"), transform=None, crs=None)
    assert ground_size(RasterioScene.open(nowhere)) is None


@pytest.mark.parametrize(
    ("model", "side", "said"),
    [
        ("default", 30, "pixels are 30 m, and model default was made for 0.3 to 5 m"),
        ("default", 0.1, "pixels are 0.1 m"),
        ("default", 0.5, None),
        ("rgb", 10, "pixels are 10 m, and model rgb was made for 0.3 to 5 m"),
        ("rice2", 30, None),
        ("rice2", 10, "model rice2 was made for 30 m"),
    ],
)
def test_pixels_of_another_size_than_the_models_are_told(model, side, said, tmp_path):
    scene = placed(tmp_path / "scene.tif", "EPSG:32650", from_origin(500000, 4000000, side, side))
    told = [text for text in misfits(plan_scene(scene, Options(model=model)), scene) if "pixels" in text]
    assert (len(told) == 1 and said in told[0]) if said else not told


def test_true_colour_into_short_wave_weights_is_told_and_false_colour_is_not(tmp_path):
    scene = placed(tmp_path / "scene.tif", "EPSG:32650", from_origin(500000, 4000000, 30, 30))
    (told,) = misfits(plan_scene(scene, Options(model="rice2")), scene)
    assert "made for swir, nir, green in the place of red, green, blue, and the scene has nir" in told
    with RasterioScene.open(SAMPLES / "landsat_cloudy.tif") as composite:
        assert misfits(plan_scene(composite, Options(model="rice2")), composite) == ()


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """A quick model that was made for what `default` was."""
    bright_is_cloud(monkeypatch)
    return str(idle_model(tmp_path / "idle.safetensors", BGRN, "default", context=True))


def test_what_does_not_fit_stands_in_the_report_and_in_inspect(tmp_path, idle):
    scene = scene_of(tmp_path / "scene.tif", land((64, 64), cloud=(slice(20, 30), slice(20, 30)))[0])
    report = process_scene(scene, tmp_path / "clean.tif", model=idle)
    for warnings in (report.warnings, inspect_scene(scene, model=idle)["warnings"]):
        assert any("pixels are 30 m" in text for text in warnings)


def test_a_scene_all_under_cloud_is_told(tmp_path, idle):
    scene = scene_of(tmp_path / "scene.tif", land((64, 64), cloud=(slice(0, 64), slice(0, 64)))[0])
    report = process_scene(scene, tmp_path / "clean.tif", model=idle)
    assert any("hardly any ground is clear" in text and "a guess" in text for text in report.warnings)


@pytest.mark.parametrize(("side", "fitted"), [(10, True), (1, False)])
def test_bundled_models_take_8_bits_whether_they_are_fitted_or_not(side, fitted, tmp_path):
    image = (land((64, 64), cloud=(slice(20, 30), slice(20, 30)))[0] // 40).astype(np.uint8)
    scene = RasterioScene.open(scene_of(tmp_path / "scene.tif", image, side=side))
    for model in ("default", "rgb"):
        planned = plan_scene(scene, Options(model=model))
        assert (planned.plan.radiometry.high[0] != 255) == fitted
        assert not [text for text in misfits(planned, scene) if "--scale" in text]


BYTES = {"uint8": [0, 255]}
NO_SCALING = r"of the scaling \(other\)"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"info": {"pixels": [5, 40]}}, None),
        ({"info": {"pixels": [5, 20]}}, "was made for 5 to 20 m"),
        ({"info": {"pixels": "small"}}, "says 'small' of its pixels"),
        ({"info": {"pixels": [5]}}, r"says \[5\] of its pixels"),
        ({"info": {"pixels": [float("nan"), 10**400]}}, "of its pixels"),
        ({"info": {"spectrum": 7}}, "says 7 of its spectrum"),
        ({"scaling": {**BYTES, "other": "quantiles"}}, None),
        ({"scaling": {}}, f"says nothing {NO_SCALING}"),
        ({"scaling": {"kind": "fixed"}}, f"says {{'kind': 'fixed'}} {NO_SCALING}"),
        ({"scaling": {**BYTES, "other": None}}, f"says None {NO_SCALING}"),
        ({"scaling": {"other": [0, float("nan")]}}, rf"says \[0, nan\] {NO_SCALING}"),
        ({"scaling": {"other": [9, 0]}}, NO_SCALING),
        ({"scaling": {"other": [0, 10**400]}}, NO_SCALING),
        ({"scaling": {"other": [0, 4000]}}, "trained on DN of 0 to 4000, .* take --scale 0,4000"),
    ],
)
def test_what_the_file_of_a_model_tells_of_itself_is_read_or_told(told, said, tmp_path, idle, monkeypatch):
    path = scene_of(tmp_path / "scene.tif", land((64, 64))[0])
    planned = plan_scene(scene := RasterioScene.open(path), Options(model=idle))
    config = replace(read_model_config(idle), **{"info": {"pixels": [5, 40]}, "scaling": BYTES, **told})
    monkeypatch.setattr(model_file, "read_model_config", lambda path: config)
    warnings = [
        text for text in misfits(planned, scene) if "pixels are 30 m" not in text or "5 to 20" in text
    ]
    assert len(warnings) == (said is not None)
    assert said is None or re.search(said, warnings[0])


def test_limits_that_a_model_tells_may_be_given_with_scale(tmp_path, idle, monkeypatch):
    path = scene_of(tmp_path / "scene.tif", land((64, 64))[0])
    planned = plan_scene(scene := RasterioScene.open(path), Options(model=idle, scale=(0, 4000)))
    config = replace(read_model_config(idle), info={"pixels": [5, 40]}, scaling={"other": [0, 4000]})
    monkeypatch.setattr(model_file, "read_model_config", lambda path: config)
    assert misfits(planned, scene) == ()


def test_the_sample_of_half_a_metre_fits(tmp_path):
    with RasterioScene.open(SAMPLES / "rotterdam_cloudy.tif") as scene:
        assert misfits(plan_scene(scene, Options()), scene) == ()


@pytest.mark.parametrize(("side", "installed", "said"), [(30, None, 1), (30, "1.0.0", 0), (0.5, None, 0)])
def test_a_detector_that_is_lent_to_fill_is_said_to_be_made_for_other_pixels(
    side, installed, said, tmp_path, monkeypatch
):
    """Three bands of 30 m without `ukis-csmask`: what looks was made for half a metre, and may be blind."""
    monkeypatch.setattr(ukis, "installed_version", lambda: installed)
    profile = {"crs": "EPSG:32650", "transform": from_origin(5e5, 4e6, side, side)}
    path = write(tmp_path / "scene.tif", draw((300, 300), 3, "uint8"), photometric="RGB", **profile)
    with RasterioScene.open(path, "red,green,blue") as scene:
        found = misfits(plan_scene(scene, Options(model="fill", bands="red,green,blue")), scene)
        assert not misfits(plan_scene(scene, Options(model="identity")), scene)
    assert len(found) == said
    assert all(re.search("30 m, and model rgb was made for 0.3 to 5 m: its detector", text) for text in found)


def test_pixels_without_an_area_are_nowhere(tmp_path):
    assert ground_size(placed(tmp_path / "scene.tif", "EPSG:32633", Affine(0, 0, 5e5, 0, 0, 4e6))) is None


def test_who_looks_goes_by_the_size_that_points_give(tmp_path):
    with RasterioScene.open(with_gcps(tmp_path)) as scene:
        look = plan_scene(scene, Options(model="default", bands="blue,green,red,nir")).look
    assert look is not None
    assert look.kind == "ukis"


def test_a_single_point_places_nothing(tmp_path):
    with rasterio.open(with_gcps(tmp_path)) as dataset:
        (point, *_), crs = dataset.gcps
        pixels = dataset.read()
    profile = {"driver": "GTiff", "count": 4, "height": 200, "width": 150, "dtype": "uint16"}
    with rasterio.open(tmp_path / "one.tif", "w", **profile, gcps=[point], crs=crs) as dataset:
        dataset.write(pixels)
    assert ground_size(RasterioScene.open(tmp_path / "one.tif")) is None


def test_indexes_of_a_colour_table_are_warned_of(tmp_path):
    with RasterioScene.open(palette(tmp_path)) as scene:
        planned = plan_scene(scene, Options(restorer=lambda tiles, noise: tiles))
        assert any("indexes of a colour table" in text for text in planned.warnings)
        assert not plan_scene(scene, Options(model="identity")).warnings
