"""What tests of writing share: a copy of a raster, made by the writer."""

import rasterio
from rasterio.windows import Window

from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.writing.writer import SceneWriter


def windows(shape, block):
    return [
        Window(col_off=c, row_off=r, width=min(block, shape[1] - c), height=min(block, shape[0] - r))
        for r in range(0, shape[0], block)
        for c in range(0, shape[1], block)
    ]


def copy(source, target, blocks=1, **options):
    """Block by block from scene to writer; ``blocks``: a window's side."""
    with RasterioScene.open(source) as scene, SceneWriter(scene, target, **options) as writer:
        for window in windows(scene.shape, writer.layout.blocksize * blocks):
            writer.write(window, scene.read(window))
    return target


def pixels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read()
