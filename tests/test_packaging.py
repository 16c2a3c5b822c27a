"""The map of folders to import names holds, and the built package has everything it needs."""

import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from places import ROOT

from decr_scene.pipeline.tiling.grid import TileGrid

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package):
    half, *rest = package.removeprefix("decr_scene.").split(".")
    return ROOT / SETUP["package-dir"][f"decr_scene.{half}"] / Path(*rest)


def printed_by(code):
    """What a Python of its own prints, in which nothing is imported yet."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_every_package_folder_is_declared():
    found = {path.parent for half in ("models", "pipeline") for path in (ROOT / half).rglob("__init__.py")}
    found = {folder for folder in found if folder.name.isidentifier()}  # the plugin is data
    assert found == {folder_of(package) for package in SETUP["packages"]}


def test_the_generic_names_are_not_imported():
    code = (
        "import sys, decr_scene.pipeline.run, decr_scene.models.model; "
        "print({'models', 'pipeline'} & set(sys.modules))"
    )
    assert printed_by(code) == "set()"


def test_a_spawned_worker_imports_the_same_class():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(TileGrid, (300, 300)).result() == TileGrid((300, 300))


def test_the_public_names_are_there():
    from decr_scene.models import load_model, load_published
    from decr_scene.pipeline import DecrSceneError, Options, Report, open_scene, process_scene, restore

    assert all(callable(name) for name in (load_model, load_published, open_scene, process_scene, restore))
    assert issubclass(DecrSceneError, Exception)
    assert Options().model == "default"
    assert hasattr(Report, "to_json")


def test_public_names_are_imported_on_first_use():
    code = (
        "import sys, decr_scene.pipeline, decr_scene.models; "
        "print([m for m in ('numpy', 'torch', 'rasterio', 'dask', 'click') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_names_of_test_files_are_unique():
    """A type checker reads them flat, and they import one another by name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_a_room_is_one_sentence_and_no_more_than_eleven_files():
    for package in SETUP["packages"]:
        if package.count(".") > 1:
            folder = folder_of(package)
            text = (folder / "__init__.py").read_text()
            assert text.count("\n") == 1, package
            assert text.startswith('"""'), package
            assert len(list(folder.glob("*.py"))) <= 12, package


@pytest.mark.slow
def test_the_wheel_has_weights_and_types(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"decr_scene/models/py.typed", "decr_scene/pipeline/py.typed"} <= names
    weights = {name for name in names if name.startswith("decr_scene/models/weights/")}
    assert {Path(name).name for name in weights} == {"default.safetensors", "rgb.toml", "rice2.safetensors"}
    assert any(name.endswith("share/decr-scene/recipes/rice2-reference.toml") for name in names)
    assert "decr_scene/pipeline/plugin/qgis-plugin/metadata.txt" in names
    assert not any(name.startswith(("models/", "pipeline/", "tests/")) for name in names)
