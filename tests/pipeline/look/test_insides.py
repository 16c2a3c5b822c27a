"""Clouds that are larger than a detector sees."""

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from raster_cases import write
from scipy.ndimage import distance_transform_edt

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import Places, look_in_memory, read_ground, write_look
from decr_scene.pipeline.look.detectors import CLOUD
from decr_scene.pipeline.look.ground import ground_side
from decr_scene.pipeline.look.insides import DEPTH, insides
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.remaining_cloud import Output, look_again
from decr_scene.pipeline.planning import detect_clouds
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.fields import FileField
from decr_scene.pipeline.restoration import tasks
from decr_scene.pipeline.tiling.grid import Span

SHAPE = (300, 400)


def disc(radius, row=150, col=200):
    rows, cols = np.indices(SHAPE)
    return np.hypot(rows - row, cols - col) <= radius


def seen_by_its_rim(cloud, width=40):
    """What a detector tells that sees so far."""
    return cloud & (distance_transform_edt(cloud) <= width)


def told(cloud, detected, light=0.8, side=1.0, valid=None):
    image = np.where(cloud, light, -0.6).astype(np.float32)
    there = np.ones(SHAPE) if valid is None else valid
    return insides(image, detected.astype(np.float32), there.astype(np.float32), side)


def test_what_a_large_cloud_has_inside_is_cloud():
    cloud = disc(110)
    found = told(cloud, seen_by_its_rim(cloud))
    assert (found == cloud).all(), "its dense rim is of it"


@pytest.mark.parametrize(
    ("cloud", "width", "change"),
    [
        (disc(DEPTH - 4), 20, {}),  # a hall whose rim looks like cloud
        (disc(110), 40, {"light": -0.1}),  # grey, and no cloud
        (disc(110), 200, {}),  # seen as a whole
        (disc(DEPTH + 20), 20, {"side": 0.5}),  # large in px of the ground alone
    ],
)
def test_what_is_small_or_dark_or_seen_is_left_as_it_is(cloud, width, change):
    assert not told(cloud, seen_by_its_rim(cloud, width), **change).any()


def test_a_gap_stays_one_and_what_is_open_to_one_side_too():
    cloud, gap = disc(130), disc(60)
    rim = seen_by_its_rim(cloud & ~gap, 200)
    assert not told(cloud & ~gap, rim)[gap].any()
    field = disc(110)
    one_side = seen_by_its_rim(field) & (np.indices(SHAPE)[1] < 200)
    assert not told(field, one_side).any()


def test_what_is_open_to_a_border_for_long_is_none():
    corner = disc(140, row=0, col=0)
    assert not told(corner, seen_by_its_rim(corner, 20)).any()
    strip = np.indices(SHAPE)[0] < 120
    assert not told(strip, strip & (np.indices(SHAPE)[0] >= 110)).any()


def test_the_border_of_a_scene_and_of_what_is_valid_may_cut_a_cloud():
    cloud = disc(120, row=0)
    rim = cloud & (np.hypot(*(np.indices(SHAPE) - np.array([0, 200])[:, None, None])) > 70)
    assert told(cloud, rim)[:40, 180:220].all()
    valid = np.indices(SHAPE)[0] >= 30
    found = told(cloud, rim, valid=valid)
    assert found[31:60, 180:220].all()
    assert not found[:30].any()


