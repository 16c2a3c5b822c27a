"""Where an output finds no room, or may not be written at all."""

import contextlib
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from command_cases import call_without_rights
from fault_cases import OPTIONS, Filling, Smooth, assert_same_file, left_in, run_with_small_files

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import OutputError


@contextmanager
def small_disk(folder, megabytes):
    """A file system of its own."""
    folder.mkdir()
    options = f"size={megabytes}m"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("NO FULL DISK HERE: mounting a small file system is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("batch", [14, 23])
def test_a_disk_that_fills_up(batch, long_scene, whole, log, tmp_path):
    with small_disk(tmp_path / "small", 48) as disk:
        filler, out = disk / "filler", disk / "clean.tif"

        def fill_up():
            with contextlib.suppress(OSError):  # the run itself writes meanwhile: then it is full sooner
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))

        with pytest.raises(OutputError, match=r"clean.*free\): check the disk"):
            process_scene(long_scene, out, restorer=Filling(log, batch, fill_up), **OPTIONS)
        assert not out.exists()
        filler.unlink()
        report = process_scene(long_scene, out, restorer=Smooth(log), **OPTIONS)
        assert report.tiles["windows_resumed"] > 0
        assert_same_file(out, whole)
        assert not left_in(disk)


def test_files_that_may_not_grow(long_scene, whole, log, tmp_path, processes):
    out = tmp_path / "clean.tif"
    process = processes.Process(target=run_with_small_files, args=(long_scene, out, log, 2_000_000))
    process.start()
    process.join()
    assert "File too large" in (log / "error").read_text()
    assert not out.exists()
    report = process_scene(long_scene, out, restorer=Smooth(log), **OPTIONS)
    assert report.tiles["windows_resumed"] > 0, "tiles had no room, their blocks had"
    assert_same_file(out, whole)


def test_a_folder_that_may_not_be_written_to(long_scene, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    out = folder / "clean.tif"
    result = call_without_rights("process", long_scene, "--out", out, "--model", "identity")
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "locked is not writable: choose another folder" in result.stderr
