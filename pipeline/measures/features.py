"""How far apart two images look to a network that knows satellite images: the encoder of `ukis-csmask`.

Its EfficientNet-B4 was trained on Landsat and Sentinel-2 to tell cloud from ground. Two images are compared
by what it makes of them at five scales, as perceptual distances do; nobody has fitted this one to what people
see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
"""What the encoder hands to its decoder, at 2, 4, 8, 16 and 32 px."""

POOLED = 3
"""The layer that crops are told by: of 160 channels and cells of 16 px."""

LEAST_BANDS = 2
"""Of the four that the encoder takes, an image has as many at least."""

Features = list[Float]
"""Of a tile: one array ``(channels, h, w)`` a layer."""


class Encoder:
    """Sees images of some bands; one that the network takes and they lack is put at the network's own mean.

    Args:
        bands: Of the images, in their order.

    Raises:
        OptionError: Fewer than two of them are known to the network, or `ukis-csmask` is not installed.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        known = [band for band in ukis.BANDS if band in bands]
        if len(known) < LEAST_BANDS:
            raise OptionError(
                f"--perceptual needs {LEAST_BANDS} bands of {', '.join(ukis.BANDS)} at least, "
                f"the images have {', '.join(bands)}: drop it"
            )
        if ukis.installed_version() is None:
            raise OptionError("--perceptual needs ukis-csmask: pip install ukis-csmask onnxruntime")
        self._session, self._mean, self._std = ukis.open_network(LAYERS)
        self._own = [bands.index(band) for band in known]
        self._theirs = [ukis.BANDS.index(band) for band in known]

    def scaling(self, cloudy: Float) -> Reflectance:
        """The map to reflectance that the detector would look at an image ``(C, H, W)`` in [-1, 1] with."""
        sample = (cloudy[self._own].reshape(len(self._own), -1) + np.float32(1)) / np.float32(2)
        return Reflectance.of(self._own, [1.0] * len(cloudy), [0.0] * len(cloudy), sample)

    def __call__(self, image: Float, scaling: Reflectance) -> list[Features]:
        """See an image ``(C, H, W)`` in [-1, 1], tile by tile as `tiles` cuts it."""
        seen = (scaling((image + 1) / np.float32(2)) - self._mean[self._theirs]) / self._std[self._theirs]
        whole = np.zeros((len(ukis.BANDS), *image.shape[1:]), np.float32)
        whole[self._theirs] = seen
        name = self._session.get_inputs()[0].name
        return [
            [layer[0].astype(np.float32) for layer in self._session.run(LAYERS, {name: tile[None]})]
            for tile in tiles(whole, "symmetric")
        ]


def tiles(image: NDArray[np.generic], mode: str) -> Iterator[NDArray[np.generic]]:
    """Cut ``(..., H, W)`` into squares of the network's side, continued at right and below as numpy pads."""
    *rest, height, width = image.shape
    side = ukis.SIDE
    more = [(0, 0)] * len(rest) + [(0, -height % side), (0, -width % side)]
    extended = np.pad(image, more, mode=mode)  # type: ignore[call-overload]
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield extended[..., row : row + side, col : col + side]


def distance(one: list[Features], other: list[Features], where: Bool) -> float:
    """How far apart two images look in a region: 0 for the same, at most 4.

    At each place of a layer the features of all channels are made a vector of length 1; the squares of the
    differences are summed over channels, averaged over the region, and averaged over the layers. What the
    network sees of a place depends on its surroundings, and a little on the whole tile.

    Args:
        one: As `Encoder` sees it.
        other: The same, of an image of the same size.
        where: ``(H, W)``, with a pixel in it at least.
    """
    inside = list(tiles(where, "constant"))
    layers = range(len(LAYERS))
    sums, weights = np.zeros(len(layers)), np.zeros(len(layers))
    for a, b, area in zip(one, other, inside, strict=True):
        for layer in layers:
            weight = shares(area, a[layer].shape[-1])
            apart = ((_unit(a[layer]) - _unit(b[layer])) ** 2).sum(axis=0)
            sums[layer] += float((weight * apart).sum())
            weights[layer] += float(weight.sum())
    return float((sums / weights).mean())


def pooled(features: list[Features], crops: int) -> Float:
    """Mean features ``(N, channels)`` of the ``crops`` x ``crops`` squares that each tile is cut into."""
    layers = (tile[POOLED] for tile in features)
    return np.concatenate([_blocks(layer, crops).reshape(len(layer), -1).T for layer in layers])


def shares(area: NDArray[np.generic], cells: int) -> Float:
    """How much of each of ``cells`` x ``cells`` squares of a map ``(side, side)`` lies in it."""
    return _blocks(area[None].astype(np.float32), cells)[0]


def _blocks(image: Float, cells: int) -> Float:
    """Means of ``(C, side, side)`` in ``(C, cells, cells)`` squares."""
    size = image.shape[-1] // cells
    return image.reshape(len(image), cells, size, cells, size).mean(axis=(2, 4))


def _unit(features: Float) -> Float:
    return features / (np.sqrt((features**2).sum(axis=0)) + np.float32(1e-6))
