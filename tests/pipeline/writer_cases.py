"""What tests of writing share: a copy of a raster, made by the writer."""

import rasterio

from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.origin import CopyOf
from decr_scene.pipeline.writing.writer import SceneWriter


def spans(shape, block):
    return [
        Span(r, c, min(block, shape[0] - r), min(block, shape[1] - c))
        for r in range(0, shape[0], block)
        for c in range(0, shape[1], block)
    ]


def copy(source, target, blocks=1, **options):
    """Block by block from scene to writer; ``blocks``: a window's side."""
    with RasterioScene.open(source) as scene, SceneWriter(CopyOf(scene), target, **options) as writer:
        for span in spans(scene.shape, writer.layout.blocksize * blocks):
            writer.write(span, scene.read(span.window))
    return target


def pixels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read()
