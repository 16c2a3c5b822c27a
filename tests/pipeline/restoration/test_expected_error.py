"""`--uncertainty`: the error that a model's file expects, beside the output."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from look_cases import pixels_of
from model_cases import idle_model, tiny_model
from raster_cases import write

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.expected_error import ExpectedError
from decr_scene.models.checkpoints.model_file import read_model_config, read_model_file, save_model_file
from decr_scene.pipeline import process_scene, restore
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation import calibrate, evaluate

ERROR = ExpectedError(0.3, 0.4, 0.2)
ONE = {"mask": "none", "detector": "none", "device": "cpu", "workers": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene of three bands and a model that expects an error."""
    folder = tmp_path_factory.mktemp("expected")
    tiny = tiny_model(folder / "tiny.safetensors")
    config, tensors = read_model_file(tiny)
    save_model_file(folder / "told.safetensors", replace(config, error=ERROR), tensors)
    pixels = np.random.default_rng(0).integers(20, 200, (3, 300, 330)).astype(np.uint8)
    write(folder / "scene.tif", pixels)
    return folder


def test_the_file_keeps_it_and_files_without_stay_as_they_were(place, tmp_path):
    assert read_model_config(place / "told.safetensors").error == ERROR
    assert read_model_config(place / "tiny.safetensors").error is None
    assert b'"error"' not in (place / "tiny.safetensors").read_bytes()[:4096]


def test_it_is_written_in_digital_numbers_and_changes_nothing(place, tmp_path):
    for name, more in (("plain", {}), ("told", {"uncertainty": True})):
        process_scene(
            place / "scene.tif", tmp_path / f"{name}.tif", model=place / "told.safetensors", **ONE, **more
        )
    plain, told = pixels_of(tmp_path / "plain.tif"), pixels_of(tmp_path / "told.tif")
    np.testing.assert_array_equal(plain, told)
    assert not (tmp_path / "plain_uncertainty.tif").exists()
    deviation = pixels_of(tmp_path / "told_uncertainty.tif")[0]
    cloudy, answer = (
        pixels.astype(np.float32) / 127.5 - 1 for pixels in (pixels_of(place / "scene.tif"), told)
    )
    expected = ERROR.deviation(cloudy, answer) * 127.5
    changed = (told != pixels_of(place / "scene.tif")).any(axis=0)
    assert changed.mean() > 0.5
    np.testing.assert_allclose(deviation[changed], expected[changed], rtol=0.01)
    assert (tmp_path / "told_uncertainty.qml").exists()
    assert json.loads((tmp_path / "told.json").read_text())["parameters"]["uncertainty"] is True


def test_it_does_not_depend_on_windows(place, tmp_path):
    for blocksize in (128, 512):
        out = tmp_path / f"{blocksize}.tif"
        process_scene(
            place / "scene.tif",
            out,
            model=place / "told.safetensors",
            uncertainty=True,
            blocksize=blocksize,
            **ONE,
        )
    np.testing.assert_array_equal(*(pixels_of(tmp_path / f"{side}_uncertainty.tif") for side in (128, 512)))


def test_samples_add_their_spread(place, tmp_path):
    for name, more in (("both", {"uncertainty": True}), ("spread", {})):
        out = tmp_path / f"{name}.tif"
        process_scene(place / "scene.tif", out, model=place / "told.safetensors", samples=2, **ONE, **more)
    both, spread = (pixels_of(tmp_path / f"{name}_uncertainty.tif")[0] for name in ("both", "spread"))
    with rasterio.open(tmp_path / "both.tif") as dataset:
        assert dataset.count == 3
    assert (both >= spread).all()
    assert (both > spread).any()
    described = []
    for name in ("both", "spread"):
        with rasterio.open(tmp_path / f"{name}_uncertainty.tif") as dataset:
            described += dataset.descriptions
    assert described == ["standard deviation: expected error and samples", "standard deviation: samples"]


def test_of_the_bundled_models_those_state_an_error_whose_errors_it_follows(place, tmp_path):
    stated = {name: read_model_config(find_model(name)).error for name in ("default", "rgb", "rice2")}
    assert stated["rgb"] == stated["default"] is not None
    assert stated["rice2"] is None
    with pytest.raises(OptionError, match="rice2 states no error to be expected: drop --uncertainty"):
        process_scene(place / "scene.tif", tmp_path / "out.tif", model="rice2", uncertainty=True, **ONE)


