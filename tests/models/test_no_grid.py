"""No grid of the network is seen where an even veil leaves it next to nothing to see."""

import numpy as np
import pytest
import rasterio
import torch
from places import SAMPLES

from decr_scene.models.model import load_model

MOST = 1.5
"""Power at a period of 8, 4 or 2 px over the median of its neighbours."""


def under_an_even_veil(side, bands, through):
    """The sample town through a veil, in 8 bits with a level of grain, ``(bands, side, side)`` in [-1, 1]."""
    with rasterio.open(SAMPLES / "rotterdam_clear.tif") as dataset:
        ground = dataset.read()[:bands, :side, :side].astype(np.float64)
    ground *= 235 / np.percentile(ground, 99.9, axis=(1, 2), keepdims=True)
    grain = np.random.default_rng(0).normal(0, 1, ground.shape)
    levels = np.clip(np.rint(through * ground + (1 - through) * 190 + grain), 0, 255)
    return (levels / 127.5 - 1).astype(np.float32)


def peaks(image):
    """Power at 1/8, 1/4 and 1/2 of a cycle a pixel over the median beside it, the larger direction."""
    side = image.shape[1]
    window = np.hanning(side)[:, None] * np.hanning(side)
    spectrum = sum(
        np.abs(np.fft.fft2((band - band.mean()) * window)) ** 2 for band in image.astype(np.float64)
    )
    found = []
    for period in (8, 4, 2):
        place = side // period
        beside = [i for off in range(4, 16) for i in (place - off, place + off) if 0 < i <= side // 2]
        lines = [spectrum.sum(axis=axis) for axis in (0, 1)]
        found.append(max(line[place - 1 : place + 2].max() / np.median(line[beside]) for line in lines))
    return found


def test_a_grid_is_found_where_there_is_one():
    noise = np.random.default_rng(0).normal(0, 0.05, (1, 256, 256))
    assert max(peaks(noise)) < 2.5
    assert peaks(noise + 0.05 * (np.arange(256) % 4 == 0))[1] > 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bands"), [("default", 4), ("rgb", 3)])
@pytest.mark.parametrize("through", [0.25, 0.1, 0.03, 0.0])
def test_bundled_networks_paint_no_grid(name, bands, through):
    model = load_model(name, "cpu")
    cloudy = torch.from_numpy(under_an_even_veil(512, bands, through))[None]
    with torch.inference_mode():
        painted = model.reference(cloudy)[0].numpy()
    measured = peaks(painted)
    print(name, through, np.round(measured, 2))
    assert max(measured) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bands"), [("default", 4), ("rice2", 3)])
def test_bundled_diffusion_paints_no_grid(name, bands):
    model = load_model(name, "cpu")
    cloudy = torch.from_numpy(under_an_even_veil(256, bands, 0.0))[None]
    noise = torch.randn(cloudy.shape, generator=torch.Generator().manual_seed(0))
    guess = torch.full_like(cloudy, -0.3)
    painted = model.sample(cloudy, noise=noise, reference=guess)[0].numpy()
    assert np.std(painted - guess[0].numpy()) > 0.002, "it paints nothing"
    assert max(peaks(painted)) <= MOST
