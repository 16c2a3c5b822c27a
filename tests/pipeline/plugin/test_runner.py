"""What the plugin for QGIS does with the program, tried with programs that are none; no QGIS is needed."""

import importlib.util
import os
import sys
import time

import pytest

from decr_scene.pipeline.plugin.install import SOURCE

SPEC = importlib.util.spec_from_file_location("plugin_runner", SOURCE / "runner.py")
runner = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(runner)


class Feedback:
    """As QGIS has it; cancels when ``cancel`` says so."""

    def __init__(self, cancel=lambda: False):
        self.told, self.isCanceled = [], cancel

    def __getattr__(self, name):
        return lambda value: self.told.append((name, value))


def run(code, feedback):
    return runner.run([sys.executable, "-c", code], dict(os.environ), feedback)


TELLS = """
import sys
for line in (
    '{"event": "start", "version": 1, "program": "decr-scene 9"}',
    '{"event": "stage", "text": "restoring"}',
    '{"event": "tiles", "done": 1, "total": 4, "left_s": 9.2}',
    'a word of a library',
    '{"event": "news", "of": "later versions"}',
    '{"event": "warning", "text": "mind"}',
    '{"event": "end", "outputs": {"output": "clean.tif"}}',
):
    print(line, file=sys.stderr)
print("answer")
"""


def test_events_become_progress_and_words():
    feedback = Feedback()
    end, answer = run(TELLS, feedback)
    assert end["outputs"] == {"output": "clean.tif"}
    assert answer == "answer\n"
    assert ("setProgressText", "restoring") in feedback.told
    assert ("setProgressText", "1 of 4 tiles, 9 s left") in feedback.told
    assert ("setProgress", 23.75) in feedback.told
    assert ("pushConsoleInfo", "a word of a library") in feedback.told
    assert ("pushWarning", "mind") in feedback.told
    assert feedback.told[-1] == ("setProgress", 100)


def test_scenes_of_a_folder_share_the_bar():
    feedback = Feedback()
    scene = '{{"event": "scene", "name": {}, "done": {}, "total": 2}}'
    tiles = '{"event": "tiles", "done": 2, "total": 4, "left_s": null}'
    lines = [scene.format('"a.tif"', 0), scene.format('"b.tif"', 1), tiles, scene.format("null", 2)]
    run(f"import sys; print({chr(10).join(lines)!r}, file=sys.stderr)", feedback)
    assert [value for name, value in feedback.told if name == "setProgress"] == [0, 50, 73.75, 100]


def test_the_line_of_the_program_is_the_error():
    error = '{"event": "error", "text": "no such file"}'
    with pytest.raises(runner.ProgramError, match=r"^no such file$"):
        run(f"import sys; print({error!r}, file=sys.stderr); sys.exit(1)", Feedback())
    with pytest.raises(runner.ProgramError, match="exit code 3"):
        run("import sys; sys.exit(3)", Feedback())
    with pytest.raises(runner.ProgramError, match=r"/no/such cannot be started: No such file"):
        runner.run(["/no/such"], {}, Feedback())


def test_of_a_folder_every_failure_is_told():
    lines = (
        '{"event": "error", "text": "failed one.tif: damaged"}',
        '{"event": "error", "text": "failed two.tif: too small"}',
        '{"event": "end", "outputs": {"ledger": "out/batch.json"}, "scenes": {"done": 3, "failed": 2}}',
    )
    feedback = Feedback()
    told = r"^3 done, 2 failed: see the errors above, and out/batch.json$"
    with pytest.raises(runner.ProgramError, match=told):
        run(f"import sys; print({chr(10).join(lines)!r}, file=sys.stderr); sys.exit(1)", feedback)
    errors = [text for name, text in feedback.told if name == "reportError"]
    assert errors == ["failed one.tif: damaged", "failed two.tif: too small"]


def test_only_whole_options_get_other_words():
    words = {"--mask": "'Cloud mask'", "--mask-values": "'Values'"}
    told = "--mask is odd: say it with --mask-values, such as 3, or --mask."
    assert (
        runner.in_words(told, words)
        == "'Cloud mask' is odd: say it with 'Values', such as 3, or 'Cloud mask'."
    )


@pytest.mark.alone
@pytest.mark.skipif(os.name != "posix", reason="looks for processes as Unix does")
def test_a_cancel_ends_the_program_and_its_workers_within_a_second(tmp_path):
    stubborn = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} '); time.sleep(60)"
    )
    began = []

    def cancel():
        if (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().count(" ") == 2:
            began[:] = began or [time.monotonic()]
        return bool(began)

    assert run(stubborn, Feedback(cancel)) == (None, "")
    assert time.monotonic() - began[0] < 1.5
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        deadline = time.monotonic() + 5
        while _lives(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
