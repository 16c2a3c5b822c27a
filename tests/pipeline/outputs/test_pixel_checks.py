"""What is checked of the finished pixels: a single wrong one is found, and seams and lost texture show."""

import numpy as np
import pytest
import rasterio
from beside_cases import cloud_mask, darker, noisy, run
from raster_cases import plain, write

from decr_scene.pipeline.outputs.pixel_checks import verify_pixels
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.provenance import GENERATED, ORIGINAL


def checked(scene, tmp_path):
    with RasterioScene.open(scene) as opened:
        plan = plan_scene(opened, Options(model="identity")).plan
        return verify_pixels(opened, tmp_path / "clean.tif", tmp_path / "clean_provenance.tif", plan)


def tampered(path, change):
    """The same raster, no COG any more, with its pixels changed."""
    with rasterio.open(path) as dataset:
        profile, pixels = dataset.profile, dataset.read()
    change(pixels)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)


@pytest.mark.parametrize(
    ("name", "where", "value", "failing"),
    [
        ("clean.tif", (0, 200, 10), 77, {"clear_pixels_identical"}),
        ("clean.tif", (0, 80, 180), 0, {"no_valid_pixel_lost"}),
        ("clean.tif", (2, 5, 5), 9, {"nodata_untouched"}),
        ("clean_provenance.tif", (0, 200, 10), GENERATED, {"provenance_true"}),
        ("clean_provenance.tif", (0, 80, 180), ORIGINAL, {"clear_pixels_identical"}),
        ("clean_provenance.tif", (0, 5, 5), ORIGINAL, {"provenance_true"}),
    ],
)
def test_a_single_wrong_pixel_is_found(name, where, value, failing, scene, mask, tmp_path):
    run(scene, mask)
    assert all(checked(scene, tmp_path)[0].values())
    tampered(tmp_path / name, lambda pixels: pixels.__setitem__(where, value))
    checks, _ = checked(scene, tmp_path)
    assert {name for name, good in checks.items() if not good} == failing


@pytest.mark.parametrize(("middle", "holes"), [(0, False), (9, True)])
def test_0_is_no_black_where_ground_lies_on_both_sides_of_it(middle, holes, tmp_path):
    ground = np.random.default_rng(0).normal(middle, 2, (3, 300, 280)).round().astype(np.int16)
    scene = write(tmp_path / "scene.tif", ground)
    run(scene, cloud_mask(tmp_path))
    tampered(
        tmp_path / "clean.tif", lambda p: p.__setitem__((slice(None), slice(90, 94), slice(160, 164)), 0)
    )
    checks, _ = checked(scene, tmp_path)
    assert checks["no_black_hole"] is not holes


def test_black_pixels_are_counted_and_black_holes_fail(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 280), 3)
    run(scene)
    tampered(tmp_path / "clean.tif", lambda pixels: pixels.__setitem__((slice(None), 50, 60), 0))
    checks, figures = checked(scene, tmp_path)
    assert figures["counts"]["new_black"] == 1
    assert checks["no_black_hole"]
    tampered(tmp_path / "clean.tif", lambda p: p.__setitem__((slice(None), slice(90, 94), slice(5, 9)), 0))
    checks, figures = checked(scene, tmp_path)
    assert figures["counts"]["new_black"] == 17
    assert not checks["no_black_hole"]


def test_a_large_scene_is_looked_at_in_part_and_where_it_was_restored(tmp_path):
    scene = plain(tmp_path / "scene.tif", (2600, 2600), 1, "uint8")
    cloud = np.zeros((1, 2600, 2600), np.uint8)
    cloud[:, 1300:1330, 800:830] = 1
    mask = str(write(tmp_path / "mask.tif", cloud))
    report, _, _, _ = run(scene, mask, darker)
    assert report.verification["sample"] == {"windows": 16, "pixels": (3 * 512 + 40) ** 2, "of": 2600**2}
    assert report.verification["counts"]["original"] < (3 * 512 + 40) ** 2


def test_the_seam_score_sees_seams_and_nothing_else(tmp_path):
    scene = plain(tmp_path / "scene.tif", (600, 600), 1)

    def patchwork(tiles, noise):
        offsets = np.linspace(-0.2, 0.2, len(tiles), dtype=np.float32)
        return tiles + offsets[:, None, None, None] + 0.01 * noise

    report, _, _, _ = run(scene, restorer=patchwork, overlap=0, batch_size=8)
    assert report.verification["seam_score"] > 3
    report, _, _, _ = run(scene, restorer=noisy, overwrite=True)
    assert report.verification["seam_score"] == pytest.approx(1, abs=0.03)
    assert report.verification["texture_ratio"] == pytest.approx(1, abs=0.03)


def test_independent_noise_shows_in_the_texture_ratio(tmp_path):
    scene = plain(tmp_path / "scene.tif", (600, 600), 1)
    rng = np.random.default_rng(0)
    report, _, _, _ = run(scene, restorer=lambda tiles, noise: 0.3 * rng.normal(size=tiles.shape))
    assert report.verification["texture_ratio"] < 0.9
