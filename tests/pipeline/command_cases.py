"""Calls of the command line, and what a wrong one is to end with."""

from click.testing import CliRunner

from decr_scene.pipeline.commands.main import main


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_one_line(result, code, *words):
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    lines = [line for line in lines if "tiles" not in line]  # the progress bar
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("decr-scene: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0]
