"""Damage that GDAL passes over, in a raster or beside it, is told before anything is made of it."""

from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio.shutil

from decr_scene.pipeline.errors import MaskError, SceneReadError
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.run import process_scene


@pytest.fixture
def damaged_png(tmp_path: Path) -> Path:
    """A picture that lacks some bytes in its middle."""
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(3).integers(0, 2, (1, 90, 80)).astype("uint8")
    rasterio.shutil.copy(cases.write(tmp_path / "of.tif", pixels), path, driver="PNG")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + raw[len(raw) // 2 + 20 :])
    return path


@pytest.mark.parametrize("within_vrt", [False, True])
def test_a_damaged_png_is_no_scene(within_vrt, damaged_png, tmp_path):
    if within_vrt:
        text, path = cases.vrt_of(damaged_png), tmp_path / "over.vrt"
        path.write_text(text)
    else:
        path = damaged_png
    with pytest.raises(SceneReadError, match=r"rows 0 to 90.*damaged or incomplete"):
        process_scene(path, tmp_path / "out.tif", model="identity")
    assert not list(tmp_path.glob("*out*"))


def test_a_damaged_png_is_no_mask(damaged_png, tmp_path):
    scene = cases.plain(tmp_path / "scene.tif", (90, 80), 3)
    with pytest.raises(MaskError, match=r"mask .*picture.png cannot be read"):
        process_scene(scene, tmp_path / "out.tif", model="identity", mask=str(damaged_png))


@pytest.mark.parametrize("number", ["-1.1O", ""])
def test_rpcs_that_are_no_numbers_are_told_with_their_file(number, tmp_path):
    scene = cases.with_rpc_text(tmp_path)
    text = tmp_path / "vendor_RPC.TXT"
    first = next(line for line in text.read_text().splitlines() if line.startswith("LINE_NUM_COEFF_3"))
    text.write_text(text.read_text().replace(first, f"LINE_NUM_COEFF_3: {number}"))
    with pytest.raises(SceneReadError, match=r"RPCs .* cannot be read .*vendor_RPC.TXT"):
        RasterioScene.open(scene)


@pytest.mark.parametrize("left", [0, 100])
def test_a_mask_file_that_gdal_passes_over_is_told(left, tmp_path):
    """Without it the collar that it marks would be ground."""
    scene = cases.external_mask(tmp_path)
    beside = tmp_path / f"{scene.name}.msk"
    beside.write_bytes(beside.read_bytes()[:left])
    with pytest.raises(SceneReadError, match=r"masked_outside.tif.msk .* no mask that GDAL reads"):
        process_scene(scene, tmp_path / "out.tif", model="identity")
