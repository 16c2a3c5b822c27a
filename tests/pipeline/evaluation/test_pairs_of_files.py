"""What is wrong with the images of a folder of pairs is told."""

import json

import numpy as np
import pytest
from command_cases import call
from raster_cases import described, with_gcps, with_rpc, write

from decr_scene.models.data.config import DataConfig
from decr_scene.models.errors import TrainingError
from decr_scene.pipeline.evaluation.answers import open_answerer, open_fill
from decr_scene.pipeline.evaluation.pairs import load_pairs, pixel_of_folder, warnings_of, warnings_of_tables
from decr_scene.pipeline.planning import plan_scene as planning
from decr_scene.pipeline.planning.detector import look_of
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.scene import RasterioScene


def test_images_with_pixels_without_values_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for folder, part in (("cloudy", 0), ("clear", 20)):
        (tmp_path / folder).mkdir()
        image = rng.integers(1, 255, (3, 64, 64), np.uint8)
        image[:, :part] = 0
        write(tmp_path / folder / "a.tif", image, nodata=0, photometric="RGB")
    for quiet in ((), ("--quiet",)):
        done = call("evaluate", "--model", "fill", "--bands", "red,green,blue", "--data", tmp_path, *quiet)
        assert done.exit_code == 0, done.output
        told = " ".join(done.stderr.split())
        assert "1 images have pixels without values (clear/a.tif first)" in told
        assert "of two types" not in told
    done = call("inspect", "--pairs", "--json", tmp_path)
    assert json.loads(done.stdout)["parts"] == {"all": 1}
    assert "1 images have pixels without values (clear/a.tif first)" in " ".join(done.stderr.split())
    write(tmp_path / "cloudy" / "a.tif", np.zeros((3, 64, 64), np.uint8), nodata=0, photometric="RGB")
    done = call("inspect", "--pairs", tmp_path)
    assert done.exit_code != 0
    assert "all of it is nodata" in " ".join(done.stderr.split())


def test_pairs_of_two_types_are_told(tmp_path):
    image = np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8)
    for folder, pixels in (("cloudy", image), ("clear", image.astype("uint16") * 40)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            same = pixels if name == "b" else image
            write(tmp_path / folder / f"{name}.tif", same, photometric="RGB")
    assert [text.partition(": ")[2].partition(":")[0] for text in warnings_of(tmp_path)] == [
        "1 pairs are of two types (b first"
    ]


def test_images_that_cannot_be_opened_are_of_no_type(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.tif", np.ones((3, 64, 64), np.uint8), photometric="RGB")
    (tmp_path / "clear" / "a.tif").write_bytes(b"no image")
    assert warnings_of(tmp_path) == []


def test_a_damaged_image_is_named(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.tif", np.ones((3, 64, 64), np.uint8), photometric="RGB")
    damaged = tmp_path / "clear" / "a.tif"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"clear/a\.tif"):
        load_pairs(("red", "green", "blue"), tmp_path)


def test_tables_whose_pairs_are_missing_tell_nothing_and_others_do(tmp_path):
    image = np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8)
    for folder, name, pixels in (
        *(("a/cloudy", "one", image), ("a/clear", "other", image)),
        *(("b/cloudy", "one", image), ("b/clear", "one", image.astype("uint16"))),
    ):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / f"{name}.tif", pixels, photometric="RGB")
    a, b, nowhere = (DataConfig(folder=name) for name in ("a", "b", "nowhere"))
    told = warnings_of_tables([a, nowhere, b, b], tmp_path, 3)
    assert [text.partition(": ")[2].partition(":")[0] for text in told] == [
        "1 pairs are of two types (one first"
    ]


@pytest.mark.parametrize("make", [with_gcps, with_rpc])
@pytest.mark.parametrize("ending", [".tif", ".TIF", ".tiff"])
def test_pixels_of_pairs_are_of_the_size_that_a_run_finds(make, ending, tmp_path, monkeypatch):
    (tmp_path / "cloudy").mkdir()
    assert pixel_of_folder(tmp_path) is None
    path = make(tmp_path).rename(tmp_path / "cloudy" / f"a{ending}")
    sizes = []
    seen = planning.Frame.of
    monkeypatch.setattr(planning.Frame, "of", lambda *args: (sizes.append(args[2]), seen(*args))[1])
    planning.plan_scene(RasterioScene.open(path), Options(model="identity"))
    assert 50 < sizes[0] < 2000
    assert pixel_of_folder(tmp_path) == sizes[0]


def test_pairs_that_points_place_are_looked_at_by_the_detector_of_a_run(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        with_gcps(tmp_path).rename(tmp_path / folder / "a.tif")
    path, bands = tmp_path / "cloudy" / "a.tif", "blue,green,red,nir"
    options = Options(model="default", bands=bands)
    planned = planning.plan_scene(RasterioScene.open(path, bands), options)
    answerer = open_answerer("default", tmp_path, bands)
    look = look_of(answerer.spec, answerer.options, answerer.bands, (200, 150), answerer.pixel)
    assert look == planned.look
    assert look is not None
    assert look.kind == "ukis", "the pixels are some 100 m"


def test_averaged_pixels_are_larger_to_the_detector(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        described(tmp_path / folder / "a.tif", ("blue", "green", "red", "nir"))
    found = {n: open_answerer("default", tmp_path, None, reduce=n).pixel for n in (1, 2, 20)}
    assert found == {1: 0.5, 2: 1.0, 20: 10.0}
    fill = open_fill(("blue", "green", "red", "nir"), [], tmp_path, reduce=20)
    assert fill.pixel == open_answerer("fill", tmp_path, None, reduce=20).pixel == 10.0
