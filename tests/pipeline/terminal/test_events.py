"""Progress for programs, and the log: what stands there of a run, of a refused call and of a batch."""

import json
import logging
import os
import time
import warnings
from pathlib import Path

import pytest
from command_cases import call
from raster_cases import plain
from rich.console import Console

from decr_scene.pipeline.terminal import events
from decr_scene.pipeline.terminal.duration import duration
from decr_scene.pipeline.terminal.progress import Lines, stderr_progress


@pytest.fixture
def scene(tmp_path):
    return plain(tmp_path / "scene.tif", (300, 300), 1, "uint8")


def process(scene, *options):
    return call("process", scene, "--out", scene.with_name("clean.tif"), "--model", "identity", *options)


def events_of(result):
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_a_run_is_told_from_its_start_to_the_paths_of_its_outputs(scene):
    result = process(scene, "--progress", "jsonl", "--batch-size", 1)
    assert result.exit_code == 0
    told = events_of(result)
    assert (told[0]["event"], told[0]["version"], told[0]["command"]) == ("start", events.VERSION, "process")
    stages = [event["text"] for event in told if event["event"] == "stage"]
    assert stages[:4] == ["planning", "looking for cloud", "restoring", "writing clean.tif"]
    last = [event for event in told if event["event"] == "tiles"][-1]
    assert (last["done"], last["total"], last["left_s"]) == (4, 4, 0)
    assert told[-1]["event"] == "end"
    outputs = told[-1]["outputs"]
    assert outputs["output"] == str(scene.with_name("clean.tif"))
    assert outputs["report"] == str(scene.with_name("clean.json"))


def test_an_error_is_an_event_and_standard_error_has_nothing_else(tmp_path):
    result = process(tmp_path / "no.tif", "--progress", "jsonl")
    assert result.exit_code == 1
    assert [event["event"] for event in events_of(result)] == ["start", "error"]
    assert "no such file" in events_of(result)[1]["text"]


@pytest.mark.filterwarnings("default")  # elsewhere in the tests a warning is an error
def test_warnings_of_python_and_of_loggers_are_events(capsys):
    with events.to_stderr(True, "process"):
        warnings.warn("one", stacklevel=1)
        logging.getLogger("rasterio").warning("another")
    logging.getLogger("rasterio").warning("later")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [event.get("text") for event in told] == [None, "one", "another"]


def test_a_batch_tells_its_scenes_and_what_became_of_them(folders):
    src, dst = folders
    (src / "b.tif").write_text("no raster")
    result = call("batch", src, "--out", dst, "--model", "identity", "--progress", "jsonl")
    assert result.exit_code == 1
    told = events_of(result)
    begun = [(e["name"], e["done"], e["total"]) for e in told if e["event"] == "scene"]
    assert begun == [("a.tif", 0, 3), ("b.tif", 1, 3), ("c.tif", 2, 3), (None, 3, 3)]
    assert told[-1]["event"] == "end"
    assert told[-1]["outputs"] == {"ledger": str(dst / "batch.json")}
    assert told[-1]["scenes"]["done"] == 2


def test_the_log_has_a_line_a_stage_and_keeps_earlier_runs(scene, tmp_path):
    log = tmp_path / "run.log"
    for _ in range(2):
        assert process(scene, "--log", log, "--overwrite").exit_code == 0
    lines = log.read_text().splitlines()
    assert sum("scene.tif: looking for cloud" in line for line in lines) == 2
    assert sum("4 of 4 tiles restored with identity" in line for line in lines) == 2
    assert process(tmp_path / "no.tif", "--log", log).exit_code == 1
    assert "error: " in log.read_text().splitlines()[-1]


def test_the_log_is_no_file_of_the_run_and_no_raster(scene, tmp_path):
    before = scene.read_bytes()
    other = plain(tmp_path / "other.tif", (20, 20), 1)
    nowhere = tmp_path / "no" / "log"
    for log, words in ((scene, "is the file of scene"), (other, "no text"), (nowhere, "No such")):
        result = process(scene, "--log", log)
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert scene.read_bytes() == before
    assert not scene.with_name("clean.tif").exists()


def test_the_log_is_no_output_and_no_area_whose_layer_is_named(scene, tmp_path):
    area = tmp_path / "area.geojson"
    area.write_text("{}")
    for log in (scene.with_name("clean.tif"), scene.with_name("clean.json"), area):
        result = process(scene, "--log", log, "--aoi", f"{area}|layername=area")
        assert result.exit_code == 1
        assert f"{log} is the file of" in result.stderr
    assert area.read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["area.geojson", "scene.tif"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_under_the_log_is_told_once_and_ends_no_run(scene):
    done = process(scene, "--log", "/dev/full")
    assert (done.exit_code, done.stderr.count("cannot be written to (")) == (0, 1)


def test_a_log_without_a_terminal_has_a_line_every_tenth(capsys):
    with stderr_progress("scene.tif", quiet=False) as lines:
        lines.stage("restoring")
        lines.tiles(0, 200)
        for done in range(1, 201):
            lines.tiles(done, 200)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 9
    assert said[0].startswith("scene.tif: 20 of 200 tiles, ")
    assert said[0].endswith(" left")


def test_what_takes_long_before_the_tiles_is_told(capsys, monkeypatch):
    monkeypatch.setattr("decr_scene.pipeline.terminal.progress.PATIENCE", 0.01)
    with stderr_progress("scene.tif", quiet=False) as lines:
        assert isinstance(lines, Lines)
        lines.stage("planning")
        lines._late.join(10)
    assert capsys.readouterr().err == "scene.tif: planning\n"


def test_tiles_that_are_kept_say_nothing_of_the_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for progress in (events.Events(), Lines(Console(stderr=True), "scene.tif")):
        progress.stage("restoring")
        clock[0] += 1
        progress.tiles(80, 100)
        clock[0] += 49
        progress.tiles(90, 100)
    first, second, line = capsys.readouterr().err.splitlines()[1:]
    assert (json.loads(first)["done"], json.loads(first)["left_s"]) == (80, None)
    assert (json.loads(second)["kept"], json.loads(second)["left_s"]) == (80, 50)
    assert line == "scene.tif: 90 of 100 tiles, 50 s left"


def test_a_run_that_went_on_says_how_many_tiles_were_kept(scene):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decr_scene.pipeline.outputs.conclusion.verify_pixels", interrupted)
        assert process(scene).exit_code
    assert "0 of 4 tiles restored, 4 kept from before, with identity" in process(scene).stdout


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (99, "99 s"), (100, "2 min"), (5177, "86 min"), (7200, "2 h 0 min")]
)
def test_times_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_pipe_is_no_log(scene, tmp_path):
    """Nobody may ever read it."""
    os.mkfifo(tmp_path / "pipe")
    result = process(scene, "--log", tmp_path / "pipe")
    assert result.exit_code == 1
    assert "is a pipe" in result.output
