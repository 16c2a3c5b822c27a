"""Nothing needs what only Unix has: the modules that Windows lacks, and its rules for names."""

import subprocess
import sys
from pathlib import Path

import pytest
from raster_cases import plain

from decr_scene.pipeline.files import refused_by_windows
from decr_scene.pipeline.system.locks import HeldError, Lock

HIDDEN = """
import builtins, os, sys
imported = builtins.__import__

def hidden(name, globals=None, *rest, **more):
    # of libraries, the builds for Linux do need them
    if name in ("fcntl", "resource", "grp", "pwd", "termios"):
        if (globals or {{}}).get("__name__", "").startswith("decr_scene"):
            raise ModuleNotFoundError("no module named " + name, name=name)
    return imported(name, globals, *rest, **more)

builtins.__import__ = hidden
del os.sched_getaffinity, os.pathconf, os.set_blocking
from decr_scene.pipeline.commands.main import main
sys.argv[1:] = {arguments!r}
main()
"""


@pytest.mark.parametrize("command", ["process", "inspect", "batch"])
def test_the_main_job_runs_without_modules_of_unix(command: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    scene, out = plain(folder / "scene.tif", (40, 30), 1), tmp_path / "clean.tif"
    arguments = {
        "process": [scene, "--out", out],
        "inspect": [scene],
        "batch": [folder, "--out", tmp_path / "out"],
    }[command]
    code = HIDDEN.format(arguments=[command, *map(str, arguments), "--model", "identity"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert out.exists() == (command == "process")


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(HeldError, match=r"^process \d+ on "):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("name", ["a:b.tif", "con.tif", "LPT1.x.tif", "what?.tif", "tail.tif ", "line\n.tif"])
def test_names_that_windows_refuses(name: str) -> None:
    assert refused_by_windows(name)


@pytest.mark.parametrize("name", ["clean.tif", ".clean.tif.unfinished.jsonl", "console.tif", "吉林 1.tif"])
def test_names_that_windows_takes(name: str) -> None:
    assert refused_by_windows(name) is None
