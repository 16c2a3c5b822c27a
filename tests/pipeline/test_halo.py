"""The first guess of a tile sees beyond it, as far as the model says, in windows of many tiles."""

import json

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
from model_cases import tiny_model
from raster_cases import write
from sample_cases import LANDSAT, part_of_landsat, pixels

from decr_scene.models.checkpoints.model_file import SamplingConfig
from decr_scene.models.model import load_model
from decr_scene.pipeline import process_scene, restore
from decr_scene.pipeline.errors import ResumeError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.aoi import FALLOFF
from decr_scene.pipeline.restoration.restorers import Diffusion
from decr_scene.pipeline.restoration.tasks import guess_tiles
from decr_scene.pipeline.tiling import windows
from decr_scene.pipeline.tiling.feather import blend
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.journal import Journal


@pytest.fixture
def model(tmp_path):
    """It sees 24 px beyond its tiles."""
    return tiny_model(tmp_path / "halo.safetensors", halo=24)


def test_a_first_guess_is_the_middle_of_what_the_network_says_of_a_larger_window(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 200, 448)
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), device="cpu")).plan
    guesses = {}
    for tile in plan.grid:
        guesses |= guess_tiles(plan, FileSource(str(path)), [tile])
    image = pixels(path).astype(np.float32) / 127.5 - 1
    reference = load_model(str(model), device="cpu").reference
    views = {0: (slice(0, 304), slice(0, 256)), 1: (slice(144, 448), slice(48, 304))}
    assert len(plan.grid) == len(views)
    for tile in plan.grid:
        view, part = views[tile.number]
        seen = np.pad(image[:, :, view], ((0, 0), (0, 56), (0, 0)), mode="symmetric")
        expected = reference(torch.from_numpy(seen[None]))[0].numpy()[:, :200, part]
        np.testing.assert_allclose(guesses[tile.number], expected, atol=1e-5)
        plain = reference(torch.from_numpy(np.ascontiguousarray(seen[..., part])[None]))[0].numpy()[:, :200]
        assert np.abs(plain - expected).max() > 1e-3


def test_tiles_of_a_window_are_guessed_in_one_piece_and_normalised_as_each_alone(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 200, 448)
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), device="cpu")).plan
    guesses = guess_tiles(plan, FileSource(str(path)), list(plan.grid))
    image = np.pad(pixels(path) / np.float32(127.5) - 1, ((0, 0), (0, 56), (0, 0)), mode="symmetric")
    reference = load_model(str(model), device="cpu").reference
    whole = reference(torch.from_numpy(image[None]), None, 256 + 2 * 24)[0].numpy()[:, :200]
    for tile, left in zip(plan.grid, (0, 192), strict=True):
        np.testing.assert_allclose(guesses[tile.number], whole[:, :, left : left + 256], atol=1e-6)


def test_windows_give_the_field_of_one_large_window(tmp_path, monkeypatch):
    """Root mean square within 0.5 and all within 10 of 255 DN; normalised as a whole they are far apart."""
    path = LANDSAT
    model = tiny_model(tmp_path / "model.safetensors", halo=128)
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), bands="red,green,blue", device="cpu")).plan
    source, whole = FileSource(str(path), "red,green,blue"), Span(0, 0, *plan.grid.shape)

    def field(side):
        monkeypatch.setattr(windows, "SIDE", side)
        together = windows.windows(plan.grid, plan.spec.halo)
        guesses = [guess_tiles(plan, source, together[number]) for number in range(len(together))]
        found = [(plan.grid[number], own) for part in guesses for number, own in part.items()]
        return len(together), 127.5 * blend(plan.grid, whole, found, 3, share_out=True)

    (one, expected), (several, found) = field(10_000), field(448)
    assert (one, several) == (1, 4)
    apart = np.abs(found - expected)
    print(f"rms {np.sqrt(np.square(apart).mean()):.3f}, most {apart.max():.2f} of 255 DN")
    assert np.sqrt(np.square(apart).mean()) < 0.5
    assert apart.max() < 10


def test_who_calls_may_say_how_far_it_sees(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 256, 448)
    image = pixels(path).astype(np.float32) / 127.5 - 1
    with RasterioScene.open(path) as scene:
        plan = plan_scene(scene, Options(model=str(model), halo=0, device="cpu")).plan
    guesses = guess_tiles(plan, FileSource(str(path)), list(plan.grid))
    alone = load_model(str(model), device="cpu").reference(torch.from_numpy(image[None, :, :, :256].copy()))
    np.testing.assert_allclose(guesses[0], alone[0].numpy(), atol=1e-5)


def test_a_run_that_sees_otherwise_is_another_run(model, tmp_path):
    path = part_of_landsat(tmp_path / "scene.tif", 200, 256)
    with RasterioScene.open(path) as scene:
        guards = [
            run_guard(scene, plan_scene(scene, Options(model=str(model), halo=halo)), "deflate", 512)
            for halo in (None, 24, 25)
        ]
    assert guards[0] == guards[1]
    assert guards[0] != guards[2]


