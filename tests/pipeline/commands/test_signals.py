"""Ctrl-C and SIGTERM end the program at once, and it says how to go on; a closed pipe ends it quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_cases import call
from raster_cases import plain

from decr_scene.pipeline.files import journal_path
from decr_scene.pipeline.system import signals

PROGRAM = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, {interrupts})  # a shell's background job would not hear Ctrl-C
import decr_scene.pipeline.restoration.restorers as restorers
import decr_scene.pipeline.writing.together as together
from decr_scene.pipeline.commands.main import main

written, write = threading.Event(), together.WritersTogether.write

def tell(self, span, *pixels):
    write(self, span, *pixels)
    written.set()

def slow(self, tiles, noise, field, agree=None):
    if len(tiles) and restorers.slept >= {quick}:
        if {quick}:
            written.wait(20)  # for a window of the tiles that were quick
        print("at it", flush=True)
        end = time.monotonic() + 40
        while time.monotonic() < end:
            time.sleep(0.5)
    restorers.slept += 1
    return tiles

restorers.slept = 0
together.WritersTogether.write = tell
restorers.Identity.restore = slow
sys.argv[1:] = {arguments!r}
main()
"""


def start(
    *arguments: object, quick: int = 0, stdin: int | None = None, deaf: bool = False
) -> subprocess.Popen[str]:
    interrupts = "signal.SIG_IGN" if deaf else "signal.default_int_handler"
    words = [str(argument) for argument in arguments]
    code = PROGRAM.format(arguments=words, quick=quick, interrupts=interrupts)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def interrupted(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, float, list[str]]:
    """Exit code, seconds, and what was said."""
    assert process.stdout is not None
    assert process.stdout.readline() == "at it\n"
    began = time.monotonic()
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - began, said.splitlines()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_whose_model_is_busy(how: signal.Signals, tmp_path: Path) -> None:
    scene = plain(tmp_path / "scene.tif", (300, 280))
    process = start("process", scene, "--out", tmp_path / "o.tif", "--model", "identity", "--quiet")
    code, seconds, said = interrupted(process, how)
    assert code == 130
    assert seconds < 2
    assert said == ["decr-scene: interrupted; nothing is finished yet, the same command begins anew"]


def test_what_is_finished_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    scene, out = plain(tmp_path / "scene.tif", (1400, 300), 1), tmp_path / "o.tif"
    same = ["process", scene, "--out", out, "--model", "identity", "--blocksize", 128, "--batch-size", 1]
    code, seconds, said = interrupted(start(*same, "--quiet", quick=4), signal.SIGINT)
    assert (code, len(said)) == (130, 1)
    assert seconds < 2
    assert "what is finished is kept, the same command goes on" in said[0]
    assert journal_path(out).exists()
    assert call(*same).exit_code == 0


IN_A_DESTRUCTOR = """
import signal, time
from decr_scene.pipeline.system.signals import ended_by_signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

class Held:
    def __del__(self):
        {what}

with ended_by_signals():
    Held()
    time.sleep({seconds})
"""


def test_an_interrupt_that_falls_into_a_destructor_is_quiet_and_ends_it_too() -> None:
    code = IN_A_DESTRUCTOR.format(what="signal.raise_signal(signal.SIGINT)", seconds=30)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (130, "")


def test_any_other_error_in_a_destructor_is_told() -> None:
    code = IN_A_DESTRUCTOR.format(what="raise ValueError('mine')", seconds=0)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert "ValueError: mine" in done.stderr


def test_a_batch_ends_at_once_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    plain(folder / "a.tif", (300, 280))
    process = start("batch", folder, "--out", tmp_path / "out", "--model", "identity", "--quiet")
    code, seconds, said = interrupted(process, signal.SIGTERM)
    assert code == 130
    assert seconds < 2
    assert "batch.json says what is done, the same command goes on" in said[0]


@pytest.mark.parametrize("arguments", [("inspect",), ("models", "list"), ("inspect", "--json")])
def test_a_reader_that_goes_ends_it_quietly(arguments: tuple[str, ...], tmp_path: Path) -> None:
    scene = plain(tmp_path / "scene.tif", (300, 280))
    name, *more = arguments
    given = ["inspect", scene, "--model", "identity", *more] if name == "inspect" else list(arguments)
    code = "import sys; from decr_scene.pipeline.commands.main import main; sys.argv[1:] = " + repr(
        [str(argument) for argument in given]
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; main()"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_error_that_lasts_does_not_promise_that_the_same_command_goes_on(tmp_path: Path) -> None:
    scene, out = plain(tmp_path / "scene.tif", (300, 280)), tmp_path / "o.tif"
    journal_path(out).write_text("{}\n{}\n{}\n")
    for wrong in (["--mask", tmp_path / "none.tif"], ["--bands", "blue,green"], ["--overlap", 900]):
        result = call("process", scene, "--out", out, "--model", "identity", *wrong)
        assert result.exit_code != 0
        assert "goes on" not in result.stderr


@pytest.mark.alone
@pytest.mark.parametrize("deaf", [False, True], ids=["", "where Ctrl-C is ignored"])
def test_the_end_of_standard_input_ends_a_run_if_its_starter_asks_for_that(
    deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECR_SCENE_END_WITH_STDIN", "1")
    scene = plain(tmp_path / "scene.tif", (300, 280))
    process = start(
        "process", scene, "--out", tmp_path / "o.tif", "--model", "identity", stdin=subprocess.PIPE, deaf=deaf
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at it\n"
    began = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 4
    assert "interrupted" in said


def test_the_end_of_standard_input_ends_a_run_that_ignores_all_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "read", lambda *_: b"")
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        signals._end_with_stdin([])
    assert ended.value.code == signals.INTERRUPTED


def test_a_signal_ends_the_imports_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(9)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "decr_scene.pipeline", "--version"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not hear Ctrl-C
from decr_scene.pipeline.commands.main import main

if __name__ == "__main__":
    main()
"""


def test_ctrl_c_in_a_terminal_reaches_all_processes_and_one_of_them_tells(tmp_path: Path) -> None:
    scene, program = plain(tmp_path / "scene.tif", (4000, 4000), 1, "uint8"), tmp_path / "program.py"
    program.write_text(COMMAND)
    options = ("--out", tmp_path / "out.tif", "--model", "identity", "--workers", "2", "--progress", "jsonl")
    command = [sys.executable, program, "process", scene, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert any('"tiles"' in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read().splitlines()
        assert process.wait(30) == signals.INTERRUPTED
    assert [line for line in rest if not line.startswith("{")] == []
    assert any("interrupted" in line for line in rest)


STUBBORN = """
import signal, sys, time
from pathlib import Path
from decr_scene.pipeline.system.signals import ended_by_signals, removed_at_end

signal.signal(signal.SIGINT, signal.default_int_handler)
with ended_by_signals(), removed_at_end(sys.argv[1]):
    Path(sys.argv[1], "unfinished.tif").touch()
    while True:
        try:
            print("begun", flush=True)  # inside, so that the signal finds nothing outside
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


def test_what_a_run_has_not_finished_goes_where_a_signal_cannot_wait_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", STUBBORN, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == signals.INTERRUPTED
    assert not folder.exists()
