"""Files get to their names whole, and names that are no place for a file are refused."""

import csv
import errno
import os
from pathlib import Path

import pytest

from decr_scene.models.checkpoints import model_file
from decr_scene.pipeline import files
from decr_scene.pipeline.errors import OutputError, in_one_line
from decr_scene.pipeline.evaluation.evaluate import write_rows
from decr_scene.pipeline.files import check_name, check_target, os_faults, size_in_words, write_whole

full = OSError(28, "No space left on device")


def halfway(path):
    path.write_text("half")
    raise full


@pytest.mark.parametrize("whole", [write_whole, model_file.write_whole])
def test_a_full_disk_leaves_what_was_there(whole, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("before")
    with pytest.raises(OSError, match="No space"), whole(path) as partial:
        halfway(partial)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.json", "before")]


@pytest.mark.parametrize("whole", [write_whole, model_file.write_whole])
def test_a_file_is_on_disk_before_it_has_its_name(whole, tmp_path, monkeypatch):
    done = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), rename(*names)))
    with whole(tmp_path / "a.json") as partial:
        partial.write_text("all of it")
    assert done[:2] == ["sync", "rename"]
    assert (tmp_path / "a.json").read_text() == "all of it"


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "writer", lambda file: (file.write("half"), (_ for _ in ()).throw(full)))
    with pytest.raises(OSError, match="No space"):
        write_rows(tmp_path / "figures.csv", "name", {"a": {"psnr": 30.0}})
    assert not list(tmp_path.iterdir())


def test_a_device_or_a_pipe_is_no_output_even_to_be_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    for path in (tmp_path / "pipe.tif", "/dev/null"):
        with pytest.raises(OutputError, match="is a device or a pipe"):
            check_target(None, path, overwrite=True)
    with pytest.raises(OutputError, match="is a device or a pipe"):
        check_name(Path("/dev/null"))


def test_a_link_is_no_output_as_it_would_be_replaced_and_not_followed(tmp_path):
    (tmp_path / "target.tif").write_text("precious")
    for name in ("target.tif", "nothing.tif"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(tmp_path / name)
        for overwrite in (True, False):
            with pytest.raises(OutputError, match=rf"is a link to .*{name}, .*: name .*{name}$"):
                check_target(None, link, overwrite)
    with pytest.raises(OutputError, match="is the input itself"):
        check_target(tmp_path / "target.tif", tmp_path / "link to target.tif", overwrite=True)


@pytest.mark.parametrize("trouble", ["loop", "file", "missing"])
def test_a_folder_that_is_none_is_told_as_the_user_named_it(trouble, tmp_path):
    """Not as the hidden file that could not be made there."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    reason = {"loop": "Too many levels", "file": "is no folder", "missing": "no such folder"}[trouble]
    with pytest.raises(OutputError, match=rf"{trouble}: .*{reason}.*where o.tif was to be written"):
        check_name(tmp_path / trouble / "o.tif")


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as to anybody but root
    with pytest.raises(OutputError, match="may not be looked into"):
        check_name(tmp_path / "o.tif")


def test_what_may_not_be_read_is_told_with_what_to_do():
    assert "change its permissions" in in_one_line(PermissionError(13, "Permission denied", "a.tif"))


def test_faults_of_the_system_name_what_cannot_be_done_and_the_free_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_disk", lambda folder: "0.01 MB")
    told = r"^cannot write a \(.*No space.*; 0.01 MB free\): go$"
    with pytest.raises(OutputError, match=told), os_faults("cannot write a", tmp_path, "go"):
        raise full


def test_a_disk_that_is_read_alone_is_told_apart_from_a_full_one(tmp_path):
    told = r"^cannot write a \(.*Read-only file system\): choose another folder, or change its permissions$"
    with pytest.raises(OutputError, match=told), os_faults("cannot write a", tmp_path, "go"):
        raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize(
    ("size", "told"), [(0, "0.00 MB"), (123_456, "0.12 MB"), (9_999_999, "10.00 MB"), (25_000_000, "0.03 GB")]
)
def test_small_sizes_are_told_in_mb(size, told):
    assert size_in_words(size) == told