@pytest.fixture
def two_windows(tmp_path, monkeypatch):
    """A scene of three tiles in two windows."""
    monkeypatch.setattr(windows, "SIDE", 448)
    return part_of_landsat(tmp_path / "scene.tif", 200, 600)


def test_batches_and_a_dataarray_give_the_same_file(model, two_windows, tmp_path):
    options = {"model": str(model), "mask": "none", "device": "cpu"}
    for size in (1, 4):
        process_scene(two_windows, tmp_path / f"{size}.tif", batch_size=size, **options)
    np.testing.assert_array_equal(pixels(tmp_path / "1.tif"), pixels(tmp_path / "4.tif"))
    array = rioxarray.open_rasterio(two_windows, chunks={"x": 128, "y": 128})
    np.testing.assert_array_equal(restore(array, **options).values, pixels(tmp_path / "1.tif"))


def test_a_run_that_goes_on_guesses_in_the_same_windows(model, two_windows, tmp_path, monkeypatch):
    options = {"model": str(model), "mask": "none", "device": "cpu", "batch_size": 1, "blocksize": 128}
    process_scene(two_windows, tmp_path / "whole.tif", **options)
    sample, calls = Diffusion.restore, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the machine is on fire")
        return sample(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Diffusion, "restore", failing)
        with pytest.raises(OSError, match="on fire"):
            process_scene(two_windows, tmp_path / "clean.tif", **options)
    report = process_scene(two_windows, tmp_path / "clean.tif", **options)
    assert report.tiles["kept"] > 0
    assert (tmp_path / "clean.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.slow
def test_two_workers_give_the_same_picture(model, tmp_path):
    scene = part_of_landsat(tmp_path / "scene.tif", 200, 640)
    wide = np.concatenate([pixels(scene), pixels(scene)[:, :, ::-1]], axis=2)
    path = write(tmp_path / "wide.tif", wide, photometric="RGB")
    options = {"model": str(model), "mask": "none", "device": "cpu"}
    for workers in (1, 2):
        process_scene(path, tmp_path / f"{workers}.tif", workers=workers, **options)
    apart = np.abs(pixels(tmp_path / "1.tif").astype(int) - pixels(tmp_path / "2.tif"))
    assert apart.max() <= 1  # two workers give a network a thread each, which add up otherwise
    assert (apart > 0).mean() <= 1e-4


def test_a_run_of_an_earlier_version_is_to_be_begun_anew(model, tmp_path):
    path, journal = part_of_landsat(tmp_path / "scene.tif", 200, 256), tmp_path / "journal"
    with RasterioScene.open(path) as scene:
        guard = run_guard(scene, plan_scene(scene, Options(model=str(model))), "deflate", 512)
        other = run_guard(scene, plan_scene(scene, Options(model=str(model), halo=0)), "deflate", 512)
    name = "windows of the first guess"
    assert name not in other
    Journal(journal, {key: value for key, value in guard.items() if key != name}).close()
    with pytest.raises(ResumeError, match=rf"\({name} differ\).* start anew with --no-resume"):
        Journal(journal, guard)


def test_a_model_that_says_nothing_of_it_sees_its_tile_alone():
    assert SamplingConfig().halo == 0


@pytest.mark.parametrize("halo", [0, 24])
def test_an_area_of_interest_has_the_pixels_of_the_whole_scene(halo, two_windows, tmp_path):
    model = tiny_model(tmp_path / "model.safetensors", halo=halo)
    options = {"model": str(model), "mask": "none", "device": "cpu"}
    process_scene(two_windows, tmp_path / "whole.tif", **options)
    with rasterio.open(two_windows) as scene:
        places = ((20, 20), (120, 20), (120, 180), (20, 180), (20, 20))
        corners = [scene.transform @ (col, row) for col, row in places]
        area = {"type": "Polygon", "coordinates": [corners]}
        area["crs"] = {"type": "name", "properties": {"name": scene.crs.to_string()}}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(area))
    report = process_scene(two_windows, tmp_path / "part.tif", aoi=path, **options)
    inside = (slice(None), slice(20 + FALLOFF, 180 - FALLOFF), slice(20 + FALLOFF, 120 - FALLOFF))
    found, expected = (pixels(tmp_path / name)[inside] for name in ("part.tif", "whole.tif"))
    np.testing.assert_array_equal(found, expected)
    assert (found != pixels(two_windows)[inside]).any()
    assert report.tiles["restored"] < 3
    lazy = restore(rioxarray.open_rasterio(two_windows, chunks={"x": 256, "y": 256}), aoi=path, **options)
    np.testing.assert_array_equal(lazy.values, pixels(tmp_path / "part.tif"))
