"""A multispectral raster and its PAN, as a satellite would have delivered them of a ground that is known."""

import numpy as np
import rasterio
from raster_cases import NORTH_UP, UTM, write
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

WEIGHTS = (0.15, 0.25, 0.35, 0.25)
NAMES = ("blue", "green", "red", "nir")
SIDE = 480


def ground(side=SIDE, dtype="uint16"):
    """Four bands that share their detail, as real ones do at this scale, and differ in their colours."""
    rng = np.random.default_rng(7)
    detail = gaussian_filter(rng.normal(0, 1, (side, side)), 1.0)
    detail = 1 + 0.25 * detail / detail.std()
    y, x = np.mgrid[:side, :side] / side
    colours = np.stack([0.5 + 0.2 * np.sin(6 * x + k) * np.cos(5 * y - k) for k in range(4)])
    top = 200 if dtype == "uint8" else 3000
    return np.clip(colours * detail * top * 0.7, 1, None)


def averaged(image, ratio):
    height, width = (side // ratio for side in image.shape[-2:])
    return image.reshape(-1, height, ratio, width, ratio).mean(axis=(2, 4))


def pair(folder, truth, *, ratio=4, gain=0.6, dtype="uint16", where=NORTH_UP, crs=UTM, **profile):
    """What a satellite with a PAN and a four times coarser MSS would have delivered of the truth."""
    pan = gain * np.tensordot(WEIGHTS, truth, 1)[None]
    sharp = write(folder / "pan.tif", pan.round().astype(dtype), transform=where, crs=crs, **profile)
    coarse = None if where is None else where @ Affine.scale(ratio)
    many = averaged(truth, ratio).round().astype(dtype)
    colours = write(folder / "mss.tif", many, transform=coarse, crs=crs, **profile)
    with rasterio.open(colours, "r+") as dataset:
        dataset.descriptions = NAMES
    return colours, sharp
