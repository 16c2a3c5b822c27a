"""The recipes in docs: every run is one that can be trained."""

import os
import subprocess
from pathlib import Path

import pytest
from places import ROOT

from decr_scene.models.training.config import read_config

RECIPES = sorted(p for p in (ROOT / "docs" / "recipes").glob("*.toml") if not p.stem.endswith("-model"))
COMPARED = [path for path in RECIPES if path.stem.startswith("compare-")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run(recipe):
    assert read_config(recipe).stage


def test_systems_that_are_compared_learn_from_the_same_images():
    runs = [read_config(path) for path in COMPARED]
    assert {run.reference.kind for run in runs} == {"spagan", "amgan", "cvae", "diffcr", "mn", "mdsa", "unet"}
    assert all(run.data == runs[0].data for run in runs)
    assert {run.crop for run in runs} == {128, 256}


FAKE = """#!/usr/bin/env bash
echo "$@" >> {calls}
while [ $# -gt 0 ]; do
    case $1 in
        --compare) system=${{2%.safetensors}} ;;
        --csv) printf 'system,psnr\\ncloudy,1\\nfill,2\\n%s,3\\n' "$system" > "$2" ;;
    esac
    shift
done
"""


def test_the_comparison_gives_all_systems_one_budget_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    for half in ("cloudy", "clear"):
        (tmp_path / "data" / "pairs" / "rice2" / "test" / half).mkdir(parents=True)
        for name in range(20):
            (tmp_path / "data" / "pairs" / "rice2" / "test" / half / f"{name:02}.png").touch()
    calls, program = tmp_path / "calls", tmp_path / "decr-scene"
    program.write_text(FAKE.format(calls=calls))
    program.chmod(0o755)
    told = []
    for _ in range(2):
        subprocess.run(
            ["bash", ROOT / "docs" / "recipes" / "compare.sh", "data", "runs"],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            check=True,
        )
        told.append(calls.read_text().splitlines())
        calls.unlink()
    trained = [call.split() for call in told[0] if call.startswith("train")]
    minutes = {call[call.index("--out") + 1]: call[call.index("--cpu-minutes") + 1] for call in trained}
    of_de = [float(minutes.pop(stage)) for stage in ("reference", "diffusion", "joint")]
    assert set(minutes.values()) == {"8"}
    assert sum(of_de) == 8
    assert {path.stem.removeprefix("compare-") for path in COMPARED} == {
        call[call.index("--out") + 1] for call in trained
    }
    assert (tmp_path / "runs" / "compare.csv").read_text().split() == [
        "system,psnr",
        "cloudy,1",
        "fill,2",
        *(f"{name},3" for name in ("spagan", "amgan", "cvae", "mn", "mdsa", "diffcr", "de", "rice2")),
    ]
    assert {path.name for path in (tmp_path / "runs" / "few" / "clear").iterdir()} == {"00.png", "16.png"}
    measured = [sum("--csv" in call for call in calls_of_run) for calls_of_run in told]
    assert measured == [8, 0]
