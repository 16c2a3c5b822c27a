"""Who looks at a scene as a whole, and on what pixels."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from look_cases import BGRN, VEIL, bright_is_cloud, land, pixels_of, scene_of
from model_cases import tiny_model
from raster_cases import write

from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import BandError, OptionError
from decr_scene.pipeline.evaluation.answers import open_answerer, open_fill
from decr_scene.pipeline.evaluation.cloud_detection import look_at_image
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.look_plan import FILLED_FROM, coarse_factor
from decr_scene.pipeline.planning.detector import is_coarse, look_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import pixel_size
from decr_scene.pipeline.tiling.grid import Span


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


@pytest.mark.parametrize(
    ("shape", "pixel", "factor"),
    [
        ((5490, 5490), 10.0, 2),
        ((600, 600), 30.0, 1),
        ((40000, 40000), 0.5, 40),
        ((600, 700), 0.5, 8),
        ((30, 30), 0.5, 1),
        ((256, 256), None, 1),
        ((4096, 4096), None, 8),
    ],
)
def test_coarse_pixels_are_large_where_the_scene_is(shape, pixel, factor):
    assert coarse_factor(shape, pixel) == factor


def test_pixels_in_degrees_and_feet_are_measured_in_metres():
    degrees = rasterio.transform.from_origin(10, 60.01, 1e-4, 1e-4)
    side = pixel_size(rasterio.crs.CRS.from_epsg(4326), degrees, (200, 200))
    assert side == pytest.approx(11.13 * np.sqrt(0.5), rel=1e-3)
    for latitude, fills in ((60, True), (62, False)):  # 10 m along the meridian
        degrees = rasterio.transform.from_origin(10, latitude, 8.9832e-5, 8.9832e-5)
        assert is_coarse(pixel_size(rasterio.crs.CRS.from_epsg(4326), degrees, (9, 9)), FILLED_FROM) == fills
    feet = rasterio.transform.from_origin(0, 0, 3.0, 3.0)
    assert pixel_size(rasterio.crs.CRS.from_epsg(2263), feet, (9, 9)) == pytest.approx(0.9144, rel=1e-3)
    north = rasterio.transform.from_origin(1.1e6, 8.43e6, 6.0, 6.0)  # 60.2 degrees
    assert pixel_size(rasterio.crs.CRS.from_epsg(3857), north, (600, 600)) == pytest.approx(2.99, rel=3e-3)
    polar = rasterio.Affine(500, 0, -1.5e5, 0, -500, 1.5e5)  # the pole in the middle
    assert pixel_size(rasterio.crs.CRS.from_epsg(3413), polar, (600, 600)) == pytest.approx(516, rel=0.01)
    nominal = rasterio.transform.from_origin(5e5, 6.6e6, 5.0, 5.0)  # of which UTM makes 5.002 m
    assert pixel_size(rasterio.crs.CRS.from_epsg(32632), nominal, (600, 600)) == 5.0
    assert pixel_size(None, degrees, (9, 9)) is None
    for flat in ((0, 0, 5e5, 0, 0, 4e6), (2, 2, 5e5, 2, 2, 4e6), (np.nan, 0, 0, 0, -2, 0)):
        assert pixel_size(rasterio.crs.CRS.from_epsg(32650), rasterio.Affine(*flat), (9, 9)) is None
    assert coarse_factor((600, 600), 1e-300) >= 1


def test_a_detector_that_is_not_there_is_refused(tmp_path):
    model = tiny_model(tmp_path / "tiny.safetensors", bands=("red", "green", "blue"))
    scene = scene_of(tmp_path / "scene.tif", land((64, 64))[0][:3], ("red", "green", "blue"))
    with pytest.raises(OptionError, match="no detector of its own"):
        process_scene(scene, tmp_path / "c.tif", model=str(model), detector="model")
    with pytest.raises(BandError, match="nir"):
        process_scene(scene, tmp_path / "c.tif", model=str(model), detector="ukis")
    with pytest.raises(OptionError, match="detector must be"):
        process_scene(scene, tmp_path / "c.tif", model=str(model), detector="owl")


@pytest.fixture
def model(tmp_path):
    """A model of random weights, whose first guess is darker everywhere than its input."""
    return str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN, adds=-1.0))


def test_the_detector_alone_gates_and_auto_also_takes_veils(model, tmp_path):
    image, where = land((300, 700), cloud=(slice(100, 170), slice(60, 150)))
    image[:, :, 300:] += VEIL
    scene = scene_of(tmp_path / "scene.tif", image)
    strict = process_scene(scene, tmp_path / "strict.tif", model=model, detector="ukis")
    auto = process_scene(scene, tmp_path / "auto.tif", model=model)
    assert strict.tiles["restored"] < strict.tiles["total"] == auto.tiles["restored"]
    gated, open_ = (pixels_of(tmp_path / f"{name}.tif") != image for name in ("strict", "auto"))
    assert gated[:, where].mean() > 0.9
    assert not gated[:, :, 400:].any()
    assert open_[:, :, 400:].mean() > 0.9  # there this model darkens much
    told = inspect_scene(scene, model=model)
    assert told["detector"] == f"ukis {ukis.installed_version()}"
    assert told["cloudy tiles"] < told["tiles to restore"]


@pytest.mark.parametrize(
    ("side", "installed", "detector", "looks", "veils"),
    [
        (0.5, "1.0.0", "auto", "model", True),
        (0.5, "1.0.0", "model", "model", False),
        (0.5, "1.0.0", "ukis", "ukis", False),
        (30, "1.0.0", "auto", "ukis", True),
        (30, None, "auto", "model", True),
    ],
)
def test_a_detector_looks_at_pixels_that_it_knows(
    side, installed, detector, looks, veils, tmp_path, monkeypatch
):
    """One of the model's own that overlooks veils, beside one for pixels of ten metres and more."""
    monkeypatch.setattr(ukis, "installed_version", lambda: installed)
    config = DetectorConfig(bands=4, widths=(4,), veils=True)
    model = tiny_model(tmp_path / "tiny.safetensors", bands=BGRN, detector=config)
    scene = scene_of(tmp_path / "scene.tif", land()[0])
    with rasterio.open(scene, "r+") as dataset:
        dataset.transform = rasterio.transform.from_origin(500000, 4000000, side, side)
    with RasterioScene.open(scene) as opened:
        look = plan_scene(opened, Options(model=str(model), detector=detector)).look
    assert (look.kind, look.veils) == (looks, veils)


