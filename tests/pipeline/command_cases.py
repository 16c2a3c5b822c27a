"""Calls of the command line, and what a wrong one is to end with."""

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from decr_scene.pipeline.commands.main import main


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def call_without_rights(*arguments):
    """Call in a process that permissions hold back, as they do not root."""
    unable = []
    if os.geteuid() == 0:  # to whom they mean nothing, unless it is without its capabilities
        unable = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        if shutil.which(unable[0]) is None:
            pytest.skip("NO PERMISSIONS HERE: root reads and writes anywhere, and there is no setpriv")
    command = [*unable, sys.executable, "-m", "decr_scene.pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_one_line(result, code, *words):
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    lines = [line for line in lines if "tiles" not in line]  # the progress bar
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("decr-scene: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0]
