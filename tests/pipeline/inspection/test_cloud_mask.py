"""`decr-scene mask`: where the clouds are, as a raster in the scene's place that `--mask` takes."""

import numpy as np
import pytest
import rasterio
from command_cases import assert_one_line, call
from raster_cases import plain
from rasterio.enums import ColorInterp

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.inspection import health


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.tif"
    health.write_sample_scene(path, (400, 600), ((120, 130, 25),))
    return path


def test_the_mask_lies_on_the_clouds_of_the_scene(scene, tmp_path):
    out = tmp_path / "mask.tif"
    result = call("mask", scene, "--out", out, "--detector", "ukis")
    assert result.exit_code == 0, result.stderr
    assert "% cloud or shadow" in result.stdout
    with rasterio.open(scene) as before, rasterio.open(out) as dataset:
        assert (dataset.crs, dataset.transform, dataset.shape) == (before.crs, before.transform, before.shape)
        assert dataset.dtypes == ("uint8",)
        mask, tone = dataset.read(1), before.read(1)
    assert set(np.unique(mask)) == {0, 1}
    assert mask[tone > 7000].mean() > 0.9
    assert mask.mean() < 0.6
    assert [path.name for path in tmp_path.glob(".*")] == []
    clean = call("process", scene, "--out", tmp_path / "c.tif", "--model", "fill", "--mask", out)
    assert clean.exit_code == 0, clean.stderr
    own = call("process", scene, "--out", tmp_path / "o.tif", "--model", "fill", "--detector", "ukis")
    assert own.exit_code == 0, own.stderr
    kinds = [rasterio.open(tmp_path / f"{name}_provenance.tif").read(1) for name in "co"]
    assert (kinds[0] != kinds[1]).mean() < 0.03, "the rim is added once"


def test_what_is_not_valid_is_nodata(scene, tmp_path):
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        pixels = dataset.read()
        pixels[:, :40] = 0  # as a collar is
        dataset.write(pixels)
    assert call("mask", scene, "--out", tmp_path / "m.tif").exit_code == 0
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.nodata == 255
        mask = dataset.read(1)
    np.testing.assert_array_equal(mask == 255, pixels[0] == 0)


def test_a_scene_that_nobody_can_look_at_is_refused(tmp_path):
    scene = plain(tmp_path / "scene.tif", (90, 80), 1)
    out = tmp_path / "m.tif"
    assert_one_line(call("mask", scene, "--out", out, "--model", "identity"), 1, "no cloud detector")
    assert not out.exists()


def test_a_mask_replaces_nothing_unasked(scene):
    assert_one_line(call("mask", scene, "--out", scene, "--overwrite"), 1, "the input itself")
    other = plain(scene.with_name("m.tif"), (9, 9), 1)
    assert_one_line(call("mask", scene, "--out", other), 1, "--overwrite")


def test_what_is_transparent_is_nodata(scene, tmp_path):
    with rasterio.open(scene) as dataset:
        profile = {**dataset.profile, "count": dataset.count + 1, "driver": "GTiff"}
        pixels, names, colours = dataset.read(), dataset.descriptions, dataset.colorinterp
    alpha = np.full(pixels.shape[1:], np.iinfo(pixels.dtype).max, pixels.dtype)
    alpha[:40] = 0
    with rasterio.open(tmp_path / "alpha.tif", "w", **profile) as dataset:
        dataset.write(np.concatenate([pixels, alpha[None]]))
        dataset.descriptions = (*names, "alpha")
        dataset.colorinterp = (*colours, ColorInterp.alpha)
    assert call("mask", tmp_path / "alpha.tif", "--out", tmp_path / "m.tif").exit_code == 0
    with rasterio.open(tmp_path / "m.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1) == 255, alpha == 0)
    options = {"model": "fill", "mask": str(tmp_path / "m.tif")}
    report = process_scene(tmp_path / "alpha.tif", tmp_path / "c.tif", **options)
    assert report.clouds["valid"] == pytest.approx((alpha > 0).mean(), abs=0.02)
