"""Features of satellite images at five scales: the encoder of `ukis-csmask`, for a perceptual distance.

It is an EfficientNet-B4, trained with its decoder to detect cloud in Landsat and Sentinel-2 images. As in
other perceptual distances, features are compared instead of pixels; no weights are fitted to human judgement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Bool, Float
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.reflectance import Reflectance

LAYERS = (
    "/model/encoder/_swish/Mul_output_0",
    "/model/encoder/_blocks.5/Add_output_0",
    "/model/encoder/_blocks.9/Add_output_0",
    "/model/encoder/_blocks.21/Add_output_0",
    "/model/encoder/_blocks.31/Add_output_0",
)
"""Skip connections from the encoder to the decoder, with cells of 2, 4, 8, 16 and 32 px."""

POOLED = 3
"""Index of the layer that crops are described by: 160 channels, cells of 16 px."""

LEAST_BANDS = 2
"""Fewest bands of an image that the encoder must know."""

Features = list[Float]
"""Of one tile: an array ``(channels, h, w)`` per layer."""


class Encoder:
    """Compute features of images; a band that the network takes and they lack is set to the network's mean.

    Args:
        bands: Of the images, in their order.

    Raises:
        OptionError: Fewer than two are bands of the network, or `ukis-csmask` is not installed.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        common = [band for band in ukis.BANDS if band in bands]
        if len(common) < LEAST_BANDS:
            raise OptionError(
                f"--perceptual needs {LEAST_BANDS} bands of {', '.join(ukis.BANDS)} at least, "
                f"the images have {', '.join(bands)}: drop it"
            )
        if ukis.installed_version() is None:
            raise OptionError("--perceptual needs ukis-csmask: pip install ukis-csmask onnxruntime")
        self._session, self._mean, self._std = ukis.open_network(LAYERS)
        self._image_indexes = [bands.index(band) for band in common]
        self._network_indexes = [ukis.BANDS.index(band) for band in common]

    def scaling(self, cloudy: Float) -> Reflectance:
        """Fit the map to reflectance to an image ``(C, H, W)`` in [-1, 1], as the detector does."""
        sample = (cloudy[self._image_indexes].reshape(len(self._image_indexes), -1) + 1) / np.float32(2)
        return Reflectance.of(self._image_indexes, [1.0] * len(cloudy), [0.0] * len(cloudy), sample)

    def __call__(self, image: Float, scaling: Reflectance) -> list[Features]:
        """Compute the features of an image ``(C, H, W)`` in [-1, 1], tile by tile as `tiles` cuts it."""
        mean, std = self._mean[self._network_indexes], self._std[self._network_indexes]
        normalised = np.zeros((len(ukis.BANDS), *image.shape[1:]), np.float32)
        normalised[self._network_indexes] = (scaling((image + 1) / np.float32(2)) - mean) / std
        name = self._session.get_inputs()[0].name
        return [
            [layer[0].astype(np.float32) for layer in self._session.run(LAYERS, {name: tile[None]})]
            for tile in tiles(normalised, "symmetric")
        ]


def tiles(
    image: NDArray[np.generic], mode: Literal["symmetric", "constant"]
) -> Iterator[NDArray[np.generic]]:
    """Cut ``(..., H, W)`` into tiles of the network's side.

    Args:
        image: Of any type.
        mode: How numpy pads it at the right and below, to a multiple of that side.
    """
    *rest, height, width = image.shape
    side = ukis.SIDE
    padding = [(0, 0)] * len(rest) + [(0, -height % side), (0, -width % side)]
    padded = np.pad(image, padding, mode=mode)
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield padded[..., row : row + side, col : col + side]


def distance_maps(one: list[Features], other: list[Features]) -> list[Features]:
    """Compare the features of two images of one size, cell by cell.

    The features of all channels of a cell are scaled to length 1; the squares of the differences are summed
    over channels. The features of a cell depend on its surroundings, and a little on the whole tile.

    Returns:
        Of each tile, a map ``(h, w)`` per layer: 0 for equal features, at most 4.
    """
    return [
        [((_unit(a) - _unit(b)) ** 2).sum(axis=0) for a, b in zip(*layers, strict=True)]
        for layers in zip(one, other, strict=True)
    ]


def mean_distance(maps: list[Features], region: Bool) -> float:
    """Average `distance_maps` over a region ``(H, W)``, which is not empty, and over the layers."""
    sums, weights = np.zeros(len(LAYERS)), np.zeros(len(LAYERS))
    for layers, area in zip(maps, tiles(region, "constant"), strict=True):
        for number, cells in enumerate(layers):
            weight = area_shares(area, len(cells))
            sums[number] += float((weight * cells).sum())
            weights[number] += float(weight.sum())
    return float((sums / weights).mean())


def pool_crops(features: list[Features], crops: int) -> Float:
    """Average the features ``(N, channels)`` of the ``crops`` x ``crops`` squares of each tile."""
    layers = (tile[POOLED] for tile in features)
    return np.concatenate([_block_means(layer, crops).reshape(len(layer), -1).T for layer in layers])


def area_shares(region: NDArray[np.generic], cells: int) -> Float:
    """Compute the share of each of ``cells`` x ``cells`` squares of a tile that is in a region."""
    return _block_means(region[None].astype(np.float32), cells)[0]


def _block_means(image: Float, cells: int) -> Float:
    """Average ``(C, side, side)`` to ``(C, cells, cells)``."""
    size = image.shape[-1] // cells
    return image.reshape(len(image), cells, size, cells, size).mean(axis=(2, 4))


def _unit(features: Float) -> Float:
    return features / (np.sqrt((features**2).sum(axis=0)) + np.float32(1e-6))
