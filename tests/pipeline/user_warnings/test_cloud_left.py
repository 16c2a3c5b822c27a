"""Little changed though cloud is left: the report says so, with figures."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from look_cases import bright_is_cloud, land, scene_of
from model_cases import idle_model
from raster_cases import write
from shapely.geometry import box, mapping

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.look.detectors import CLOUD
from decr_scene.pipeline.look.remaining_cloud import Output, look_again
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.regions.fields import ArrayField
from decr_scene.pipeline.user_warnings import cloud_left

CLOUDY = (slice(100, 170), slice(200, 300))


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


def hardly(tiles, noise):
    """A restorer that leaves every cloud where it is."""
    return tiles - np.float32(0.01)


def test_a_run_that_leaves_the_cloud_says_so_with_figures(tmp_path):
    image, where = land(cloud=CLOUDY)
    scene = scene_of(tmp_path / "scene.tif", image)
    report = process_scene(scene, tmp_path / "clean.tif", restorer=hardly, detector="ukis")
    found = report.clouds["output"]
    assert found["cloud_before"] * found["looked_at"] == pytest.approx(where.mean(), rel=0.1)
    assert found["left"] > 0.95
    (said,) = [text for text in report.warnings if text.startswith("cloud is likely left")]
    assert f"{100 * found['cloud']:.1f} % is now" in said
    assert json.loads((tmp_path / "clean.json").read_text())["warnings"] == report.warnings


def test_a_run_that_removes_it_says_nothing(tmp_path):
    scene = scene_of(tmp_path / "scene.tif", land(cloud=CLOUDY)[0])
    report = process_scene(scene, tmp_path / "clean.tif", model="fill")
    assert report.clouds["output"]["cloud_before"] > 0.02
    assert report.clouds["output"]["left"] < 0.05
    assert report.warnings == []


def test_a_look_that_fails_is_told_and_fails_no_run(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(cloud_left, "look_again", broken)
    scene = scene_of(tmp_path / "scene.tif", land((64, 80), cloud=(slice(0, 20), slice(0, 20)))[0])
    report = process_scene(scene, tmp_path / "clean.tif", model="fill")
    assert report.warnings == [
        "whether cloud is left in the output is not known: unexpected RuntimeError: no kernel image"
    ]
    assert json.loads((tmp_path / "clean.json").read_text())["clouds"]["output"] is None


def test_cloud_outside_of_the_area_of_interest_does_not_count(tmp_path):
    scene = scene_of(tmp_path / "scene.tif", land(cloud=CLOUDY)[0])
    west = mapping(box(500000, 4000000 - 300 * 30, 500000 + 150 * 30, 4000000))
    crs = {"type": "name", "properties": {"name": "EPSG:32650"}}
    (tmp_path / "west.geojson").write_text(json.dumps({**west, "crs": crs}))
    report = process_scene(
        scene, tmp_path / "clean.tif", restorer=hardly, detector="ukis", aoi=str(tmp_path / "west.geojson")
    )
    assert report.clouds["output"] is None
    assert report.warnings == []


def test_where_no_detector_looks_few_changed_pixels_are_told_in_the_last_lines_and_the_log(tmp_path):
    scene = write(tmp_path / "scene.tif", land((64, 80))[0][:3])
    model = idle_model(tmp_path / "idle.safetensors")
    arguments = ["process", str(scene), "--out", str(tmp_path / "c.tif"), "--model", str(model)]
    called = CliRunner().invoke(main, [*arguments, "--log", str(tmp_path / "log")])
    said = "0.0 % of the pixels changed, and no detector looked"
    assert called.exit_code == 0, called.output
    assert f"warning: {said}" in called.stderr
    assert said in (tmp_path / "log").read_text()


class Bright:
    """Cloud is what is bright, in windows of 16 coarse pixels."""

    own, reach, whole, blends, sight = 16, 2, 0, False, None

    def __init__(self):
        self.seen = []

    def answers(self, windows):
        self.seen += [image.shape for image, _ in windows]
        return [np.repeat((image[:1] > 100).astype(np.float32), 3, axis=0) for image, _ in windows]


@pytest.mark.parametrize("factor", [1, 4])
def test_the_output_is_looked_at_in_a_few_windows_where_there_was_cloud(factor, tmp_path):
    coarse = np.zeros((100, 90), np.uint8)
    coarse[:60, :70] = 250
    output = coarse.copy()
    output[:, ::2] = 0
    whole = np.kron(output, np.ones((factor, factor), np.uint8))[None, : 100 * factor - factor // 2]
    path = write(tmp_path / "output.tif", whole)
    before = np.zeros((3, 100, 90), np.uint8)
    before[CLOUD] = coarse
    lookout = Bright()
    found = look_again(
        lookout,
        ArrayField(before),
        Output(RasterioScene.open(path), factor, lambda span, pixels, valid: (pixels.astype("f4"), valid)),
    )
    assert len(lookout.seen) == 12
    assert max(max(shape[1:]) for shape in lookout.seen) == 20
    assert found.looked_at == pytest.approx(12 * 256 / 9000, abs=0.02)
    assert found.left == pytest.approx(0.5, abs=0.01)
    assert found.cloud == pytest.approx(found.cloud_before / 2, abs=0.01)
