"""How the plugin gets into QGIS: into profiles, a folder, or an archive."""

import json
import sys
import zipfile

import pytest
from command_cases import assert_one_line, call

from decr_scene.pipeline.plugin import install


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="profiles lie elsewhere there")
def test_it_goes_into_the_profile_of_every_qgis(home):
    for name in ("QGIS3", "QGIS4"):
        (home / "QGIS" / name / "profiles").mkdir(parents=True)
    result = call("qgis", "install", "--profile", "mine")
    assert result.exit_code == 0, result.stderr
    for name in ("QGIS3", "QGIS4"):
        place = home / "QGIS" / name / "profiles/mine/python/plugins" / install.NAME
        noted = json.loads((place / install.INSTALLED).read_text())
        assert noted["python"] == sys.executable
        assert "default" in noted["models"]
        assert f"version={noted['version']}\n" in (place / "metadata.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="profiles lie elsewhere there")
def test_without_qgis_it_says_what_to_do(home):
    assert_one_line(call("qgis", "install"), 1, "start QGIS once", "--folder")


def test_an_older_one_is_replaced_and_nothing_else(tmp_path):
    for _ in range(2):
        assert call("qgis", "install", "--folder", tmp_path).exit_code == 0
    place = tmp_path / install.NAME
    (place / "metadata.txt").write_text("name=another")
    assert_one_line(call("qgis", "install", "--folder", tmp_path), 1, "not of this program")
    assert call("qgis", "install", "--folder", tmp_path, "--overwrite").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [install.NAME]


def test_the_archive_is_one_folder_without_caches(tmp_path):
    archive = tmp_path / "plugin.zip"
    assert call("qgis", "zip", archive).exit_code == 0
    names = zipfile.ZipFile(archive).namelist()
    assert {name.split("/")[0] for name in names} == {install.NAME}
    assert {"__init__.py", "metadata.txt", "icon.svg"} <= {name.split("/")[1] for name in names}
    assert not any(name.endswith((".pyc", "/")) for name in names)
    assert_one_line(call("qgis", "zip", archive), 1, "--overwrite")


def test_the_plugin_imports_neither_the_program_nor_what_clashes_in_qgis():
    for path in install.SOURCE.glob("*.py"):
        text = path.read_text()
        for module in ("decr_scene", "torch", "rasterio", "numpy", "PyQt5", "PyQt6"):
            assert f"import {module}" not in text, path
            assert f"from {module}" not in text, path
