"""What is done where `ukis-csmask` looks at coarse pixels: curve, tone, bare ground, a close rim."""

import numpy as np
import pytest
from look_cases import BGRN, VEIL, bright_is_cloud, land, pixels_of, scene_of
from model_cases import tiny_model
from scipy.ndimage import distance_transform_edt

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.evaluation.cloud_detection import look_at_image
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.look_plan import LookPlan, coarse_factor
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.fields import ArrayField
from decr_scene.pipeline.regions.masks import CLOSE_RIM, WIDE_RIM, DetectedMask, Rim
from decr_scene.pipeline.tiling.grid import Span


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


@pytest.fixture
def model(tmp_path):
    """A model of random weights, whose first guess is darker everywhere than its input."""
    return str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN, adds=-1.0))


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
        {"dtype": np.uint8, "side": 5},
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


def test_eight_bits_of_a_coarse_scene_are_scaled_as_sixteen(told, tmp_path):
    image, _ = land()
    scaled = []
    for dtype, divisor in ((np.uint8, 40), (np.uint16, 1)):
        scene = scene_of(tmp_path / f"{divisor}.tif", (image // divisor).astype(dtype), side=10)
        scaled.append(plan_scene(RasterioScene.open(scene), Options(model=told)).plan.radiometry)
        assert scaled[-1].gamma == 0.7
    in_eight, in_sixteen = (np.array([found.low, found.high]) for found in scaled)
    np.testing.assert_allclose(in_eight * 40, in_sixteen, rtol=0, atol=40)


def test_eight_bits_stay_a_picture_for_fill(tmp_path):
    scene = scene_of(tmp_path / "scene.tif", (land()[0] // 40).astype(np.uint8))
    radiometry = plan_scene(RasterioScene.open(scene), Options(model="fill")).plan.radiometry
    assert (radiometry.low, radiometry.high, radiometry.gamma) == ((0.0,) * 4, (255.0,) * 4, 1)


def test_another_date_is_brought_onto_the_curve(told, tmp_path):
    cloudy, _ = land()
    clear, _ = land(cloud=(slice(0, 0), slice(0, 0)))
    scene, date = scene_of(tmp_path / "scene.tif", cloudy), scene_of(tmp_path / "date.tif", clear)
    report = process_scene(scene, tmp_path / "clean.tif", model=told, other_date=str(date))
    assert report.curve is not None
    clean, clear_ground = pixels_of(tmp_path / "clean.tif").astype(int), clear[:, 110:160, 210:290]
    assert np.abs(clean[:, 110:160, 210:290] - clear_ground).mean() <= 20


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


@pytest.mark.parametrize(
    ("cloudy_rows", "saturated", "gives_way"),
    [(200, False, True), (285, False, False), (285, True, True), (299, True, False)],
)
def test_what_little_is_clear_is_no_tone_for_all_the_rest(
    cloudy_rows, saturated, gives_way, told, tmp_path, monkeypatch
):
    asked = []

    def recorded(guess, cloudy, tone, seen, bands):
        asked.append(seen.any())
        return guess

    monkeypatch.setattr("decr_scene.pipeline.restoration.tasks.without_remnants", recorded)
    image, where = land(cloud=(slice(0, cloudy_rows), slice(None)))
    image = (image // 40).astype(np.uint8)
    if saturated:
        image[:, where] = 250
    process_scene(scene_of(tmp_path / "scene.tif", image), tmp_path / "clean.tif", model=told)
    assert bool(asked) == gives_way
    assert all(asked)


@pytest.mark.parametrize(
    ("dtype", "divisor", "white", "kept"), [(np.uint8, 40, 255, True), (np.uint16, 1, 9000, False)]
)
def test_a_white_roof_that_is_no_cloud_is_no_veil(dtype, divisor, white, kept, told, tmp_path, monkeypatch):
    def all_clear(windows):
        return [np.stack([np.ones_like(w[0]), 0 * w[0], 0 * w[0]]) for w in windows]

    def darkens_white(self, image, context=None, *norm_side):
        return image.masked_fill(image > 0.9, -0.5)

    monkeypatch.setattr(ukis, "probabilities", all_clear)
    monkeypatch.setattr("decr_scene.models.model.Model.reference", darkens_white)
    image = (land((300, 400), cloud=(slice(0, 0),) * 2)[0] // divisor).astype(dtype)
    image[:, 100:122, 150:172] = white
    process_scene(scene_of(tmp_path / "scene.tif", image, side=10), tmp_path / "clean.tif", model=told)
    changed = (pixels_of(tmp_path / "clean.tif") != image)[:, 100:122, 150:172]
    assert not changed.any() if kept else changed.all()


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
