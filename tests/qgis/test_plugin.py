"""The plugin in a real QGIS, which runs the real program: by `qgis_process`, and as its dialog does."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from places import ROOT
from qgis_cases import INSTALL, PYTHON, environment, missing
from raster_cases import described

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.plugin.install import install

PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"NO QGIS HERE: {missing()}: {INSTALL}"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home of its own, the plugin, a scene whose name is no ASCII, and the program of this checkout."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "run").mkdir(mode=0o700)
    program = folder / "decr-scene"
    call = f'PYTHONPATH="{ROOT}/.typing" exec "{sys.executable}" -m decr_scene.pipeline "$@"'
    program.write_text(f"#!/bin/sh\n{call}\n")
    program.chmod(0o755)
    described(folder / "my scène.tif", ("blue", "green", "red", "nir"))
    install(folder / "plugins")
    return folder


def variables(place):
    own = {
        "HOME": str(place),
        "XDG_RUNTIME_DIR": str(place / "run"),
        "QGIS_PLUGINPATH": str(place / "plugins"),
        "DECR_SCENE_PYTHON": str(place / "decr-scene"),
        "PYTHONPATH": "/usr/lib/python3/dist-packages",  # as QGIS sets it: the program must not see it
    }
    return {**environment(), **own}


@pytest.fixture(scope="module")
def seen(place):
    """What `plugin_tasks.py` tells."""
    polygons = [("field", 1, 20), ("field", 2, 60), ("wood", 1, 100)]
    with rasterio.open(place / "my scène.tif") as dataset:
        crs, transform = dataset.crs, dataset.transform
    features = []
    for kind, number, corner in polygons:
        ring = [transform @ (corner + x, corner + y) for x, y in ((0, 0), (30, 0), (30, 30), (0, 30), (0, 0))]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        values = {"kind": kind, "number": number}
        features.append({"type": "Feature", "properties": values, "geometry": geometry})
    name = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs.to_epsg()}"}}
    area = place / "area.geojson"
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": name, "features": features}))
    script = str(ROOT / "tests" / "qgis" / "plugin_tasks.py")
    words = [PYTHON, script, place / "plugins", place / "my scène.tif", area, place]
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=300, env=variables(place)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_four_algorithms_and_a_page_of_settings(seen):
    names = ("cloudmask", "inspect", "removeclouds", "removecloudsoffolder")
    assert seen["algorithms"] == [f"decr_scene:{name}" for name in names]
    assert seen["settings"]
    assert seen["left"] is False


def test_the_result_lies_styled_above_its_original_in_a_group(seen):
    ((name, layers),) = seen["loaded"]["groups"]
    assert name == "Without clouds: my scene"
    clean = layers[0][0]
    assert clean not in ("provenance", "my scene")
    assert [layer for layer, _ in layers] == [clean, clean, "provenance", "provenance", "my scene"], (
        "two runs"
    )
    assert [shown for _, shown in layers] == [True, True, False, False, True]
    assert seen["loaded"]["renderers"]["provenance"] == "paletted"
    assert seen["loaded"]["renderers"][layers[0][0]] == "multibandcolor"


def test_progress_reaches_the_dialog(seen):
    assert seen["loaded"]["progress"][1] == 100
    assert any("tiles" in text for text in seen["loaded"]["texts"])


def test_the_area_is_what_is_selected_and_not_filtered_out(seen, place):
    with rasterio.open(place / "my scène.tif") as dataset:
        assert seen["area"]["crs"] == f"EPSG:{dataset.crs.to_epsg()}", "as it was given"
        corners = [*(dataset.transform @ (20, 20)), *(dataset.transform @ (50, 50))]
    (found,) = seen["area"]["corners"]
    assert found == corners


def test_a_scene_that_is_no_layer_of_the_project_has_one_group_too(seen):
    clean, *others = seen["by path"]["Without clouds: by path"]
    assert clean != "provenance"
    assert others == ["provenance"]
    assert len(seen["by path"]) == 2


def test_a_further_option_counts_for_more_than_a_parameter(seen):
    assert seen["further"] == 7


def test_a_cancel_ends_the_program_within_a_second(seen, place):
    assert seen["cancel"]["seconds"] < 1.5
    assert not seen["cancel"]["result"]
    assert not (place / "never.tif").exists()


def test_what_cannot_be_done_is_said_in_one_line(seen, place):
    said = seen["refused"]
    assert said["help"] == "further options cannot have -h: leave it out"
    assert "--progress=bar" in said["progress"]
    assert "with options is opened with options (NUM_THREADS=2)" in said["open options"]
    assert "is invalid" in said["bow tie"]
    assert "the parameter 'Scenes of other dates' stands in for a first guess" in said["dates"]
    assert said["nowhere"] == "nowhere has no CRS: set one in its properties"
    assert "page.html cannot be written: No such file or directory" in said["folder"]
    assert not (place / "refused.tif").exists()


def test_where_the_program_is_not_found_the_message_says_what_to_do(seen):
    assert seen["missing"]["able"] is False
    assert "/no/such/python" in seen["missing"]["text"]
    assert "Settings > Options > Processing > Providers" in seen["missing"]["text"]


@pytest.mark.skipif(PROCESS is None, reason="no qgis_process: apt-get install qgis")
def test_qgis_process_writes_what_the_program_writes(place):
    def qgis(*words):
        command = [PROCESS, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables(place))

    assert qgis("plugins", "enable", "decr_scene_qgis").returncode == 0
    out = place / "by qgis.tif"
    call = ("run", "decr_scene:removeclouds", "--", f"INPUT={place / 'my scène.tif'}", "MODEL=identity")
    done = qgis(*call, f"OUTPUT={out}")
    assert done.returncode == 0, done.stderr
    process_scene(place / "my scène.tif", place / "by us.tif", model="identity")
    with rasterio.open(out) as one, rasterio.open(place / "by us.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
    failed = qgis(*call, "BANDS=blue", f"OUTPUT={place / 'failed.tif'}")
    assert failed.returncode == 1
    assert "the parameter 'Bands'" in failed.stdout + failed.stderr
    unknown = qgis(*call, "EXPECTED_ERROR=true", f"OUTPUT={place / 'failed.tif'}")
    assert unknown.returncode == 1
    words = "drop the parameter 'Write the error to be expected of each pixel'"
    assert words in unknown.stdout + unknown.stderr
    assert not os.path.exists(place / "failed.tif")
