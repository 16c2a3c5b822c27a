"""Nothing needs what only Unix has: the modules that Windows lacks, and its rules for names."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from raster_cases import described, plain

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
os.process_cpu_count = os.cpu_count  # which asks for the affinity from 3.13 on
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


def test_a_name_that_the_encoding_of_a_pipe_lacks_is_escaped(tmp_path: Path) -> None:
    code = "from decr_scene.pipeline.terminal.console import print_line; print_line('吉林 é.tif')"
    variables = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip() == b"\\u5409\\u6797 \xe9.tif"


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding of the machine."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    words = {a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    if name == "open":
        raster = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "rasterio"
        text = not raster and ("newline" in named or bool(words & {"r", "w", "a", "x", "r+"}))
    else:
        text = (name == "read_text" and not call.args) or (name == "write_text" and len(call.args) == 1)
    return text and "encoding" not in named


@pytest.mark.parametrize("half", ["pipeline", "models"])
def test_text_has_an_encoding(half: str) -> None:
    """Windows takes that of its language for text of which none is told."""
    found = [
        f"{path}:{node.lineno}"
        for path in (ROOT / half).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and opens_text(node)
    ]
    assert found == []


SHARED = """
import os, sys
real = {{name: getattr(os, name) for name in ("unlink", "remove", "rename", "replace")}}

def held():
    # files that this process has open; locks are removed in another way on Windows
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if not path.endswith(".lock"):
            yield path

def like_windows(name):
    def call(*paths, **more):
        for path in paths:
            if os.path.realpath(path) in held():
                print("OPEN", name, path, file=sys.stderr, flush=True)
                raise PermissionError(13, "it is open", os.fspath(path))
        return real[name](*paths, **more)
    return call

for name in real:
    setattr(os, name, like_windows(name))
from decr_scene.pipeline.commands.main import main
sys.argv[1:] = {arguments!r}
main()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to see open files in")
def test_no_open_file_is_removed_or_replaced(tmp_path: Path) -> None:
    """Windows refuses that."""
    scene, out = tmp_path / "scene.tif", tmp_path / "clean.tif"
    described(scene, ("blue", "green", "red", "nir"))
    words = [scene, "--out", out, "--model", "fill", "--quicklook", "--stac", "--overwrite"]
    for there in (out, tmp_path / "clean_provenance.tif", tmp_path / "clean.json"):
        there.touch()
    code = SHARED.format(arguments=["process", *map(str, words)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "OPEN" not in done.stderr
    assert out.stat().st_size > 0
