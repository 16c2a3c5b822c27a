"""Scenes with a cloud on them, and a stand-in for the detector that sees it."""

import numpy as np
import rasterio
from raster_cases import write

from decr_scene.pipeline.look import ukis

BGRN = ("blue", "green", "red", "nir")
GROUND = np.array([900, 1000, 1100, 2500])[:, None, None]
VEIL = 1200
"""What the stand-in below overlooks."""

CLOUD = np.array([6500, 6300, 6400, 6600])[:, None, None]


def land(shape=(300, 420), cloud=(slice(100, 170), slice(200, 300)), seed=0):
    """Fields of vegetation with a cloud, reflectance x 10000, `BGRN`; and where the cloud is."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.normal(1, 0.15, [-(-side // 20) for side in shape]), np.ones((20, 20)))
    image = GROUND * fields[: shape[0], : shape[1]] + rng.normal(0, 30, (4, *shape))
    where = np.zeros(shape, bool)
    where[cloud] = True
    rng = np.random.default_rng(1)
    image[:, where] = (CLOUD * rng.normal(1, 0.03, shape))[:, where]
    return np.clip(image, 1, 60000).astype(np.uint16), where


def scene_of(path, image, names=BGRN, scales=None, side=30):
    """A scene of 30 m, or of pixels of another side."""
    write(path, image, transform=rasterio.transform.from_origin(500000, 4000000, side, side))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = names
        if scales is not None:
            dataset.scales = scales
    return path


def pixels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def bright_is_cloud(monkeypatch):
    """In the place of the detector's network: cloud is what is bright in the blue."""

    def probabilities(windows):
        cloud = [1 / (1 + np.exp(np.clip((0.3 - window[:1]) * 100, -50, 50))) for window in windows]
        return [np.concatenate([1 - p, p, 0 * p]).astype(np.float32) for p in cloud]

    monkeypatch.setattr(ukis, "probabilities", probabilities)
