"""A folder of scenes: what is finished stays, what fails stops nothing, what is not ours is kept."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from batch_cases import IDENTITY, Darker, ledger_of, outputs, scene, seen, stamps, statuses
from command_cases import assert_one_line, call
from raster_cases import plain, write
from test_run import assert_same_pixels

import decr_scene.pipeline.outputs.conclusion
from decr_scene.pipeline import Progress, process_directory, process_scene
from decr_scene.pipeline.batch import directory as batch
from decr_scene.pipeline.batch.ledger import LEDGER, Ledger
from decr_scene.pipeline.errors import (
    ClusterError,
    LockedError,
    OptionError,
    OutputError,
    OutputExistsError,
    SceneReadError,
)
from decr_scene.pipeline.writing.writer import SceneWriter

SECOND_PROCESS = """
import os, signal, time
import numpy as np
import decr_scene.pipeline.outputs.conclusion as conclusion
from decr_scene.pipeline import process_directory

{darker}

def hold(number):
    if number == 2:
        print("holding", flush=True)
        time.sleep(100)

def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

def dying(verify):
    calls = []
    def verify_or_die(*files):
        calls.append(files)
        die(len(calls))
        return verify(*files)
    return verify_or_die

if {how!r} == "before its report":
    conclusion.verify_roundtrip = dying(conclusion.verify_roundtrip)
