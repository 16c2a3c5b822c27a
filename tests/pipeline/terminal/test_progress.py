"""What a long run shows of itself, on a terminal and in a log."""

import re

import pytest
import rich.progress
from click.testing import CliRunner
from raster_cases import plain

from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.terminal.progress import Bars, stderr_progress


@pytest.fixture
def scene(tmp_path):
    return plain(tmp_path / "scene.tif", (300, 300), 1, "uint8")


def process(scene, *options):
    out = scene.with_name("clean.tif")
    return CliRunner().invoke(
        main, ["process", str(scene), "--out", str(out), "--model", "identity", *options]
    )


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # so rich takes any stream for a terminal
    monkeypatch.setenv("COLUMNS", "200")


def last_lines(capsys, count):
    """What stands there at the end, without colours and movements of the cursor."""
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    return shown.replace("\r", "\n").rstrip().splitlines()[-count:]


def test_in_a_log_an_error_is_its_one_line_and_no_empty_one(tmp_path):
    result = process(tmp_path / "no.tif")
    assert result.exit_code == 1
    assert result.stderr.startswith("decr-scene: ")
    assert result.stderr.count("\n") == 1


def test_a_log_has_a_line_when_the_tiles_are_done(scene):
    *before, last = process(scene).stderr.splitlines()
    assert last == "scene.tif: 4 of 4 tiles, writing clean.tif"
    tenths = [re.fullmatch(r"scene\.tif: (\d) of 4 tiles, \d+ (s|min) left", line) for line in before]
    assert [found and found[1] for found in tenths] == ["1", "2", "3"]
    assert process(scene, "--quiet", "--overwrite").stderr == ""


def test_a_log_of_a_batch_has_a_line_for_every_scene(capsys):
    with stderr_progress("folder", quiet=False, of_folder=True) as bars:
        for name in ("a.tif", "[b].tif"):
            bars.scenes(0, 2, name)
            bars.stage("restoring")
            bars.tiles(3, 3)
            bars.stage("writing out.tif")
            bars.stage("checking")
    said = capsys.readouterr().err
    assert said == "a.tif: 3 of 3 tiles, writing out.tif\n[b].tif: 3 of 3 tiles, writing out.tif\n"


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_every_stage_after_the_tiles(scene):
    shown = process(scene).stderr
    places = [
        shown.find(text) for text in ("4/4", "writing clean.tif", "writing clean_provenance.tif", "checking")
    ]
    assert min(places) >= 0
    assert places == sorted(places)


@pytest.mark.usefixtures("terminal")
def test_a_stage_has_no_count_and_no_time_left(capsys):
    with stderr_progress("scene.tif", quiet=False) as bar:
        bar.tiles(4, 4)
        bar.stage("writing clean.tif")
    tiles, stage = last_lines(capsys, 2)
    assert tiles.startswith("scene.tif")
    assert "4/4 tiles" in tiles
    assert stage.startswith("writing clean.tif")
    assert "/" not in stage
    assert "left" not in stage


@pytest.mark.usefixtures("terminal")
def test_the_next_scene_of_a_batch_begins_without_the_stage_of_the_last(capsys):
    with stderr_progress("folder", quiet=False, of_folder=True) as bars:
        bars.scenes(0, 2, "a.tif")
        bars.stage("checking")
        bars.scenes(1, 2, "b.tif")
    folder, scene = last_lines(capsys, 2)
    assert folder.startswith("folder")
    assert scene.startswith("b.tif")


def test_the_time_left_of_a_run_that_goes_on_is_that_of_its_own_tiles():
    """Those of the run before would make it seem fast."""
    now = [0.0]
    bars = rich.progress.Progress(get_time=lambda: now[0], disable=True)
    progress = Bars(bars, "scene.tif")
    for done in (900, 910, 920):
        progress.tiles(done, 1000)
        now[0] += 10
    assert bars.tasks[0].time_remaining == 80
