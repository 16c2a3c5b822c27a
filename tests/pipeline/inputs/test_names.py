"""Names of inputs: files, and what is there but no file."""

import os

import pytest
from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.files import SIDECARS
from decr_scene.pipeline.inputs.names import full_name, local_files, local_path


@pytest.mark.parametrize("role", ["scene", "mask", "aoi", "pan"])
def test_a_pipe_is_refused_and_not_waited_for(role, tmp_path):
    scene, pipe = plain(tmp_path / "scene.tif", (40, 50)), tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    inputs = {"scene": scene} | {role: pipe}
    with pytest.raises(SceneReadError, match=r"pipe\.tif is a pipe or a device, expected a file"):
        process_scene(inputs.pop("scene"), tmp_path / "clean.tif", model="identity", **inputs)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "pipe.tif"}


def test_standard_input_is_refused_and_not_waited_for():
    with pytest.raises(SceneReadError, match="/vsistdin/ can be read once only"):
        full_name("/vsistdin/")


@pytest.mark.parametrize("ending", SIDECARS)
def test_a_pipe_beside_a_scene_is_refused_too(ending, tmp_path):
    scene = plain(tmp_path / "scene.tif", (40, 50))
    os.mkfifo(f"{scene}{ending}")
    with pytest.raises(SceneReadError, match=rf"scene\.tif{ending} is a pipe or a device"):
        full_name(scene)


def test_an_address_of_a_file_of_this_machine_is_its_path(tmp_path):
    path = tmp_path / "my scene.tif"
    path.write_bytes(b"")
    for name in (f"file://{path}", f"file://localhost{path}", path.as_uri(), path):
        assert local_path(name) == full_name(name) == str(path)
        assert local_files(name) == [str(path)]
    assert local_path("file://elsewhere/scene.tif") == "file://elsewhere/scene.tif"