RGB = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("pixel", "installed", "bands", "looks"),
    [
        (0.5, "1.0.0", BGRN, "model default"),
        (4.9, "1.0.0", BGRN, "model default"),
        (None, "1.0.0", BGRN, "model default"),
        (5.0, "1.0.0", BGRN, "ukis 1.0.0"),
        (10.0, "1.0.0", BGRN, "ukis 1.0.0"),
        (10.0, None, BGRN, "model default"),
        (0.5, "1.0.0", RGB, "model rgb"),
        (4.9, "1.0.0", RGB, "model rgb"),
        (10.0, "1.0.0", RGB, "ukis 1.0.0 without near infrared"),
        (10.0, None, RGB, "model rgb"),
        (0.5, "1.0.0", (*RGB, "nir", "nir"), "model rgb"),
    ],
)
def test_a_bundled_model_lends_fill_its_detector_on_pixels_that_ukis_does_not_know(
    pixel, installed, bands, looks, monkeypatch
):
    monkeypatch.setattr(ukis, "installed_version", lambda: installed)
    options = Options(model="fill")
    look = look_of(spec_of(options)[0], options, bands, (600, 600), pixel)
    assert look.who == looks
    assert not look.veils, "fill itself changes all of a scene much"
    seen = [bands[index] for index in look.bands]
    visible = ["blue", "green", "red"]
    without = looks.endswith("without near infrared")
    assert seen == ([*visible, "red"] if without else visible if "rgb" in looks else list(BGRN))


def test_a_detector_that_fill_is_told_to_take_is_taken_or_refused(monkeypatch):
    monkeypatch.setattr(ukis, "installed_version", lambda: "1.0.0")

    def look(detector, bands):
        options = Options(model="fill", detector=detector)
        return look_of(spec_of(options)[0], options, bands, (600, 600), 0.5)

    assert look("ukis", BGRN).who == "ukis 1.0.0"
    assert look("ukis", RGB).who == "ukis 1.0.0 without near infrared"
    with pytest.raises(BandError, match="blue is missing"):
        look("ukis", ("red", "green", "nir"))
    with pytest.raises(OptionError, match="model fill has no detector of its own: take --detector auto"):
        look("model", BGRN)