def test_a_model_that_nobody_has_measured_is_refused_before_the_work(place, tmp_path):
    with pytest.raises(OptionError, match=r"tiny\.safetensors states no error to be expected"):
        process_scene(
            place / "scene.tif",
            tmp_path / "out.tif",
            model=place / "tiny.safetensors",
            uncertainty=True,
            **ONE,
        )
    assert not list(tmp_path.iterdir())
    for nameless in ({"model": "identity"}, {"restorer": lambda image: image}):
        with pytest.raises(OptionError, match="has no model file to tell the error to be expected: drop"):
            process_scene(place / "scene.tif", tmp_path / "out.tif", uncertainty=True, **ONE, **nameless)
    array = xr.DataArray(np.zeros((3, 30, 30), np.uint8), dims=("band", "y", "x"))
    with pytest.raises(OptionError, match="restore takes no uncertainty"):
        restore(array, model=str(place / "told.safetensors"), uncertainty=True)


def test_a_model_is_measured_on_pairs_and_evaluated(place, tmp_path):
    rng = np.random.default_rng(3)
    for number in range(2):
        ground = rng.integers(60, 140, (3, 64, 64)).astype(np.uint8)
        for name, pixels in (("clear", ground), ("cloudy", ground // 2 + 90)):
            (tmp_path / "pairs" / name).mkdir(parents=True, exist_ok=True)
            write(tmp_path / "pairs" / name / f"{number}.tif", pixels)
    out, runner = tmp_path / "measured.safetensors", CliRunner()
    call = [
        "models",
        "calibrate",
        str(place / "tiny.safetensors"),
        "--data",
        str(tmp_path / "pairs"),
        "--out",
        str(out),
    ]
    result = runner.invoke(main, call)
    assert result.exit_code == 0, result.output
    assert read_model_config(out).error is not None
    assert "warning: the error was measured on 2 pairs alone" in result.stderr
    assert "take 10 or more" in result.stderr
    assert calibrate.Calibrated(ERROR, calibrate.ENOUGH).warning is None
    look = ["evaluate", "--quiet", "--data", str(tmp_path / "pairs"), "--uncertainty", "--model"]
    judged = runner.invoke(main, [*look, str(out)])
    assert judged.exit_code == 0, judged.output
    deciles = [line.split() for line in judged.stdout.split("decile of the pixels")[1].splitlines()[1:]]
    stated, met = (np.array([float(row[column]) for row in deciles]) for column in (1, 2))
    assert np.sqrt((stated**2).mean()) == pytest.approx(np.sqrt((met**2).mean()), rel=0.1)
    refused = runner.invoke(main, [*look, str(place / "tiny.safetensors")])
    assert refused.exit_code == 2
    assert "decr-scene models calibrate" in refused.stderr


def test_a_run_and_an_evaluation_state_the_same(place, tmp_path, monkeypatch):
    ground = np.random.default_rng(5).integers(60, 140, (3, 256, 256)).astype(np.uint8)
    veil = np.linspace(0, 110, 256).astype(np.uint8)
    for name, pixels in (("clear", ground), ("cloudy", ground + veil)):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        write(tmp_path / "pairs" / name / "0.tif", pixels)
    model, scene = place / "told.safetensors", tmp_path / "pairs" / "cloudy" / "0.tif"
    process_scene(scene, tmp_path / "out.tif", model=model, uncertainty=True, **ONE | {"mask": "auto"})
    stated = []
    monkeypatch.setattr(evaluate.Uncertainty, "add", lambda _, deviation, *more: stated.append(deviation))
    monkeypatch.setattr(evaluate.Uncertainty, "calibration", lambda _: None)
    evaluate.evaluate_pairs(str(model), tmp_path / "pairs", mask="auto", detector="none", uncertainty=True)
    deviation, provenance = (
        pixels_of(tmp_path / f"out_{name}.tif")[0] for name in ("uncertainty", "provenance")
    )
    assert {2, 3} <= set(np.unique(provenance)), "some of the change is applied in part"
    np.testing.assert_allclose(deviation[provenance > 1], 127.5 * stated[0][provenance > 1], rtol=1e-3)


@pytest.mark.parametrize(
    ("error", "problem"), [(0.0, "there is no error to fit"), (1e4, "must be in 0 to 100")]
)
def test_pairs_that_tell_too_little_are_refused(error, problem, tmp_path, monkeypatch):
    idle = idle_model(tmp_path / "idle.safetensors")
    ground = np.random.default_rng(4).integers(60, 140, (3, 64, 64)).astype(np.uint8)
    for name in ("clear", "cloudy"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        write(tmp_path / "pairs" / name / "0.tif", ground)
    monkeypatch.setattr(calibrate, "error_of", lambda *_: np.full((64, 64), error, np.float32))
    with pytest.raises(OptionError, match=f"{problem}.*; take more pairs, of other ground and cloud"):
        calibrate.calibrate_model(str(idle), tmp_path / "pairs", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
