"""A detector's road through the program: one look, one small raster, and only cloudy tiles are sampled."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from fault_cases import fire_after
from PIL import Image
from raster_cases import no_georeferencing, nodata_collar, with_gcps, with_rpc, write

from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    build_modules,
    save_model_file,
)
from decr_scene.models.networks.detector import CloudDetector, DetectorConfig, build_detector
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.files import detection_path, journal_path
from decr_scene.pipeline.inspection.coverage import measure_coverage
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.look import coarse, detectors
from decr_scene.pipeline.look.coarse import CoarseReader
from decr_scene.pipeline.look.detection import Places, write_look
from decr_scene.pipeline.look.detectors import ModelLookout
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.planning import detect_clouds
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.fields import FileField
from decr_scene.pipeline.regions.masks import WIDE_RIM, DetectedMask
from decr_scene.pipeline.restoration.restorers import Diffusion
from decr_scene.pipeline.tiling.grid import Span, TileGrid

TINY = UNetConfig(channels=8, multipliers=(1,), attention_factors=(), heads=1, num_res_blocks=1, patch=2)
CONFIG = ModelConfig(
    name="tiny",
    bands=("red", "green", "blue"),
    network=NetworkConfig(bands=3, noise=TINY, weight=TINY),
    reference=ReferenceConfig(bands=3, width=8, multipliers=(1,), blocks=1, middle_blocks=1),
    sampling=SamplingConfig(steps=1, start=100, weight_floor=1.0),
)
DETECTOR = DetectorConfig(bands=3, widths=(2,), factor=4)
SHAPE = (500, 900)


def by_brightness(config=DETECTOR):
    """A detector that takes for cloud what is bright in the mean of the bands, at 0.5 of [-1, 1]."""
    detector = build_detector(config)
    with torch.no_grad():
        for tensor in detector.parameters():
            tensor.zero_()
        for step in [detector.enter, *detector.encoder, *detector.middle]:
            step[1].weight.fill_(1)
        detector.enter[0].weight[:, :, 1, 1] = 1 / config.bands
        detector.enter[1].bias.fill_(1)
        for channel in range(2):
            detector.encoder[0][0].weight[channel, channel, 1, 1] = 1
        detector.leave.weight[:, 0] = 30
        detector.leave.bias.fill_(-30 * 1.5)
    return detector.eval()


@pytest.fixture
def model(tmp_path):
    """A model file whose first guess is dark, so that whatever is restored shows."""
    return model_file(tmp_path / "tiny.safetensors", DETECTOR)


def model_file(path, detector, context=False):
    torch.manual_seed(0)
    config = replace(CONFIG, reference=replace(CONFIG.reference, context=context))
    modules = build_modules(config)
    modules["reference"].leave.bias.data.fill_(-0.7)
    tensors = modules.state_dict()
    if detector is not None:
        config = replace(config, detector=detector)
        tensors |= {f"detector.{name}": t for name, t in by_brightness(detector).state_dict().items()}
    save_model_file(path, config, tensors)
    return path


def ground():
    return np.random.default_rng(0).integers(30, 90, (3, *SHAPE), np.uint8)


@pytest.fixture
def scene(tmp_path):
    """Ground, with one square cloud on the right half."""
    image = ground()
    image[:, 200:260, 700:780] = 240
    return write(tmp_path / "scene.tif", image, photometric="RGB")


def pixels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_only_cloudy_tiles_are_sampled_and_the_rest_keeps_its_bits(scene, model, tmp_path):
    report = process_scene(scene, tmp_path / "clean.tif", model=str(model))
    everything = process_scene(scene, tmp_path / "all.tif", model=str(model), mask="none")
    assert 0 < report.tiles["restored"] < everything.tiles["restored"] == report.tiles["total"]
    before, after = pixels_of(scene), pixels_of(tmp_path / "clean.tif")
    reach = WIDE_RIM.reach + DETECTOR.factor
    near = (slice(None), slice(200 - reach, 260 + reach), slice(700 - reach, 780 + reach))
    changed = before != after
    assert changed[:, 200:260, 700:780].all()
    changed[near] = False
    assert not changed.any()
    assert report.clouds["restore"] == pytest.approx(60 * 80 / (500 * 900), rel=1e-3)
    assert not hidden(tmp_path)


def test_a_clear_scene_comes_back_as_it_is(model, tmp_path):
    scene = write(tmp_path / "clear.tif", ground(), photometric="RGB")
    report = process_scene(scene, tmp_path / "clean.tif", model=str(model))
    assert report.tiles["restored"] == 0
    np.testing.assert_array_equal(pixels_of(scene), pixels_of(tmp_path / "clean.tif"))


def test_a_model_without_detector_looks_at_all_tiles(scene, tmp_path):
    old = model_file(tmp_path / "old.safetensors", None)
    report = process_scene(scene, tmp_path / "clean.tif", model=str(old))
    assert report.tiles["restored"] == report.tiles["total"]
    assert report.clouds is None
    with pytest.raises(SceneError, match="no cloud detector"):
        measure_coverage(scene, model=str(old))


def test_an_interrupted_run_goes_on_with_the_cloud_it_has_found(scene, model, tmp_path, monkeypatch):
    process_scene(scene, tmp_path / "whole.tif", model=str(model), blocksize=128)
    looked = []

    def counting(*args):
        looked.append(1)
        return write_look(*args)

    monkeypatch.setattr(detect_clouds, "write_look", counting)
    with fire_after(2), pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", model=str(model), blocksize=128)
    assert journal_path(tmp_path / "clean.tif").exists()
    assert detection_path(tmp_path / "clean.tif").exists()
    report = process_scene(scene, tmp_path / "clean.tif", model=str(model), blocksize=128)
    assert report.tiles["windows_resumed"] >= 1
    assert looked == [1]
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "clean.tif").read_bytes()
    assert not hidden(tmp_path)


def test_cloud_is_looked_for_again_when_the_raster_is_gone(scene, model, tmp_path):
    with fire_after(2), pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", model=str(model), blocksize=128)
    detection_path(tmp_path / "clean.tif").unlink()
    report = process_scene(scene, tmp_path / "clean.tif", model=str(model), blocksize=128)
    assert report.tiles["windows_resumed"] >= 1
    with_cloud = report.tiles["restored"] + report.tiles["tiles_resumed"]
    assert 0 < with_cloud < report.tiles["total"]


def look(path, detector, raster, scale=(0.0, 255.0)):
    scene = RasterioScene.open(path)
    config = detector.config
    radiometry = Radiometry((scale[0],) * config.bands, (scale[1],) * config.bands)
    reader = CoarseReader(
        scene.shape, FileSource(str(path)), tuple(range(config.bands)), radiometry, config.factor
    )
    places = Places(raster, raster.with_suffix(".ground.tif"))
    coverage = write_look(ModelLookout(detector), scene, reader, config.threshold, places)
    field = FileField(str(raster), reader.coarse_shape)
    return coverage, DetectedMask(field, scene.shape, config.factor, round(255 * config.threshold))


def random_detector(factor):
    torch.manual_seed(1)
    detector = build_detector(DetectorConfig(bands=2, widths=(4, 6, 8, 8), factor=factor))
    assert isinstance(detector, CloudDetector)
    for tensor in detector.parameters():
        if tensor.ndim == 4:
            tensor.data *= 2
    return detector.eval()


def test_a_look_in_strips_and_windows_has_no_seams(tmp_path, monkeypatch):
    image = np.random.default_rng(1).integers(0, 255, (2, 301, 420), np.uint8)
    path = write(tmp_path / "scene.tif", image)
    detector = random_detector(2)
    look(path, detector, tmp_path / "whole.tif")
    monkeypatch.setattr(detectors, "STRIP", 64)
    monkeypatch.setattr(coarse, "ROWS", 6)
    look(path, detector, tmp_path / "strips.tif")
    whole, strips = (
        pixels_of(tmp_path / "whole.tif").astype(int),
        pixels_of(tmp_path / "strips.tif").astype(int),
    )
    assert whole.shape == (3, 151, 210)
    assert whole.std() > 1
    assert np.abs(whole - strips).max() <= 1


@pytest.mark.parametrize("maker", [no_georeferencing, with_gcps, with_rpc])
def test_a_scene_without_coordinates_is_laid_out_by_counting_pixels(maker, tmp_path):
    path = maker(tmp_path)
    with rasterio.open(path) as dataset:
        pixels = dataset.read().astype(np.float64)
    pixels = pixels[:3] if pixels.max() <= 255 else pixels[:3] / 50
    detector = by_brightness(DetectorConfig(bands=3, widths=(2,), factor=4))
    top = 255.0 if pixels.max() <= 255 else 12750.0
    scale = (0.0, 255.0) if rasterio.open(path).dtypes[0] == "uint8" else (0.0, top)
    _, mask = look(path, detector, tmp_path / "cloud.tif", scale)
    height, width = mask.shape
    soft = mask.soft(Span(0, 0, height, width))
    assert soft.shape == (height, width)
    with rasterio.open(path) as dataset:
        x = np.clip(dataset.read()[:3] / scale[1] * 2 - 1, -1, 1).mean(axis=0)
    blocks = x[: height // 4 * 4, : width // 4 * 4].reshape(height // 4, 4, -1, 4).mean(axis=(1, 3))
    expected = np.kron(blocks >= 0.5 + 1e-2, np.ones((4, 4))) > 0
    assert (soft[: expected.shape[0], : expected.shape[1]][expected] == 1).all()


def test_invalid_pixels_are_no_cloud_and_do_not_count(tmp_path):
    path = nodata_collar(tmp_path)
    detector = by_brightness(DetectorConfig(bands=4, widths=(2,), factor=4))
    coverage, _ = look(
        path, detector, tmp_path / "cloud.tif", (-60000.0, -50000.0)
    )  # all valid ones are cloud
    found = pixels_of(tmp_path / "cloud.tif")
    assert not found[:, :10].any()
    assert (found[:2, 10:, :47] == 255).all()
    assert coverage.restore == 1
    assert coverage.cloud == pytest.approx(1)
    assert coverage.valid == pytest.approx((65 * 48) / (75 * 65))


def test_the_soft_mask_of_a_window_is_that_of_the_scene(scene, tmp_path):
    _, mask = look(scene, by_brightness(), tmp_path / "cloud.tif")
    whole = mask.soft(Span(0, 0, *SHAPE))
    assert whole[200:260, 700:780].min() == 1
    part = Span(171, 655, 77, 103)
    np.testing.assert_array_equal(mask.soft(part), whole[171 : 171 + 77, 655 : 655 + 103])
    grid = TileGrid(SHAPE)
    rows, cols = grid.cells
    touched = np.array([[whole[slice(*row), slice(*col)].any() for col in cols] for row in rows])
    found = mask.touched_cells(grid)
    assert found[touched].all()
    assert not found.all()


def test_inspect_counts_cloudy_tiles_and_leaves_nothing(scene, model, tmp_path):
    before = sorted(tmp_path.iterdir())
    found = inspect_scene(scene, model=str(model))
    assert 0 < found["cloudy tiles"] < found["tiles"]
    assert found["clouds"]["coverage probability"] == pytest.approx(60 * 80 / (500 * 900), abs=1e-3)
    assert sorted(tmp_path.iterdir()) == before


def test_coverage_of_a_folder_is_a_histogram_over_its_images(model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, rows in (("a", 0), ("b", 16), ("c", 64), ("d", 64)):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[:rows] = 250
        Image.fromarray(image).save(folder / f"{name}.png")
    call = ["inspect", str(folder), "--ccp", "--model", str(model)]
    told = CliRunner().invoke(main, [*call, "--out", str(tmp_path / "ccp.csv"), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["images"] == 4
    assert found["mean"] == pytest.approx((0 + 0.25 + 1 + 1) / 4, abs=1e-3)
    assert found["shares"] == [0.25, 0, 0.25, 0, 0, 0, 0, 0, 0, 0.5]
    rows = (tmp_path / "ccp.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["name", "a.png", "b.png", "c.png", "d.png"]
    drawn = CliRunner().invoke(main, [*call, "--out", str(tmp_path / "ccp.png")])
    assert "50.0 %" in drawn.output
    with Image.open(tmp_path / "ccp.png") as picture:
        assert picture.size[0] > 300
    wrong = CliRunner().invoke(main, [*call, "--out", str(tmp_path / "ccp.pdf")])
    assert wrong.exit_code == 2


def test_the_plan_says_whether_anything_will_look(scene, model):
    with RasterioScene.open(scene) as opened:
        assert plan_scene(opened, Options(model=str(model))).look == LookPlan(
            "model", DETECTOR.factor, DETECTOR.threshold, tones=True
        )
        assert plan_scene(opened, Options(model=str(model), mask="none")).look is None
        assert plan_scene(opened, Options(model="identity")).look is None
        assert plan_scene(opened, Options(model=str(model))).plan.mask is None


@pytest.mark.parametrize("context", [False, True])
def test_a_network_that_is_not_told_of_the_ground_is_held_to_its_tone(context, scene, tmp_path, monkeypatch):
    """A network whose guess is as bright as no ground of the scene."""
    monkeypatch.setattr(Diffusion, "guess", lambda self, tiles, context=None: np.full_like(tiles, 0.2))
    monkeypatch.setattr(Diffusion, "restore", lambda self, tiles, noise, field, agree=None: field)
    model = str(model_file(tmp_path / "m.safetensors", DETECTOR, context))
    process_scene(scene, tmp_path / "clean.tif", model=model)
    found, (low, high) = pixels_of(tmp_path / "clean.tif")[:, 220:240, 720:760], (55, 75)
    assert ((low < found) & (found < high)).all() != context
    np.testing.assert_array_equal(pixels_of(tmp_path / "clean.tif")[:, :, :500], ground()[:, :, :500])