VISIBLE = ("blue", "green", "red")


def test_ukis_looks_without_near_infrared_where_a_model_says_that_colours_are_natural(tmp_path):
    config = DetectorConfig(bands=3, widths=(4,), veils=True)
    image, where = land((300, 400), cloud=(slice(100, 170), slice(150, 250)))
    scene = scene_of(tmp_path / "scene.tif", image[:3], VISIBLE)
    for spectrum, looks in (
        (VISIBLE, f"ukis {ukis.installed_version()} without near infrared"),
        (("swir", "nir", "green"), "model"),
        (("red", "green", "blue"), "model"),
        ((), "model"),
    ):
        path = tmp_path / f"{looks}.safetensors"
        model = str(tiny_model(path, bands=VISIBLE, detector=config, spectrum=spectrum, adds=-1.0))
        with RasterioScene.open(scene) as opened:
            look = plan_scene(opened, Options(model=model)).look
        assert look.who == looks
        assert look.veils
        assert look.fills == (look.kind == "ukis")
        options = Options(model=model, detector="ukis")
        if look.kind == "model":
            with pytest.raises(BandError, match="nir is missing"):
                look_of(spec_of(options)[0], options, VISIBLE, (300, 400), 30)
            continue
        assert look_of(spec_of(options)[0], options, VISIBLE, (300, 400), 0.5).who == looks
        fine = look_of(spec_of(options)[0], Options(model=model), VISIBLE, (300, 400), 4.9)
        assert fine.kind == "model", "it looks at 5 m and coarser"
        report = process_scene(scene, tmp_path / "clean.tif", model=model)
        assert json.loads((tmp_path / "clean.json").read_text())["detector"] == looks
        assert report.tiles["restored"]
        assert (pixels_of(tmp_path / "clean.tif")[:, where] != image[:3, where]).mean() > 0.9
        scaled = (np.clip(image[:3] / 10000, 0, 1) * 2 - 1).astype(np.float32)
        assert look_at_image(look, scaled, None).mask.cloud(Span(0, 0, 300, 400))[where].mean() > 0.9


@pytest.mark.parametrize(("pixel", "installed"), [(4.9, "1.0.0"), (None, "1.0.0"), (10.0, None)])
def test_nobody_looks_without_near_infrared_where_ukis_is_not_at_home(
    pixel, installed, tmp_path, monkeypatch
):
    monkeypatch.setattr(ukis, "installed_version", lambda: installed)
    options = Options(model=str(tiny_model(tmp_path / "m.safetensors", bands=VISIBLE, spectrum=VISIBLE)))
    assert look_of(spec_of(options)[0], options, VISIBLE, (300, 400), pixel) is None
    monkeypatch.setattr(ukis, "installed_version", lambda: "1.0.0")
    assert look_of(spec_of(options)[0], options, VISIBLE, (300, 400), 10.0).kind == "ukis"


def test_a_spectrum_that_is_no_list_of_names_is_not_natural(tmp_path):
    for number, spectrum in enumerate((([["blue"]] * 3), (7, 8, 9))):
        model = tiny_model(tmp_path / f"{number}.safetensors", bands=VISIBLE, spectrum=spectrum)
        assert not spec_of(Options(model=str(model)))[0].natural


def test_near_infrared_is_taken_where_the_scene_has_it(tmp_path):
    model = str(tiny_model(tmp_path / "m.safetensors", bands=VISIBLE, spectrum=VISIBLE))
    look = look_of(spec_of(Options(model=model))[0], Options(model=model), BGRN, (300, 400), 30)
    assert look.who == f"ukis {ukis.installed_version()}"


@pytest.mark.parametrize(
    ("side", "lender", "kind"), [(0.5, "default", "model"), (30, None, "ukis"), (None, "default", "model")]
)
def test_evaluation_of_fill_looks_with_the_detector_that_a_run_would_take(side, lender, kind, tmp_path):
    """By its own, and beside a model that has another one."""
    (tmp_path / "cloudy").mkdir()
    image, _ = land((96, 128))
    cloudy = tmp_path / "cloudy" / "a.tif"
    write(cloudy, image, crs=None, transform=None) if side is None else scene_of(cloudy, image, side=side)
    config = DetectorConfig(bands=4, widths=(4,))
    other = open_answerer(
        str(tiny_model(tmp_path / "m.safetensors", bands=BGRN, detector=config)), tmp_path, None
    )
    bands = ",".join(BGRN)
    for fill in (open_answerer("fill", tmp_path, bands), open_fill(BGRN, [other], tmp_path)):
        plan = look_of(fill.spec, fill.options, fill.bands, (96, 128), fill.pixel, fill.lenders)
        assert (plan.kind, plan.lender) == (kind, lender)
    strict = open_fill(BGRN, [other], tmp_path, "ukis")
    assert look_of(strict.spec, strict.options, BGRN, (96, 128), strict.pixel, strict.lenders).kind == "ukis"


