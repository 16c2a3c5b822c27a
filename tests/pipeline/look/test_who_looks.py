"""Who looks at a scene as a whole, and on what pixels."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from look_cases import BGRN, VEIL, bright_is_cloud, land, pixels_of, scene_of
from model_cases import tiny_model
from raster_cases import write
from scipy.ndimage import distance_transform_edt

from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import BandError, OptionError
from decr_scene.pipeline.evaluation.answers import open_answerer, open_fill
from decr_scene.pipeline.evaluation.cloud_detection import look_at_image
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.look_plan import FILLED_FROM, LookPlan, coarse_factor
from decr_scene.pipeline.planning.detector import is_coarse, look_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.raster.fields import ArrayField
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.warp import pixel_size
from decr_scene.pipeline.regions.masks import CLOSE_RIM, WIDE_RIM, DetectedMask, Rim
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


# -- a curve for dark ground ---------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path):
    """A network that is told of the ground around."""
    return str(tiny_model(tmp_path / "told.safetensors", bands=BGRN, context=True))


def test_a_coarse_scene_is_scaled_by_a_curve_and_says_so(told, tmp_path):
    image, _ = land()
    scene = scene_of(tmp_path / "scene.tif", image)
    report = process_scene(scene, tmp_path / "clean.tif", model=told)
    limits = list(report.scaling.values())
    darkest, brightest = min(low for low, _ in limits), max(high for _, high in limits)
    black = pytest.approx(darkest - 0.02 * (brightest - darkest))
    assert report.curve == {"gamma": 0.7, "black": black}
    assert inspect_scene(scene, model=told)["curve"] == report.curve


@pytest.mark.parametrize(
    "options",
    [
        {"mask": "none"},
        {"scale": (0.0, 9000.0)},
        {"detector": "none"},
        {"model": "fill"},
        {"model": "identity"},
        {"side": 0.5},
        {"dtype": np.uint8},
    ],
)
def test_other_scenes_and_restorers_get_no_curve(options, told, tmp_path):
    image, _ = land()
    side, dtype = options.pop("side", 30), options.pop("dtype", np.uint16)
    scene = scene_of(
        tmp_path / "scene.tif", (image // (1 if dtype == np.uint16 else 40)).astype(dtype), side=side
    )
    plan = plan_scene(RasterioScene.open(scene), Options(**{"model": told, **options})).plan
    assert plan.radiometry.gamma == 1


def test_another_date_gets_no_curve_as_its_tone_is_a_line(told, tmp_path):
    cloudy, _ = land()
    clear, _ = land(cloud=(slice(0, 0), slice(0, 0)))
    scene, date = scene_of(tmp_path / "scene.tif", cloudy), scene_of(tmp_path / "date.tif", clear)
    report = process_scene(scene, tmp_path / "clean.tif", model=told, other_date=str(date))
    assert report.curve is None
    clean, clear_ground = pixels_of(tmp_path / "clean.tif").astype(int), clear[:, 110:160, 210:290]
    assert np.abs(clean[:, 110:160, 210:290] - clear_ground).max() <= 2
    plan = plan_scene(RasterioScene.open(scene), Options(model=told)).plan
    assert plan.radiometry.gamma < 1


def test_a_network_that_is_not_told_gets_no_curve(tmp_path):
    model = str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN))
    scene = scene_of(tmp_path / "scene.tif", land()[0])
    planned = plan_scene(RasterioScene.open(scene), Options(model=model))
    assert planned.look.fills
    assert planned.plan.radiometry.gamma == 1


@pytest.mark.parametrize(("side", "fills"), [(30, True), (10, True), (7, True), (6.5, False), (5, False)])
def test_lakes_are_not_filled_as_shadow_below_seven_metres_but_the_curve_stays(side, fills, told, tmp_path):
    scene = RasterioScene.open(scene_of(tmp_path / "scene.tif", land()[0], side=side))
    planned = plan_scene(scene, Options(model=told))
    assert (planned.look.kind, planned.look.fills) == ("ukis", fills)
    assert planned.plan.radiometry.gamma < 1
    untold = str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN))
    assert plan_scene(scene, Options(model=untold)).look.tones


@pytest.mark.parametrize("side", [10, 5])
def test_restored_ground_is_as_light_as_the_clear_ground_of_a_coarse_scene(side, tmp_path):
    image, where = land((300, 400), cloud=(slice(100, 170), slice(150, 250)))
    darker = str(tiny_model(tmp_path / "darker.safetensors", bands=BGRN, context=True, adds=-1.0))
    scene = scene_of(tmp_path / "scene.tif", image, side=side)
    assert plan_scene(RasterioScene.open(scene), Options(model=darker)).look.tones == (side == 10)
    process_scene(scene, tmp_path / "clean.tif", model=darker)
    inside = pixels_of(tmp_path / "clean.tif")[:, where].mean(axis=1)
    clear = image[:, ~where]
    off = np.abs(inside - clear.mean(axis=1)) / clear.std(axis=1)
    assert (off < 1.5).all() == (side == 10)


def test_snow_that_a_model_takes_for_a_veil_stays(model, tmp_path):
    image, _ = land((300, 700), cloud=(slice(100, 170), slice(60, 150)))
    image[:, :, 300:500] += VEIL
    image[3, :, 500:] = image[2, :, 500:]
    fallen = scene_of(tmp_path / "fallen.tif", image)
    process_scene(fallen, tmp_path / "kept.tif", model=model)
    changed = pixels_of(tmp_path / "kept.tif") != image
    assert changed[:, :, 350:440].mean() > 0.9
    assert not changed[:, :, 560:].any()
    image[:, :, 500:] *= 4
    whiter = scene_of(tmp_path / "whiter.tif", image)
    process_scene(whiter, tmp_path / "taken.tif", model=model)
    taken = pixels_of(tmp_path / "taken.tif")[:, :, 560:] != image[:, :, 560:]
    assert taken.mean() > 0.9, "what is far lighter than the ground may be cloud"


@pytest.mark.parametrize(("cloudy_rows", "gives_way"), [(200, True), (285, False)])
def test_what_little_is_clear_is_no_tone_for_all_the_rest(
    cloudy_rows, gives_way, told, tmp_path, monkeypatch
):
    asked = []

    def recorded(guess, *_):
        asked.append(guess.shape)
        return guess

    monkeypatch.setattr("decr_scene.pipeline.restoration.tasks.without_remnants", recorded)
    image, _ = land(cloud=(slice(0, cloudy_rows), slice(None)))
    process_scene(scene_of(tmp_path / "scene.tif", image), tmp_path / "clean.tif", model=told)
    assert bool(asked) == gives_way


@pytest.mark.parametrize("detector", ["auto", "ukis"])
def test_ground_beside_cloud_stays_where_the_detector_sees_rims(detector, model, tmp_path):
    image, where = land((300, 400), cloud=(slice(100, 170), slice(150, 250)))
    for side in (7, 6.5):
        scene = scene_of(tmp_path / f"{side}.tif", image, side=side)
        process_scene(scene, tmp_path / f"clean_{side}.tif", model=model, detector=detector)
    far = distance_transform_edt(~where) > CLOSE_RIM.reach + 2 * coarse_factor(image.shape[1:], 7)
    close, wide = (pixels_of(tmp_path / f"clean_{side}.tif") for side in (7, 6.5))
    np.testing.assert_array_equal(close[:, far], image[:, far])
    assert (close[:, where] != image[:, where]).mean() > 0.9
    assert (wide[:, far] != image[:, far]).any()


@pytest.mark.parametrize(("fills", "rim", "reach"), [(True, CLOSE_RIM, 11), (False, WIDE_RIM, 34)])
def test_the_rim_is_close_where_shadow_is_told_from_lakes(fills, rim, reach):
    field = ArrayField(np.zeros((3, 50, 50), np.uint8))
    mask = LookPlan("ukis", 2, 0.5, fills=fills).mask(field, (100, 100))
    assert (mask.rim, mask.reach) == (rim, reach)
    plan = LookPlan("ukis", 1, 0.5, (0, 1, 2, 3), fills=fills)
    image = np.random.default_rng(0).uniform(-0.9, -0.5, (4, 80, 80)).astype(np.float32)
    assert look_at_image(plan, image, None).mask.rim == rim, "so it is in evaluation"


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize("rim", [CLOSE_RIM, WIDE_RIM])
def test_a_block_of_cloud_is_restored_fully_up_to_its_corners(factor, rim):
    values = np.zeros((3, 40, 40), np.uint8)
    values[0, 20, 20] = 255
    mask = DetectedMask(ArrayField(values), (40 * factor, 40 * factor), factor, 128, rim)
    block = slice(20 * factor, 21 * factor)
    assert mask.soft(Span(0, 0, 40 * factor, 40 * factor))[block, block].min() == 1


@pytest.mark.parametrize("text", [None, "", "2", "2,0", "-1,6", "2,6,1", "two,6"])
def test_a_tag_that_is_no_rim_is_none(text):
    assert Rim.parse(text) == WIDE_RIM
    assert Rim.parse(str(Rim(3, 7))) == (3, 7)
