"""Alpha that colours are multiplied with already stays what it was."""

import numpy as np
import pytest
import rasterio
from raster_cases import draw, write

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.writing.alpha import _extra_samples, keep_premultiplied


def extra_samples(path):
    with path.open("rb") as file:
        return [found.values for found in _extra_samples(file)]


@pytest.mark.parametrize(
    ("count", "profile", "expected"),
    [
        (4, {"photometric": "RGB", "alpha": "PREMULTIPLIED", "BIGTIFF": "YES"}, (1,)),
        (4, {"photometric": "RGB", "alpha": "PREMULTIPLIED", "ENDIANNESS": "BIG"}, (1,)),
        (4, {"photometric": "RGB", "alpha": "NON-PREMULTIPLIED"}, (2,)),
        (4, {"photometric": "RGB", "alpha": "NO"}, (0,)),
        (2, {"photometric": "MINISBLACK", "alpha": "PREMULTIPLIED"}, (1,)),
    ],
)
def test_a_copy_says_of_alpha_what_the_scene_says(count, profile, expected, tmp_path):
    scene = write(tmp_path / "scene.tif", draw((520, 40), count, "uint8"), **profile)
    assert extra_samples(scene) == [expected]
    process_scene(scene, tmp_path / "out.tif", model="identity")
    found = extra_samples(tmp_path / "out.tif")
    assert len(found) > 1, "overviews, too"
    assert set(found) == {expected}
    with rasterio.open(tmp_path / "out.tif") as dataset, rasterio.open(scene) as source:
        np.testing.assert_array_equal(dataset.read(), source.read())
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x10\0\0\0" + b"\0" * 8, b"\x89PNG" + b"x" * 40])
def test_what_is_no_whole_tiff_says_nothing(content, tmp_path):
    source, copy = tmp_path / "source", write(tmp_path / "copy.tif", draw((20, 20), 4, "uint8"))
    source.write_bytes(content)
    before = copy.read_bytes()
    keep_premultiplied(str(source), copy)
    keep_premultiplied(str(tmp_path / "not there"), copy)
    assert copy.read_bytes() == before
