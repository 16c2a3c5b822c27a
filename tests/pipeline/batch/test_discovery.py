"""Which files of a folder are scenes of a batch, where their outputs go, and what is refused."""

import os

import pytest
from batch_cases import IDENTITY, inputs, scene, seen, statuses
from command_cases import call_without_rights
from product_cases import LANDSAT, landsat, sentinel

from decr_scene.pipeline import process_directory, process_scene
from decr_scene.pipeline.errors import OptionError


def test_the_tree_is_mirrored_only_when_told(folders):
    src, dst = folders
    scene(src / "east" / "far" / "d.TIF")
    assert inputs(process_directory(src, dst, **IDENTITY)) == ["a.tif", "b.tif", "c.tif"]
    report = process_directory(src, dst, **IDENTITY, recursive=True)
    assert statuses(report) == ["skipped", "skipped", "skipped", "done"]
    assert (dst / "east" / "far" / "d.tif").exists()
    assert (dst / "east" / "far" / "d.json").exists()


def test_only_scenes_of_the_pattern_are_taken(folders):
    src, dst = folders
    scene(src / "B2.TIFF")
    for name in ("notes.txt", "a.tif.aux.xml", ".a.tif.1234.scratch.partial.tif", ".hidden.tif"):
        (src / name).write_text("no scene")
    scene(src / ".trash" / "old.tif")
    report = process_directory(src, dst, **IDENTITY, recursive=True, pattern="[bc]*.tif, *.tiff")
    assert inputs(report) == ["B2.TIFF", "b.tif", "c.tif"]
    assert "B2.tif" in seen(dst)


def products(folder):
    """Two products, a folder that is none, and what no folder of a product is."""
    landsat(folder / LANDSAT)
    sentinel(folder / "S2A_MSIL2A_20240315T101010.SAFE")
    (folder / "notes 1.2").mkdir()
    (folder / ".trash").mkdir()
    scene(folder / "a.tif")
    return folder


