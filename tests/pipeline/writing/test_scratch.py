"""Scratch files: filled in any order, in as many goes as it takes."""

import numpy as np
import pytest
import raster_cases as cases
from writer_cases import pixels_of

from decr_scene.pipeline.errors import OutputError
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.scratch import Layout, Scratch


def test_a_scratch_file_can_be_filled_up_later(tmp_path):
    layout = Layout((300, 200), 3, np.dtype("uint16"), 128)
    pixels = cases.draw((300, 200), 3, "uint16")
    path = tmp_path / "scratch.tif"
    parts = [
        [Span(256, 128, 44, 72), Span(0, 0, 128, 200)],
        [Span(128, 0, 172, 128), Span(128, 128, 128, 72)],
    ]
    for part in parts:
        scratch = (
            Scratch(path, layout) if path.exists() else Scratch.create(path, layout, None, cases.NORTH_UP)
        )
        for span in part:
            rows, cols = span.inside(Span(0, 0, *layout.shape))
            scratch.write(span, pixels[:, rows, cols])
        scratch.close()
    np.testing.assert_array_equal(pixels_of(path), pixels)
    with pytest.raises(OutputError, match="not a scratch file"):
        Scratch(path, Layout((300, 200), 4, np.dtype("uint16"), 128))
    with pytest.raises(OutputError, match="not a scratch file"):
        Scratch(cases.plain(tmp_path / "other.tif", (300, 200), 3), layout)
