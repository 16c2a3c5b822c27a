"""What `inspect` foretells is what a run then takes."""

import threading
import time
from statistics import median

import pytest
import rasterio
from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.inspection import summary
from decr_scene.pipeline.inspection.summary import inspect_scene


def sleepy(tiles, noise):
    time.sleep(0.05 * len(tiles))
    return tiles * 0.9


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(
    ("shape", "options"), [((3000, 2600), {"model": "identity"}), ((1500, 1100), {"restorer": sleepy})]
)
def test_the_time_is_right_within_a_factor_of_one_and_a_half(shape, options, tmp_path):
    scene = plain(tmp_path / "scene.tif", shape, 4)
    ratios = []
    for _ in range(3):  # each a moment of a machine that may be busy with something else
        foretold = inspect_scene(scene, **options)["estimate"]
        began = time.monotonic()
        report = process_scene(scene, tmp_path / "clean.tif", overwrite=True, **options)
        ratios.append(foretold["seconds"] / (time.monotonic() - began))
    assert 1 / 1.5 < median(ratios) < 1.5, ratios
    assert 1 / 1.5 < foretold["output_mb"] * 1e6 / report.output["bytes"] < 1.5


def test_nothing_of_what_is_told_has_a_secret(tmp_path, monkeypatch):
    secret = "https://h/a.tif?token=HUSH"
    monkeypatch.setattr(summary, "fits_of", lambda planned: [{"path": secret}])
    monkeypatch.setattr(summary, "misfits", lambda planned, scene: [f"{secret} is far away"])
    told = inspect_scene(plain(tmp_path / "scene.tif", (60, 50), 1), model="identity")
    assert "HUSH" not in str(told)
    assert str(told).count("token=***") == 2


def test_without_cloud_no_model_is_reckoned_with(tmp_path):
    scene = plain(tmp_path / "scene.tif", (600, 500), 1)
    mask = plain(tmp_path / "mask.tif", (600, 500), 1, "uint8")
    with rasterio.open(mask, "r+") as dataset:
        dataset.write(dataset.read() * 0)

    def never(tiles, noise):
        raise AssertionError("nothing to restore")

    found = inspect_scene(scene, restorer=never, mask=str(mask))
    assert found["tiles to restore"] == 0
    assert found["estimate"]["seconds"] > 0


def test_tiles_are_tried_where_a_run_restores_them(tmp_path):
    scene, threads = plain(tmp_path / "scene.tif", (900, 700), 1), set()

    def noting(tiles, noise):
        threads.add(threading.current_thread().name.split("-")[0])
        return tiles * 0.9

    inspect_scene(scene, restorer=noting)
    tried = set(threads)
    threads.clear()
    process_scene(scene, tmp_path / "clean.tif", restorer=noting)
    assert tried == threads
    assert "MainThread" not in tried