@pytest.mark.parametrize(
    ("bands", "side", "lender"),
    [
        (("red", "green", "blue"), 0.5, "rgb"),
        (("red", "green", "blue"), 30, "rice2"),
        (("blue", "green", "red"), 30, "ukis"),
        (("green", "red", "nir"), 30, None),
    ],
)
def test_false_colours_are_told_from_natural_ones_in_a_comparison(bands, side, lender, tmp_path):
    (tmp_path / "cloudy").mkdir()
    scene_of(tmp_path / "cloudy" / "a.tif", land((64, 64))[0][:3], bands, side=side)
    if lender is None:
        with pytest.raises(OptionError, match="nothing finds cloud in images of green, red, nir"):
            open_fill(bands, [], tmp_path)
        return
    fill = open_fill(bands, [], tmp_path)
    plan = look_of(fill.spec, fill.options, bands, (64, 64), fill.pixel, fill.lenders)
    assert (plan.lender or plan.kind) == lender
    config = DetectorConfig(bands=3, widths=(4,))
    path = tiny_model(tmp_path / "m.safetensors", bands=("red", "green", "blue"), detector=config)
    fill = open_fill(bands, [open_answerer(str(path), tmp_path, None)], tmp_path)
    plan = look_of(fill.spec, fill.options, bands, (64, 64), fill.pixel, fill.lenders)
    assert plan.lender == ("rgb" if side == 0.5 else str(path))


def test_evaluation_of_fill_sees_what_the_lender_sees(tmp_path):
    image, where = land((160, 192), cloud=(slice(20, 120), slice(40, 150)))
    scaled = (np.clip(image / 10000, 0, 1) * 2 - 1).astype(np.float32)
    order = ("nir", "red", "green", "blue")
    fill = open_fill(order, [], tmp_path)
    own = open_answerer("default", tmp_path, None)
    whole = Span(0, 0, *where.shape)
    seen = fill.look(np.ascontiguousarray(scaled[::-1])).mask.cloud(whole)
    assert seen[where].mean() > 0.8
    np.testing.assert_array_equal(seen, own.look(scaled).mask.cloud(whole))


@pytest.mark.parametrize(("side", "looks"), [(0.5, "model"), (30, "ukis")])
def test_evaluation_looks_with_the_detector_that_a_run_would_take(side, looks, tmp_path):
    config = DetectorConfig(bands=4, widths=(4,), veils=True)
    model = tiny_model(tmp_path / "tiny.safetensors", bands=BGRN, context=True, detector=config)
    (tmp_path / "cloudy").mkdir()
    scene = scene_of(tmp_path / "cloudy" / "a.tif", land((96, 128))[0])
    with rasterio.open(scene, "r+") as dataset:
        dataset.transform = rasterio.transform.from_origin(500000, 4000000, side, side)
    answerer = open_answerer(str(model), tmp_path, None)
    plan = look_of(answerer.spec, answerer.options, answerer.bands, (96, 128), answerer.pixel)
    assert plan.kind == looks
    scene.write_bytes(b"no raster")
    assert open_answerer(str(model), tmp_path, None).pixel is None


def test_the_detector_stands_in_the_report_and_in_help(tmp_path):
    scene = scene_of(tmp_path / "scene.tif", land((64, 64))[0])
    process_scene(scene, tmp_path / "clean.tif", model="fill")
    report = json.loads((tmp_path / "clean.json").read_text())
    assert report["parameters"]["detector"] == "auto"
    assert report["detector"] == f"ukis {ukis.installed_version()}"
    assert "--detector" in CliRunner().invoke(main, ["process", "--help"]).output
    assert "fill" in CliRunner().invoke(main, ["models", "list"]).output
