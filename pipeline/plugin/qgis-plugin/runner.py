"""One run of the program: progress to QGIS, a cancel to the program, and its one line if it fails.

It uses nothing of QGIS but the feedback object and, if given, a function that keeps its window alive.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time

LOOK = 0.1
"""Time between two checks for a cancel, s."""

GRACE = 0.6
"""Time between the request to end and the kill, s."""


class ProgramError(Exception):
    """The program has failed; the text is its one line."""


def run(command, environment, feedback, alive=lambda: None):
    """Run the program to its end.

    Args:
        command: Words of the call.
        environment: Of the child.
        feedback: QGIS's feedback: it takes progress, and has the cancel.
        alive: Called several times a second, so that a window that waits answers.

    Returns:
        ``(end, stdout)``: the last event as a dict, and all that the program answered; ``(None, "")`` if it
        was cancelled.

    Raises:
        ProgramError: It failed.
    """
    own = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x08000200}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
            **own,
        )
    except OSError as error:
        raise ProgramError(f"{command[0]} cannot be started: {error.strerror}") from error
    lines, answer = queue.Queue(), []
    readers = [
        threading.Thread(target=_each, args=(child.stderr, lines.put), daemon=True),
        threading.Thread(target=_each, args=(child.stdout, answer.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    display = _EventDisplay(feedback)
    try:
        while child.poll() is None or readers[0].is_alive() or not lines.empty():
            alive()
            if feedback.isCanceled():
                return None, ""
            try:
                display.line(lines.get(timeout=LOOK))
            except queue.Empty:
                continue
    finally:
        end(child)
    readers[1].join(5)
    if child.returncode:
        raise ProgramError(display.failure() or f"decr-scene ended with exit code {child.returncode}")
    return display.end, "".join(answer)


def in_words(text, words):
    """Replace options in a message by the names of parameters in QGIS; whole options only."""
    return re.sub(r"(?<![\w-])--[\w-]*\w", lambda match: words.get(match[0], match[0]), text)


def end(child):
    """End the program and all its workers."""
    if child.poll() is None:
        child.stdin.close()  # by which it ends, also where there are no signals
        if os.name == "posix":
            _signal(child, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    if os.name == "posix":
        _signal(child, signal.SIGKILL)
    elif child.poll() is None:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], check=False, capture_output=True)
    child.wait()
    child.stdin.close()


def _signal(child, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _each(stream, take):
    with stream:
        for line in stream:
            take(line)


class _EventDisplay:
    """Show events of the program in QGIS."""

    def __init__(self, feedback):
        self.feedback = feedback
        self.errors, self.text, self.end = [], None, {}
        self._scenes = (0, 1)

    def line(self, line):
        """Show one line: an event, or any other text."""
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, LookupError, TypeError):
            if line.strip():
                self.feedback.pushConsoleInfo(line.rstrip())
                self.text = line.strip()
            return
        getattr(self, f"_{kind}", lambda event: None)(event)

    def failure(self):
        """Return why it failed, in a line: of a folder the counts; the line of each scene goes to the log."""
        scenes = self.end.get("scenes")
        if not scenes:
            return self.errors[-1] if self.errors else self.text
        for error in self.errors:
            self.feedback.reportError(error)
        counts = ", ".join(f"{number} {what}" for what, number in scenes.items())
        return f"{counts}: see the errors above, and {self.end['outputs']['ledger']}"

    def _start(self, event):
        self.feedback.pushInfo(event.get("program", ""))

    def _scene(self, event):
        self._scenes = (event["done"], max(1, event["total"]))
        self._progress(0)
        if event["name"]:
            self.feedback.setProgressText(f"{event['name']} ({event['done'] + 1} of {event['total']})")

    def _stage(self, event):
        self.feedback.setProgressText(event["text"])

    def _tiles(self, event):
        left = event.get("left_s")
        time_left = "" if left is None else f", {left:.0f} s left"
        self.feedback.setProgressText(f"{event['done']} of {event['total']} tiles{time_left}")
        self._progress(event["done"] / max(1, event["total"]))

    def _progress(self, part):
        done, total = self._scenes
        self.feedback.setProgress(100 * (done + 0.95 * part) / total)

    def _warning(self, event):
        self.feedback.pushWarning(event["text"])

    def _error(self, event):
        self.errors.append(event["text"])

    def _end(self, event):
        self.end = event
        self.feedback.setProgress(100)
