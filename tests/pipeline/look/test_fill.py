"""`fill`: the tone of clear ground in the place of cloud, the baseline that every model is held against."""

import numpy as np
import pytest
from click.testing import CliRunner
from look_cases import bright_is_cloud, land, pixels_of, scene_of
from raster_cases import write

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


def test_fill_removes_the_cloud_and_leaves_the_rest_to_the_bit(tmp_path):
    image, where = land()
    scene = scene_of(tmp_path / "scene.tif", image)
    report = process_scene(scene, tmp_path / "clean.tif", model="fill")
    clean = pixels_of(tmp_path / "clean.tif")
    ground = image[:, ~where].mean(axis=1)
    np.testing.assert_allclose(clean[:, where].mean(axis=1), ground, rtol=0.12)
    far = np.ones(where.shape, bool)
    far[50:220, 140:360] = False
    np.testing.assert_array_equal(clean[:, far], image[:, far])
    assert report.checks["clear_pixels_identical"]
    assert report.clouds["cloud"] == pytest.approx(where.mean(), rel=0.3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_fill_does_not_depend_on_blocks_and_workers_of_tiles(tmp_path):
    image, _ = land((700, 600), cloud=(slice(200, 420), slice(180, 400)))
    scene = scene_of(tmp_path / "scene.tif", image)
    for name, more in (("a", {}), ("b", {"blocksize": 128, "batch_size": 3, "overlap": 64})):
        process_scene(scene, tmp_path / f"{name}.tif", model="fill", **more)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / "b.tif"))


def test_fill_takes_a_mask_of_the_users_in_the_place_of_a_detector(tmp_path):
    image, where = land((200, 240), cloud=(slice(60, 120), slice(80, 150)))
    scene = write(tmp_path / "scene.tif", image[:1])
    mask = write(tmp_path / "mask.tif", where[None].astype(np.uint8))
    process_scene(scene, tmp_path / "clean.tif", model="fill", mask=str(mask))
    clean = pixels_of(tmp_path / "clean.tif")
    assert clean[0][where].mean() == pytest.approx(image[0][~where].mean(), rel=0.12)
    assert (clean[0, :20] == image[0, :20]).all()


def test_fill_without_anybody_who_looks_is_refused_in_one_line(tmp_path):
    scene = write(tmp_path / "scene.tif", land((64, 64))[0][:3])
    for options in ({}, {"bands": "red,green,blue"}, {"detector": "none"}):
        with pytest.raises(OptionError, match="fill needs to know where cloud is"):
            process_scene(scene, tmp_path / "clean.tif", model="fill", **options)
    called = CliRunner().invoke(
        main, ["process", str(scene), "--out", str(tmp_path / "c.tif"), "--model", "fill"]
    )
    assert called.exit_code == 2
    assert called.output.count("\n") == 1


def test_fill_changes_nothing_where_nothing_is_clear(tmp_path):
    image, where = land((128, 128), cloud=(slice(0, 128), slice(0, 128)))
    scene = write(tmp_path / "scene.tif", image)
    mask = write(tmp_path / "mask.tif", where[None].astype(np.uint8))
    report = process_scene(scene, tmp_path / "clean.tif", model="fill", mask=str(mask))
    np.testing.assert_array_equal(pixels_of(tmp_path / "clean.tif"), image)
    assert any("nowhere is the ground clear" in warning for warning in report.warnings)


def test_fill_is_measured_like_a_model(tmp_path):
    image, _ = land((192, 192), cloud=(slice(60, 120), slice(80, 150)))
    clear, _ = land((192, 192), cloud=(slice(0, 0), slice(0, 0)))
    for name, pixels in (("cloudy", image), ("clear", clear)):
        (tmp_path / name).mkdir()
        scene_of(tmp_path / name / "a.tif", np.clip(pixels // 40, 0, 255).astype(np.uint8))
    found = evaluate_pairs("fill", tmp_path).mean()
    assert found["DE/psnr"] > found["cloudy/psnr"] + 5
    assert found["reference/psnr"] == found["DE/psnr"]
