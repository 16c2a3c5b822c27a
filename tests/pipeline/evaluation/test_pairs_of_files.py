"""What is wrong with the images of a folder of pairs is told."""

import numpy as np
import pytest
from raster_cases import write

from decr_scene.models.errors import TrainingError
from decr_scene.pipeline.evaluation.pairs import load_pairs


def test_images_with_pixels_without_values_are_told(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for folder, part in (("cloudy", 0), ("clear", 20)):
        (tmp_path / folder).mkdir()
        image = rng.integers(1, 255, (3, 64, 64), np.uint8)
        image[:, :part] = 0
        write(tmp_path / folder / "a.tif", image, nodata=0, photometric="RGB")
    load_pairs(("red", "green", "blue"), tmp_path)
    assert "1 images have pixels without values (clear/a.tif first)" in caplog.text


def test_a_damaged_image_is_named(tmp_path):
    for folder in ("cloudy", "clear"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.tif", np.ones((3, 64, 64), np.uint8), photometric="RGB")
    damaged = tmp_path / "clear" / "a.tif"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"clear/a\.tif"):
        load_pairs(("red", "green", "blue"), tmp_path)
