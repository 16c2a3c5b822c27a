"""`decr-scene batch`: what it says, and with which exit code it ends."""

import inspect
import logging

import pytest
from batch_cases import ledger_of, scene
from click.testing import CliRunner
from command_cases import assert_one_line, call
from model_cases import idle_model

from decr_scene.pipeline import Options, process_directory, process_scene
from decr_scene.pipeline.batch import directory as batch
from decr_scene.pipeline.commands.main import main


def test_the_command_says_what_was_done(folders):
    src, dst = folders
    result = call("batch", src, "--out", dst, "--model", "identity")
    assert result.exit_code == 0, result.output
    assert "3 done, 0 skipped, 0 failed" in result.stdout
    result = call("batch", src, "--out", dst, "--model", "identity", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_the_command_names_every_scene_that_failed(folders):
    src, dst = folders
    for name in ("a", "c"):
        (src / f"{name}.tif").write_text("hello")
    result = call("batch", src, "--out", dst, "--model", "identity", "--quiet")
    assert result.exit_code == 1
    first, second = result.stderr.strip().splitlines()
    assert first.startswith(f"decr-scene: failed {src / 'a.tif'}: ")
    assert second.startswith(f"decr-scene: failed {src / 'c.tif'}: ")
    assert (dst / "b.tif").exists()


def test_the_command_names_what_it_left_out(folders, tmp_path):
    src, dst = folders
    (src / "d.tif").symlink_to(scene(tmp_path / "far.tif"))
    result = call("batch", src, "--out", dst, "--model", "identity")
    assert result.exit_code == 0
    assert f"skipped {src / 'd.tif'}: a link that leaves the folder" in result.stderr


def test_the_command_names_what_should_be_known_of_a_scene(folders, tmp_path):
    src, dst = folders
    model = idle_model(tmp_path / "idle.safetensors", bands=("pan",))
    called = call("batch", src, "--out", dst, "--pattern", "a.tif", "--model", str(model), "--bands", "pan")
    said = "0.0 % of the pixels changed, and no detector looked"
    assert called.exit_code == 0, called.output
    assert f"warning: {src / 'a.tif'}: {said}" in called.stderr
    assert said in ledger_of(dst)["scenes"][0]["warnings"][0]


def test_nothing_to_do_is_a_wrong_call(folders, tmp_path):
    src, dst = folders
    calls = [(tmp_path / "no", []), (src, ["--pattern", "*.xyz"])]
    for folder, options in calls:
        result = call("batch", folder, "--out", dst, "--model", "identity", "--quiet", *options)
        assert_one_line(result, 2, str(folder))
        assert not dst.exists()


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_ledger_that_is_a_link_is_refused_as_an_output_is(options, folders, tmp_path):
    src, dst = folders
    dst.mkdir()
    ledger = tmp_path / "ledger.json"
    ledger.write_text('{"program": "decr-scene"}')
    (dst / "batch.json").symlink_to(ledger)
    called = call("batch", src, "--out", dst, "--model", "identity", "--quiet", *options)
    assert_one_line(called, 1, f"{dst / 'batch.json'} is a link to {ledger}", "remove the link")
    assert ledger.read_text() == '{"program": "decr-scene"}'
    assert [path.name for path in dst.iterdir()] == ["batch.json"]
    assert (dst / "batch.json").is_symlink()


@pytest.mark.parametrize("inner", ["", "inner"])
def test_an_out_folder_that_is_a_link_to_nothing_is_told_by_where_it_leads(inner, folders, tmp_path):
    src, dst = folders
    dst.symlink_to(tmp_path / "gone")
    called = call("batch", src, "--out", dst / inner, "--model", "identity", "--quiet")
    assert_one_line(called, 1, f"{dst} is a link to {tmp_path / 'gone'}, where nothing is", "make one there")
    assert not (tmp_path / "gone").exists()
    (tmp_path / "gone").mkdir()
    assert call("batch", src, "--out", dst / inner, "--model", "identity", "--quiet").exit_code == 0


@pytest.mark.parametrize("options", [["--overlap", "999"], ["--blocksize", "100"], ["--model", "nonsense"]])
def test_a_wrong_option_is_a_wrong_call(options, folders):
    src, dst = folders
    result = call("batch", src, "--out", dst, "--model", "identity", "--quiet", *options)
    assert_one_line(result, 2, options[1])
    assert not dst.exists()


def test_ctrl_c_ends_the_command_with_one_line(folders, monkeypatch):
    src, dst = folders

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "process_scene", interrupted)
    result = call("batch", src, "--out", dst, "--model", "identity", "--quiet")
    assert_one_line(result, 130, "interrupted", "batch.json", "the same command goes on")


def test_debug_shows_the_traceback_of_a_failure(folders):
    src, dst = folders
    (src / "a.tif").write_text("hello")
    log = logging.getLogger("decr_scene")
    try:
        result = call("--debug", "batch", src, "--out", dst, "--model", "identity", "--quiet")
    finally:
        log.handlers.clear()
        log.setLevel(logging.NOTSET)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "SceneReadError" in result.stderr


def test_the_command_takes_what_the_function_takes():
    options = CliRunner().invoke(main, ["batch", "--help"]).stdout
    for name in ("--pattern", "--recursive", "--overwrite", "--no-resume", "--scheduler", "--mask", "--seed"):
        assert name in options


@pytest.mark.parametrize(("name", "function"), [("process", process_scene), ("batch", process_directory)])
def test_the_command_line_has_the_defaults_of_python(name, function):
    command = main.get_command(None, name)
    parameters = inspect.signature(function).parameters
    python = {key: value.default for key, value in parameters.items() if value.kind == value.KEYWORD_ONLY}
    python |= vars(Options())
    with command.make_context(name, ["a", "--out", "b"]) as context:
        there = {key: value for key, value in context.params.items() if key in python and key != "progress"}
    assert len(there) > 20
    assert there == {key: python[key] for key in there}
