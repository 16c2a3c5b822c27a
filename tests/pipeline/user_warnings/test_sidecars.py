"""Files beside a scene that GDAL passes over."""

from pathlib import Path

import pytest
import raster_cases as cases

from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.run import process_scene


@pytest.mark.parametrize("raw", [b"<PAMDataset><SRS>EPSG", b"", b"\x00\xff"])
def test_an_aux_xml_that_is_none_is_told(raw, tmp_path):
    scene = cases.plain(tmp_path / "scene.tif", (40, 50), 3)
    Path(f"{scene}.aux.xml").write_bytes(raw)
    for warnings in (
        inspect_scene(scene, model="identity")["warnings"],
        process_scene(scene, tmp_path / "out.tif", model="identity").warnings,
    ):
        assert [text for text in warnings if "scene.tif.aux.xml is damaged" in text]


def test_one_that_is_whole_is_not(tmp_path):
    scene = cases.with_attribute_table(tmp_path)
    assert not [text for text in inspect_scene(scene, model="identity")["warnings"] if "aux.xml" in text]