told = dict(hold=hold, die=die).get({how!r})
process_directory({src!r}, {dst!r}, restorer=Darker(told), compress="none")
"""


def another_process(how, folders):
    src, dst = map(str, folders)
    code = SECOND_PROCESS.format(darker=inspect.getsource(Darker), how=how, src=src, dst=dst)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_every_scene_becomes_what_it_becomes_alone(folders, tmp_path):
    src, dst = folders
    report = process_directory(src, dst, restorer=Darker(), seed=4)
    assert statuses(report) == ["done"] * 3
    assert seen(dst) == outputs("a", "b", "c")
    process_scene(src / "b.tif", tmp_path / "alone.tif", restorer=Darker(), seed=4)
    assert (tmp_path / "alone.tif").read_bytes() == (dst / "b.tif").read_bytes()


def test_the_ledger_tells_what_the_report_tells(folders):
    src, dst = folders
    (src / "b.tif").write_text("hello")
    report = process_directory(src, dst, **IDENTITY)
    ledger = ledger_of(dst)
    assert json.loads(report.to_json()) == ledger
    assert ledger["version"]
    assert ledger["started"] <= ledger["ended"]
    assert [entry["status"] for entry in ledger["scenes"]] == ["done", "failed", "done"]
    first, second, _ = ledger["scenes"]
    assert (first["input"], first["output"]) == (str(src / "a.tif"), str(dst / "a.tif"))
    assert first["seconds"] > 0
    assert first["error"] is None
    assert "b.tif is not a raster" in second["error"]
    assert "\n" not in second["error"]


def test_a_bad_scene_stops_nothing_and_a_rerun_does_only_what_is_missing(folders):
    src, dst = folders
    (src / "b.tif").write_text("hello")
    process_directory(src, dst, **IDENTITY)
    before = stamps(dst)
    scene(src / "b.tif")
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["skipped", "done", "skipped"]
    after = stamps(dst)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + len(outputs("b")) - 1  # the ledger is none of them


def test_an_output_whose_side_raster_does_not_open_is_made_again(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    side = dst / "b_provenance.tif"
    os.truncate(side, 100)
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["skipped", "done", "skipped"]
    with rasterio.open(side) as whole:
        assert whole.count


@pytest.mark.parametrize("compress", ["deflate", "lzw", "lzma"])
def test_an_output_whose_end_never_reached_the_disk_is_made_again(compress, folders):
    src, dst = folders
    noise = np.random.default_rng(0).integers(1, 60000, (4, 200, 200)).astype(np.uint16)
    write(src / "b.tif", noise)
    options = {**IDENTITY, "compress": compress}
    process_directory(src, dst, **options)
    whole = (dst / "b.tif").read_bytes()
    for hole in (8, 1000):
        (dst / "b.tif").write_bytes(whole[:-hole] + bytes(hole))
        assert statuses(process_directory(src, dst, **options)) == ["skipped", "done", "skipped"]
        assert (dst / "b.tif").read_bytes() == whole


def test_noise_that_ends_in_zeros_is_not_made_again(folders):
    src, dst = folders
    noise = np.random.default_rng(0).integers(1, 255, (4, 64, 64)).astype(np.uint8)
    noise[:, -1, -4:] = 0
    write(src / "b.tif", noise)
    options = {**IDENTITY, "compress": "zstd", "blocksize": 64}
    assert statuses(process_directory(src, dst, **options)) == ["done"] * 3
    assert statuses(process_directory(src, dst, **options)) == ["skipped"] * 3


def test_whatever_a_scene_does_stops_nothing(folders):
    src, dst = folders

    def shaky(tiles, noise):
        return 1 / 0

    report = process_directory(src, dst, restorer=shaky)
    assert statuses(report) == ["failed"] * 3
    assert "ZeroDivisionError" in report.scenes[0].error
    assert seen(dst) == ["batch.json"]


def test_a_check_that_fails_is_a_failure_until_it_is_good(folders, monkeypatch):
    src, dst = folders
    monkeypatch.setattr(
        decr_scene.pipeline.outputs.conclusion, "verify_roundtrip", lambda *_: {"crs": False, "tags": True}
    )
    report = process_directory(src, dst, **IDENTITY)
    assert report.scenes[0].error == "check failed: crs"
    monkeypatch.undo()
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["done"] * 3


def test_a_foreign_output_is_kept(folders):
    src, dst = folders
    dst.mkdir()
    (dst / "a.tif").write_text("precious")
    (dst / "b.json").write_text('{"vendor": "precious"}')
    report = process_directory(src, dst, **IDENTITY)
    assert statuses(report) == ["failed", "failed", "done"]
    assert f"{dst / 'a.tif'} exists" in report.scenes[0].error
    assert "--overwrite" in report.scenes[0].error
    assert (dst / "a.tif").read_text() == "precious"
    assert "precious" in (dst / "b.json").read_text()
    assert not (dst / "b.tif").exists()
    assert statuses(process_directory(src, dst, **IDENTITY, overwrite=True)) == ["done", "done", "skipped"]


def test_an_output_that_somebody_changed_is_kept(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    (dst / "a.tif").write_text("edited in a GIS")
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["failed", "skipped", "skipped"]
    assert (dst / "a.tif").read_text() == "edited in a GIS"


def test_the_output_of_another_folders_scene_of_that_name_is_kept(folders, tmp_path):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    tuesday = tmp_path / "tuesday"
    tuesday.mkdir()
    plain(tuesday / "a.tif", (60, 70), 1)
    report = process_directory(tuesday, dst, **IDENTITY)
    assert statuses(report) == ["failed"]
    assert str(src / "a.tif") in report.scenes[0].error
    assert_same_pixels(src / "a.tif", dst / "a.tif")


def test_a_file_in_the_place_of_a_folder_fails_that_scene_alone(folders):
    src, dst = folders
    scene(src / "east" / "d.tif")
    dst.mkdir()
    (dst / "east").write_text("a file")
    report = process_directory(src, dst, **IDENTITY, recursive=True)
    assert statuses(report) == ["done", "done", "done", "failed"]
    assert "east cannot be made" in report.scenes[3].error


def test_a_ledger_of_somebody_else_is_kept(folders):
    src, dst = folders
    dst.mkdir()
    (dst / LEDGER).write_text('{"precious": 1}')
    with pytest.raises(OutputExistsError, match="not a ledger of ours"):
        process_directory(src, dst, **IDENTITY)
    assert ledger_of(dst) == {"precious": 1}
    assert statuses(process_directory(src, dst, **IDENTITY, overwrite=True)) == ["done"] * 3


def test_a_ledger_that_cannot_be_written_does_not_stop_the_scenes(folders, monkeypatch):
    src, dst = folders
    save, tries = Ledger.save, []

    def full_disk(ledger):
        tries.append(1)
        if len(tries) in (3, 4):
            raise OutputError("the disk is full")
        save(ledger)

    monkeypatch.setattr(Ledger, "save", full_disk)
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["done"] * 3
    assert [entry["status"] for entry in ledger_of(dst)["scenes"]] == ["done"] * 3


@pytest.mark.parametrize(
    "wrong", [{"overlap": 999}, {"blocksize": 100}, {"model": "nonsense"}, {"no_such_option": 1}]
)
def test_a_wrong_option_is_refused_before_anything_is_touched(wrong, folders):
    src, dst = folders
    with pytest.raises((OptionError, LookupError)):
        process_directory(src, dst, **{**IDENTITY, **wrong})
    assert not dst.exists()


def test_a_cluster_that_is_not_there_ends_it_at_once(folders, monkeypatch):
    src, dst = folders

    def missing(source, target, **options):
        raise ClusterError(f"no Dask scheduler at {options['scheduler']}")

    monkeypatch.setattr(batch, "process_scene", missing)
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1"):
        process_directory(src, dst, **IDENTITY, scheduler="tcp://127.0.0.1:9")
    assert [entry["status"] for entry in ledger_of(dst)["scenes"]] == ["pending"] * 3


def test_a_cluster_that_is_lost_fails_a_scene(folders, monkeypatch):
    src, dst = folders

    def lost(source, target, **options):
        if Path(source).name == "b.tif":
            raise ClusterError("no Dask scheduler")
        return process_scene(source, target, **options)

    monkeypatch.setattr(batch, "process_scene", lost)
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["done", "failed", "done"]


def test_the_progress_counts_what_is_finished_already(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY, pattern="a.tif")
    heard = []

    class Listening(Progress):
        def scenes(self, done, total, name):
            heard.append((done, total, name))

        def tiles(self, done, total):
            heard.append((done, total))

        def stage(self, text):
            heard.append(text)

    process_directory(src, dst, **IDENTITY, progress=Listening())
    before = ["planning", "looking for cloud", "restoring"]

    def scene(name):
        return [*before, (0, 1), (1, 1), f"writing {name}.tif", f"writing {name}_provenance.tif", "checking"]

    assert heard == [(1, 3, "b.tif"), *scene("b"), (2, 3, "c.tif"), *scene("c"), (3, 3, "")]


@pytest.mark.parametrize("method", ["tiles", "stage", "scenes"])
def test_an_exception_of_the_progress_ends_the_batch_and_the_ledger_is_kept(method, folders):
    class Broken(Progress):
        pass

    def fail(*_):
        raise failure

    failure = SceneReadError("a mistake in tiles") if method == "tiles" else KeyError("a mistake")
    setattr(Broken, method, fail)
    src, dst = folders
    with pytest.raises(type(failure)) as raised:
        process_directory(src, dst, **IDENTITY, progress=Broken())
    assert raised.value is failure
    ledger = ledger_of(dst)
    assert [entry["status"] for entry in ledger["scenes"]] == ["pending"] * 3
    assert ledger["ended"]
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["done"] * 3


def test_a_function_is_no_progress_and_is_refused_before_any_work(folders):
    src, dst = folders
    with pytest.raises(OptionError, match=r"progress is a function, expected a Progress"):
        process_directory(src, dst, **IDENTITY, progress=lambda done, total: None)
    assert not dst.exists()


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(folders, monkeypatch):
    src, dst = folders
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ctrl_c = Darker(lambda number: number == 2 and os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            process_directory(src, dst, restorer=ctrl_c)
    finally:
        signal.signal(signal.SIGINT, before)
    ledger = ledger_of(dst)
    assert [entry["status"] for entry in ledger["scenes"]] == ["done", "pending", "pending"]
    assert ledger["ended"]
    assert statuses(process_directory(src, dst, restorer=Darker())) == ["skipped", "done", "done"]


@pytest.mark.parametrize("when", ["die", "before its report"])
def test_after_a_kill_only_what_is_missing_is_done(when, folders, tmp_path):
    src, dst = folders
    process = another_process(when, folders)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    ledger = ledger_of(dst)
    assert [entry["status"] for entry in ledger["scenes"]] == ["done", "pending", "pending"]
    assert ledger["ended"] is None
    assert (dst / "b.tif").exists() == (when == "before its report")
    finished = {name: stamp for name, stamp in stamps(dst).items() if Path(name).stem == "a"}
    report = process_directory(src, dst, restorer=Darker(), compress="none")
    assert statuses(report) == ["skipped", "done", "done"]
    assert stamps(dst).items() >= finished.items()
    assert seen(dst) == outputs("a", "b", "c")
    process_scene(src / "b.tif", tmp_path / "alone.tif", restorer=Darker())
    assert_same_pixels(tmp_path / "alone.tif", dst / "b.tif")


def test_what_somebody_put_in_the_place_of_a_killed_scene_is_kept(folders):
    src, dst = folders
    process = another_process("die", folders)
    process.communicate(timeout=120)
    foreign = plain(dst / "b.tif", (30, 30), 3).read_bytes()
    assert statuses(process_directory(src, dst, restorer=Darker(), compress="none"))[1] == "failed"
    assert (dst / "b.tif").read_bytes() == foreign


def test_a_killed_scene_that_is_tried_with_other_options_in_vain_is_ours(folders):
    src, dst = folders
    process = another_process("before its report", folders)
    process.communicate(timeout=120)
    assert (dst / "b.tif").exists()

    def fail(number):
        raise OSError("the machine is on fire")

    for seed in (1, 2):
        report = process_directory(src, dst, restorer=Darker(fail), seed=seed, pattern="b.tif")
        assert statuses(report) == ["failed"]
    assert statuses(process_directory(src, dst, restorer=Darker(), seed=3, pattern="b.tif")) == ["done"]


def test_a_killed_scene_is_ours_though_another_try_fails_at_the_end(folders, tmp_path, monkeypatch):
    src, dst = folders
    process = another_process("before its report", folders)
    process.communicate(timeout=120)
    monkeypatch.setattr(SceneWriter, "publish", lambda writer: 1 / 0)
    assert statuses(process_directory(src, dst, restorer=Darker(), seed=1, pattern="b.tif")) == ["failed"]
    monkeypatch.undo()
    shutil.copytree(dst, tmp_path / "copy")
    for out in (tmp_path / "copy", dst):
        assert statuses(process_directory(src, out, restorer=Darker(), seed=2, pattern="b.tif")) == ["done"]


@pytest.mark.parametrize("name", ["b_provenance.tif", "b.png"])
def test_what_somebody_put_beside_a_killed_scene_is_kept(name, folders):
    src, dst = folders
    process = another_process("before its report", folders)
    process.communicate(timeout=120)
    (dst / name).write_bytes(b"somebody's own")
    options = {"restorer": Darker(), "seed": 1, "pattern": "b.tif", "quicklook": True}
    assert statuses(process_directory(src, dst, **options)) == ["failed"]
    assert (dst / name).read_bytes() == b"somebody's own"


def test_a_damaged_mark_stops_nothing(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    (dst / ".b.tif.batch.partial").write_bytes(b"\xff\xfe\0")
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["skipped", "done", "skipped"]


def test_a_copy_of_a_killed_scene_is_ours(folders, tmp_path):
    src, dst = folders
    process = another_process("before its report", folders)
    process.communicate(timeout=120)
    shutil.copytree(dst, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "b.tif", ns=(0, 0))
    options = {"restorer": Darker(), "compress": "none", "pattern": "b.tif"}
    assert statuses(process_directory(src, tmp_path / "copy", **options)) == ["done"]


def test_an_old_report_does_not_speak_for_a_new_output(folders, monkeypatch):
    """Uncompressed outputs are all of one size, so a run cut short beside an old report looks finished."""
    src, dst = folders
    options = {"restorer": Darker(), "compress": "none", "pattern": "a.tif"}
    process_directory(src, dst, **options, seed=0)
    wanted = (dst / "a.tif").read_bytes()
    monkeypatch.setattr(decr_scene.pipeline.outputs.conclusion, "verify_roundtrip", lambda *_: 1 / 0)
    assert statuses(process_directory(src, dst, **options, seed=1)) == ["failed"]
    monkeypatch.undo()
    assert (dst / "a.tif").stat().st_size == len(wanted)
    assert (dst / "a.tif").read_bytes() != wanted
    assert statuses(process_directory(src, dst, **options, seed=0)) == ["done"]
    assert (dst / "a.tif").read_bytes() == wanted


def test_what_a_failure_left_to_go_on_from_does_not_stop_another_run(folders):
    src, dst = folders
    plain(src / "a.tif", (600, 900), 1, "uint16")
    options = {"pattern": "a.tif", "batch_size": 1, "blocksize": 128}

    def fail(number):
        if number > 8:
            raise OSError("the machine is on fire")

    assert statuses(process_directory(src, dst, restorer=Darker(fail), **options)) == ["failed"]
    assert list(dst.glob(".a.tif.unfinished*"))
    assert statuses(process_directory(src, dst, restorer=Darker(), **options, seed=1)) == ["done"]
    assert seen(dst) == outputs("a")


def test_two_runs_at_one_folder_do_not_meet_and_a_dead_one_holds_nothing(folders):
    src, dst = folders
    process = another_process("hold", folders)
    try:
        assert process.stdout.readline() == "holding\n"
        with pytest.raises(LockedError, match=f"process {process.pid} .* is writing to"):
            process_directory(src, dst, restorer=Darker())
        result = call("batch", src, "--out", dst, "--model", "identity", "--quiet")
        assert_one_line(result, 1, str(process.pid), "wait for it")
    finally:
        process.kill()
        process.communicate()
    report = process_directory(src, dst, restorer=Darker(), compress="none")
    assert statuses(report) == ["skipped", "done", "done"]
