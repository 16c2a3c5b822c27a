"""The map of folders to import names holds, and the built package has everything it needs."""

import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from decr_scene.pipeline.grid import TileGrid

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package):
    half, *rest = package.removeprefix("decr_scene.").split(".")
    return ROOT / SETUP["package-dir"][f"decr_scene.{half}"] / Path(*rest)


def test_every_package_folder_is_declared():
    found = {path.parent for half in ("models", "pipeline") for path in (ROOT / half).rglob("__init__.py")}
    assert found == {folder_of(package) for package in SETUP["packages"]}


def test_the_generic_names_are_not_imported():
    code = (
        "import sys, decr_scene.pipeline.run, decr_scene.models.model; "
        "print({'models', 'pipeline'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_spawned_worker_imports_the_same_class():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(TileGrid, (300, 300)).result() == TileGrid((300, 300))


def test_the_public_names_are_there():
    from decr_scene.models import load_model, load_published
    from decr_scene.pipeline import open_scene, process_scene, restore

    assert all(callable(name) for name in (load_model, load_published, open_scene, process_scene, restore))


@pytest.mark.slow
def test_the_wheel_has_weights_and_types(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"decr_scene/models/py.typed", "decr_scene/pipeline/py.typed"} <= names
    assert {f"decr_scene/models/weights/{name}.safetensors" for name in ("default", "rice2")} <= names
    assert not any(name.startswith(("models/", "pipeline/", "tests/")) for name in names)