@pytest.mark.parametrize("nothing", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
def test_where_nothing_or_all_is_detected_there_is_no_inside(nothing):
    assert not told(disc(110), nothing).any()


class GreyIsCloud:
    """A detector that takes what is grey for cloud, and white for none."""

    bands, own, reach, whole, blends, insides, sight = 3, 64, 2, 0, False, True, None

    def answers(self, windows):
        grey = [(image.mean(axis=0) > 0.2) & (image.mean(axis=0) < 0.7) for image, _ in windows]
        return [np.stack([cloud, cloud, np.zeros_like(cloud)]).astype(np.float32) for cloud in grey]


@pytest.fixture
def white_inside(tmp_path):
    """A scene of a grey cloud with a white inside, and how it is read."""
    away = np.hypot(*(np.indices((1000, 1200)) - np.array([500, 600])[:, None, None]))
    image = np.where(away < 300, 240, np.where(away < 400, 180, 60)).astype(np.uint8)
    path = write(tmp_path / "scene.tif", np.stack([image] * 3))
    scaling = Radiometry((0.0,) * 3, (255.0,) * 3)
    return (
        RasterioScene.open(path),
        CoarseReader(image.shape, FileSource(str(path)), (0, 1, 2), scaling, 4),
        away,
    )


def test_the_look_enters_it_wherever_it_is_kept(white_inside, tmp_path):
    scene, reader, away = white_inside
    places = Places(tmp_path / "cloud.tif", tmp_path / "ground.tif")
    coverage = write_look(GreyIsCloud(), scene, reader, 0.5, places)
    memory = look_in_memory(GreyIsCloud(), reader, 0.5)
    with rasterio.open(places.cloud) as written:
        answers = written.read()
    np.testing.assert_array_equal(answers, memory.cloud.values)
    cloud = away[2::4, 2::4] < 400
    assert np.mean((answers[0] > 127) == cloud) > 0.995
    assert coverage == memory.coverage
    assert coverage.restore == pytest.approx(cloud.mean(), abs=0.002)
    assert coverage.cloud == pytest.approx(cloud.mean(), abs=0.004)


def test_the_ground_below_it_has_the_tone_of_clear_ground(white_inside, tmp_path):
    scene, reader, away = white_inside
    places = Places(tmp_path / "cloud.tif", tmp_path / "ground.tif")
    write_look(GreyIsCloud(), scene, reader, 0.5, places)
    ground = read_ground(places.ground)
    np.testing.assert_allclose(ground.tone(Span(450, 550, 100, 100)), 2 * 60 / 255 - 1, atol=0.02)
    assert ground.clear == pytest.approx((away >= 400).mean(), abs=0.02)
    field, whole = FileField(str(places.cloud), reader.coarse_shape), Span(0, 0, *scene.shape)
    inside = LookPlan("model", 4, 0.5).mask(field, scene.shape).inside(whole)
    assert inside[away < 290].all()
    assert not inside[away > 410].any()
    assert not LookPlan("ukis", 4, 0.5).mask(field, scene.shape).inside(whole).any()


def test_what_has_no_value_is_no_inside(tmp_path):
    away = np.hypot(*(np.indices((1000, 1200)) - np.array([500, 600])[:, None, None]))
    image = np.where(away < 300, 240, np.where(away < 400, 180, 60)).astype(np.uint8)
    image[np.add(*np.indices(image.shape)) < 900] = 0
    path = write(tmp_path / "scene.tif", np.stack([image] * 3), nodata=0)
    scaling = Radiometry((0.0,) * 3, (255.0,) * 3)
    reader = CoarseReader(image.shape, FileSource(str(path)), (0, 1, 2), scaling, 4)
    found = look_in_memory(GreyIsCloud(), reader, 0.5)
    empty = (image == 0).reshape(250, 4, 300, 4).all(axis=(1, 3))
    assert not found.cloud.values[:, empty].any()
    assert found.coverage.insides > 0.1
    valid = image > 0
    assert found.coverage.restore == pytest.approx((valid & (away < 400)).sum() / valid.sum(), abs=0.02)


@pytest.mark.parametrize("shape", [(1000, 1204), (1001, 1203), (1006, 1214)])
@pytest.mark.parametrize("factor", [3, 4, 12, 16])
def test_sides_that_are_no_multiples(shape, factor, tmp_path):
    away = np.hypot(*(np.indices(shape) - np.array([500, 1200 - 600])[:, None, None]))
    image = np.where(away < 350, 240, np.where(away < 480, 180, 60)).astype(np.uint8)
    path = write(tmp_path / "scene.tif", np.stack([image] * 3))
    scaling = Radiometry((0.0,) * 3, (255.0,) * 3)
    split, _ = ground_side(shape, factor)
    reader = CoarseReader(shape, FileSource(str(path)), (0, 1, 2), scaling, factor, split=split)
    found = look_in_memory(GreyIsCloud(), reader, 0.5)
    assert found.coverage.restore <= 1
    assert (found.coverage.insides > 0.1) == (480 / factor > DEPTH)


def test_what_a_first_guess_leaves_there_gives_way_to_the_ground_and_nothing_else_does(
    white_inside, tmp_path
):
    scene, reader, away = white_inside
    places = Places(tmp_path / "cloud.tif", tmp_path / "ground.tif")
    write_look(GreyIsCloud(), scene, reader, 0.5, places)
    mask = LookPlan("model", 4, 0.5).mask(FileField(str(places.cloud), reader.coarse_shape), scene.shape)
    bands = ("red", "green", "blue")
    plan = SimpleNamespace(
        ground=read_ground(places.ground), mask=mask, fills=False, spec=SimpleNamespace(bands=bands)
    )
    view = Span(400, 0, 200, 600)
    guess = reader.radiometry.to_model(reader.source.read(view))  # all of the cloud is left
    given_way = tasks._without_remnants(plan, view, guess, guess)
    near = away[400:600, :600]
    np.testing.assert_allclose(given_way[:, near < 360], 2 * 60 / 255 - 1, atol=0.03)
    np.testing.assert_array_equal(given_way[:, near > 450], guess[:, near > 450])
    plan.mask = LookPlan("ukis", 4, 0.5).mask(mask.field, scene.shape)
    assert tasks._without_remnants(plan, view, guess, guess) is guess


def test_a_run_tells_how_much_it_takes_for_inside(white_inside, tmp_path, monkeypatch):
    scene, _, away = white_inside
    monkeypatch.setattr(detect_clouds, "lookout_of", lambda *_: GreyIsCloud())
    report = process_scene(scene.path, tmp_path / "clean.tif", model="fill", bands="red,green,blue")
    (told,) = [text for text in report.warnings if "white within what looks like cloud" in text]
    assert told.startswith(f"{(away < 400).mean():.0%} of the scene ")
    with rasterio.open(tmp_path / "clean.tif") as clean:
        assert np.abs(clean.read()[:, away < 380].astype(int) - 60).max() <= 2


def test_an_output_is_looked_at_where_the_detector_itself_had_seen_cloud(white_inside):
    """What it had overlooked it would overlook again."""
    scene, reader, _ = white_inside
    before = look_in_memory(GreyIsCloud(), reader, 0.5).cloud
    assert (before.values[CLOUD] == 255).mean() > 0.3

    def sight(span, pixels, valid):
        return reader.radiometry.to_model(pixels), valid

    left = look_again(GreyIsCloud(), before, Output(scene, 4, sight))
    assert (left.cloud_before, left.left) == (left.cloud, 1.0)
