"""The script of the engine's benchmarks works; what it measures is for a quiet machine."""

import subprocess
import sys
from pathlib import Path


def test_the_script_prints_a_table(tmp_path):
    script = Path(__file__).with_name("run.py")
    options = ["--hasty", "--sides", "300,600", "--repeat", "1", "--folder", str(tmp_path / "new")]
    result = subprocess.run(
        [sys.executable, str(script), "cost", "memory", "network", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    assert "cost of identity over a copy, 300 px square" in result.stdout
    assert "memory for a pixel added, 300 to 600 px square" in result.stdout
    assert "first guess over a window of `default`: bf16 over fp32" in result.stdout
    scratch = next(
        line for line in result.stdout.splitlines() if line.startswith("scratch over the raw scene")
    )
    assert 0.1 < float(scratch.split()[-5]) < 1.5
    assert list((tmp_path / "new").iterdir()) == []