def test_each_folder_is_a_scene_when_told(tmp_path):
    src, dst = products(tmp_path / "in"), tmp_path / "out"
    report = process_directory(src, dst, **IDENTITY, folders=True)
    assert inputs(report) == [LANDSAT, "S2A_MSIL2A_20240315T101010.SAFE", "notes 1.2"]
    assert statuses(report) == ["done", "done", "failed"]
    assert "in/notes 1.2" in report.scenes[2].error
    process_scene(src / LANDSAT, tmp_path / "alone.tif", **IDENTITY)
    assert (dst / f"{LANDSAT}.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()
    assert (dst / "S2A_MSIL2A_20240315T101010.tif").exists()
    again = process_directory(src, dst, **IDENTITY, folders=True, pattern="lc*,*.safe")
    assert statuses(again) == ["skipped", "skipped"]


def test_outputs_beside_folders_that_are_scenes_are_none(tmp_path):
    src = products(tmp_path / "in")
    for _ in range(2):
        report = process_directory(src, src / "clean", **IDENTITY, folders=True, pattern="[!n]*")
        assert inputs(report) == [LANDSAT, "S2A_MSIL2A_20240315T101010.SAFE"]
    os.symlink(tmp_path, src / "link")
    report = process_directory(src, src / "clean", **IDENTITY, folders=True)
    assert report.scenes[2].error == "a link that leaves the folder: not followed"


def test_folders_that_are_scenes_are_neither_entered_nor_listed_by_name(folders, tmp_path):
    src, dst = folders
    with pytest.raises(OptionError, match=r"--folders .* --recursive .*: drop one of the two"):
        process_directory(src, dst, **IDENTITY, folders=True, recursive=True)
    with pytest.raises(OptionError, match=r"nothing to do: no folder in .*in"):
        process_directory(src, dst, **IDENTITY, folders=True)
    (tmp_path / "names.txt").write_text("in/a.tif")
    with pytest.raises(OptionError, match=r"names\.txt: drop it, or name that one"):
        process_directory(tmp_path / "names.txt", dst, **IDENTITY, folders=True)
    assert not dst.exists()


def test_two_scenes_of_one_output_are_refused_by_name(folders):
    src, dst = folders
    scene(src / "a.tiff")
    with pytest.raises(OptionError, match=r"a\.tif and .*a\.tiff would both become .*a\.tif"):
        process_directory(src, dst, **IDENTITY)
    assert not dst.exists()
    assert statuses(process_directory(src, dst, **IDENTITY, pattern="*.tiff")) == ["done"]


def test_a_report_in_the_place_of_the_ledger_is_refused(folders):
    src, dst = folders
    scene(src / "batch.tif")
    with pytest.raises(OptionError, match="the ledger: rename"):
        process_directory(src, dst, **IDENTITY)
    assert not dst.exists()


def test_an_out_folder_among_the_inputs_is_not_processed(folders):
    src, _ = folders
    first, second = src / "clean", src / "deep" / "again"
    for dst in (first, first, second):
        report = process_directory(src, dst, **IDENTITY, recursive=True)
        assert inputs(report) == ["a.tif", "b.tif", "c.tif"]


def test_outputs_among_the_inputs_are_not_processed(folders):
    src, dst = folders
    process_scene(src / "a.tif", src / "a_clean.tif", **IDENTITY)
    scene(src / "a_clean_provenance.tif")
    scene(src / "a_2.tif")
    report = process_directory(src, dst, **IDENTITY)
    left_out = {os.path.basename(entry.input): entry.error for entry in report.having("skipped")}
    assert list(left_out) == ["a_clean.tif", "a_clean_provenance.tif"]
    assert set(left_out.values()) == {"an output of decr-scene"}
    assert len(report.having("done")) == 4


def test_outputs_that_would_become_inputs_are_refused(folders):
    src, _ = folders
    with pytest.raises(OptionError, match="among the inputs"):
        process_directory(src, src, **IDENTITY)
    scene(src / src.name / "d.tif")
    with pytest.raises(OptionError, match="among the inputs"):
        process_directory(src, src.parent, **IDENTITY, recursive=True)
    assert not list(src.glob("*.json"))


def test_an_out_folder_above_the_inputs_is_fine(folders):
    src, _ = folders
    assert statuses(process_directory(src, src.parent, **IDENTITY, recursive=True)) == ["done"] * 3


def test_links_that_leave_the_folder_are_not_followed(folders, tmp_path):
    src, dst = folders
    outside = scene(tmp_path / "outside" / "far.tif")
    (src / "d.tif").symlink_to(outside)
    (src / "e").symlink_to(outside.parent)
    (src / "f.tif").symlink_to("a.tif")
    (src / "g").symlink_to(".")
    report = process_directory(src, dst, **IDENTITY, recursive=True)
    assert inputs(report) == ["a.tif", "b.tif", "c.tif", "d.tif", "e", "f.tif"]
    assert statuses(report) == ["done", "done", "done", "skipped", "skipped", "done"]
    assert "leaves the folder" in report.scenes[3].error
    assert not (dst / "d.tif").exists()
    assert not (dst / "e").exists()


def test_a_link_to_nothing_is_a_failure(folders):
    src, dst = folders
    (src / "d.tif").symlink_to(src / "gone.tif")
    report = process_directory(src, dst, **IDENTITY)
    assert statuses(report) == ["done", "done", "done", "failed"]
    assert "no such file" in report.scenes[3].error


def test_a_folder_that_cannot_be_listed_is_a_failure(folders):
    src, dst = folders
    (src / "shut").mkdir(mode=0)
    scene(src / "listed" / "d.tif")
    scene(src / "listed" / "below" / "e.tif")
    (src / "listed").chmod(0o444)  # its names may be read, and nothing behind them
    result = call_without_rights("batch", src, "--out", dst, "--model", "identity", "--recursive", "--quiet")
    assert result.returncode == 1
    assert f"failed {src / 'shut'}: cannot be listed: Permission denied" in result.stderr.replace("\n", " ")
    assert f"failed {src / 'listed' / 'd.tif'}" in result.stderr.replace("\n", " ")
    assert {"a.tif", "b.tif", "c.tif"} <= {*seen(dst)}
