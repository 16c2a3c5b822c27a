"""Wrong calls end with one clear line and leave nothing behind; right ones say what they did."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from command_cases import assert_one_line, call
from places import SHARED
from raster_cases import described, no_georeferencing, plain
from rasterio.errors import NotGeoreferencedWarning

from decr_scene.models.bundled import bundled_models
from decr_scene.pipeline.commands.main import main


@pytest.fixture
def scene(tmp_path):
    return described(tmp_path / "scene.tif", ("blue", "green", "red", "nir"))


def test_a_missing_scene(tmp_path):
    out = tmp_path / "clean.tif"
    assert_one_line(call("process", tmp_path / "no.tif", "--out", out, "--quiet"), 1, "no.tif")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_raster(tmp_path):
    (tmp_path / "scene.tif").write_text("hello")
    result = call("process", tmp_path / "scene.tif", "--out", tmp_path / "clean.tif", "--quiet")
    assert_one_line(result, 1, "scene.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_an_unknown_model(scene, tmp_path):
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--model", "nonsense", "--quiet")
    assert_one_line(result, 2, "nonsense", *bundled_models())
    assert not (tmp_path / "clean.tif").exists()


def test_a_model_of_other_bands(tmp_path):
    scene = plain(tmp_path / "scene.tif", (50, 60), 3, "uint8", photometric="RGB")
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--model", "default", "--quiet")
    assert_one_line(result, 1, "nir")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_bands_that_nobody_can_tell_apart(tmp_path):
    scene = plain(tmp_path / "scene.tif", (50, 60), 4, "uint16")
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--model", "default", "--quiet")
    assert_one_line(result, 1, "--bands")


def test_a_file_that_is_no_model(scene, tmp_path):
    (tmp_path / "model.safetensors").write_text("hello")
    model = tmp_path / "model.safetensors"
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--model", model, "--quiet")
    assert_one_line(result, 1, "model.safetensors")


def test_a_folder_that_is_not_there(scene, tmp_path):
    result = call("process", scene, "--out", tmp_path / "no" / "clean.tif", "--model", "identity", "--quiet")
    assert_one_line(result, 1, "no")


def test_an_output_that_exists(scene, tmp_path):
    out = tmp_path / "clean.tif"
    out.write_text("precious")
    assert_one_line(call("process", scene, "--out", out, "--model", "identity", "--quiet"), 1, "--overwrite")
    assert out.read_text() == "precious"


def test_the_scene_itself_as_output(scene):
    before = scene.read_bytes()
    result = call("process", scene, "--out", scene, "--model", "identity", "--overwrite", "--quiet")
    assert_one_line(result, 1, "scene.tif")
    assert scene.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [["--overlap", "999"], ["--scale", "9,1"], ["--steps", "0"], ["--blocksize", "100"]],
)
def test_an_option_out_of_range(options, scene, tmp_path):
    result = call(
        "process", scene, "--out", tmp_path / "clean.tif", "--model", "identity", "--quiet", *options
    )
    assert_one_line(result, 2, "got")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("scale", ["-inf,inf", "0,inf", "nan,1", "1e300,1e301", "1e9,1000000001"])
def test_a_scale_without_end_is_refused(scale, scene, tmp_path):
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--scale", scale, "--quiet")
    assert_one_line(result, 2, "got")


@pytest.mark.parametrize("command", ["process", "batch"])
def test_workers_here_and_a_cluster_elsewhere_are_two_wishes(command, scene, tmp_path):
    source, out = (scene, "clean.tif") if command == "process" else (scene.parent, "clean")
    options = ["--model", "identity", "--scheduler", "tcp://127.0.0.1:1", "--workers", 2, "--quiet"]
    result = call(command, source, "--out", tmp_path / out, *options)
    assert_one_line(result, 2, "--workers")


@pytest.mark.parametrize("name", ["x" * 210 + ".tif", "x" * 250 + ".tif", "x" * 300 + ".tif"])
def test_a_name_that_cannot_be_is_told_before_any_work(name, scene, tmp_path):
    out = tmp_path / name if name else ""
    result = call("process", scene, "--out", out, "--model", "identity", "--quiet")
    assert_one_line(result, 1, "choose")
    assert "unexpected" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("name", ["clean.png", "clean.jp2", "clean.json", "clean"])
def test_an_output_that_promises_another_format_is_refused(name, scene, tmp_path):
    result = call("process", scene, "--out", tmp_path / name, "--model", "identity", "--quiet")
    assert_one_line(result, 1, f"choose {tmp_path / 'clean.tif'}")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_scenes_of_one_name_would_be_one_pair(scene, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    other = plain(tmp_path / "elsewhere" / scene.name, (50, 60), 3, "uint8", photometric="RGB")
    result = call("simulate", scene, other, "--out", tmp_path / "pairs", "--overwrite")
    assert_one_line(result, 2, "several scenes")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_is_said_of_a_scene_without_georeferencing(workers, tmp_path, capfd):
    scene = no_georeferencing(tmp_path)
    options = ["--model", "identity", "--workers", workers, "--quiet"]
    before = os.environ.get("PYTHONWARNINGS")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = call("process", scene, "--out", tmp_path / "clean.tif", *options)
    assert result.exit_code == 0, result.output
    assert not capfd.readouterr().err
    assert not [one for one in told if issubclass(one.category, NotGeoreferencedWarning)]
    assert os.environ.get("PYTHONWARNINGS") == before, "other programs of the user warn as the user likes"


def test_steps_that_the_schedule_does_not_have(tmp_path):
    scene = plain(tmp_path / "scene.tif", (50, 60), 3, "uint8", photometric="RGB")
    out = tmp_path / "clean.tif"
    result = call(
        "process", scene, "--out", out, "--model", "rice2", "--steps", 60, "--start", 1000, "--quiet"
    )
    assert_one_line(result, 2, "60 steps")


def test_a_scene_that_breaks_half_way(tmp_path):
    whole = plain(tmp_path / "whole.tif", (2500, 300), 3, compress=None)
    data = whole.read_bytes()
    whole.unlink()
    (tmp_path / "scene.tif").write_bytes(data[: len(data) * 3 // 4])
    result = call(
        "process", tmp_path / "scene.tif", "--out", tmp_path / "clean.tif", "--model", "identity", "--quiet"
    )
    assert_one_line(result, 1, "scene.tif", "row", "the same command goes on")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["scene.tif"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="NO ODD FILES HERE: ../shared/data/odd is not there")
def test_a_real_truncated_file(tmp_path):
    broken = SHARED / "odd" / "truncated_corrupt.tif"
    result = call("process", broken, "--out", tmp_path / "clean.tif", "--model", "identity", "--quiet")
    assert_one_line(result, 1, "truncated_corrupt.tif")
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there(scene, tmp_path):
    out = tmp_path / "clean.tif"
    address = "tcp://127.0.0.1:9"
    result = call("process", scene, "--out", out, "--model", "identity", "--scheduler", address, "--quiet")
    assert_one_line(result, 1, address)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_debug_shows_where(scene, tmp_path):
    with pytest.raises(LookupError):
        CliRunner().invoke(
            main,
            ["--debug", "process", str(scene), "--out", str(tmp_path / "c.tif"), "--model", "no", "--quiet"],
            catch_exceptions=False,
        )


def test_process_says_what_was_done(scene, tmp_path):
    result = call("process", scene, "--out", tmp_path / "clean.tif", "--model", "identity")
    assert result.exit_code == 0, result.output
    assert "4 of 4 tiles restored with identity" in result.stdout


def test_inspect_writes_nothing(scene, tmp_path):
    found = json.loads(call("inspect", scene, "--model", "identity", "--json").stdout)
    assert found["tiles"] == 4
    assert found["bands"] == ["blue", "green", "red", "nir"]
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_folder_for_coverage_is_missed_before_anything_is_measured(scene, tmp_path):
    result = call("inspect", scene, "--ccp", "--out", tmp_path / "no" / "ccp.csv")
    assert_one_line(result, 1, "no such folder")


@pytest.mark.parametrize("nodata", [np.nan, np.inf])
def test_inspect_prints_json_that_anybody_can_read(nodata, tmp_path):
    def refuse(word):
        raise ValueError(f"{word} is not in JSON")

    scene = plain(tmp_path / "scene.tif", (50, 60), 1, "float32", nodata=nodata)
    result = call("inspect", scene, "--model", "identity", "--json")
    assert json.loads(result.stdout, parse_constant=refuse)["nodata"] == str(nodata)


def test_every_command_shows_an_example():
    def commands(group, path=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield (*path, name)

    for path in commands(main):
        assert "Example: decr-scene" in call(*path, "--help").stdout.replace("\n  ", " "), path


@pytest.mark.parametrize(
    ("words", "light"),
    [
        (["--help"], ()),
        (["process", "--help"], ()),
        (["evaluate", "--help"], ()),
        (["models", "list"], ("numpy",)),
    ],
)
def test_help_and_lists_wait_for_nothing_heavy(words, light):
    code = (
        "import sys; from click.testing import CliRunner; "
        "from decr_scene.pipeline.commands.main import main; "
        f"assert CliRunner().invoke(main, {words}).exit_code == 0; "
        "print(*{'torch', 'rasterio', 'dask', 'distributed', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= set(light)


def test_a_run_without_a_network_waits_for_no_torch(tmp_path):
    scene = plain(tmp_path / "scene.tif", (64, 64))
    code = (
        "import sys; from decr_scene.pipeline import process_scene; "
        f"process_scene({str(scene)!r}, {str(tmp_path / 'out.tif')!r}, model='identity'); "
        "print({'torch', 'onnxruntime'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["default", "rice2"])
def test_bundled_models_are_listed_and_shown(name):
    assert name in call("models", "list").stdout
    shown = json.loads(call("models", "show", name).stdout)
    assert shown["name"] == name


def test_a_scene_goes_through_a_bundled_model_and_only_pixels_change(tmp_path):
    scene = plain(tmp_path / "scene.tif", (260, 300), 3, "uint8", photometric="RGB")
    result = call(
        "process", scene, "--out", tmp_path / "clean.tif", "--model", "rice2", "--steps", 1, "--quiet"
    )
    assert result.exit_code == 0, result.output
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "clean.tif") as after:
        assert before.transform == after.transform
        assert not np.array_equal(before.read(), after.read())


@pytest.mark.parametrize(
    "args",
    [
        ("process", "", "--out", "o.tif"),
        ("process", "s.tif", "--out", ""),
        ("process", "s.tif", "--out", "o.tif", "--log", ""),
        ("batch", "", "--out", "o"),
        ("inspect", ""),
        ("models", "import", "", "--out", "o"),
    ],
)
def test_an_empty_path_is_a_wrong_call(args, tmp_path, monkeypatch):
    """A variable of the shell that is not set is not the current folder."""
    monkeypatch.chdir(plain(tmp_path / "s.tif", (30, 40), 3).parent)
    result = call(*args)
    assert result.exit_code == 2
    assert "it is empty, expected a name" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("batch", ".", "--out", "o", "--pattern", " ,"), "pattern is ' ,', expected names of scenes"),
        (("evaluate", "--data", ".", "--compare", ""), "--compare names no models, got ''"),
    ],
)
def test_an_empty_list_is_a_wrong_call(args, told, tmp_path, monkeypatch):
    """Not the default, nor a folder without scenes."""
    monkeypatch.chdir(tmp_path)
    assert_one_line(call(*args), 2, told)
    assert not list(tmp_path.iterdir())


def test_quiet_leaves_warnings(scene, tmp_path):
    with rasterio.open(scene) as dataset:
        profile = {**dataset.profile, "count": 1, "dtype": "uint8", "nodata": None}
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as mask:
        mask.write(np.zeros((1, *mask.shape), np.uint8))
    options = ("--model", "fill", "--mask", tmp_path / "mask.tif", "--scale", "0,255", "--quiet")
    result = call("process", scene, "--out", tmp_path / "clean.tif", *options)
    assert result.exit_code == 0, result.output
    assert "nothing will change" in " ".join(result.stderr.split())
    assert not result.stdout
