import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from places import GOLDEN as FOLDER

from decr_scene.models.data.resize import resize

GOLDEN = FOLDER / "resize.npz"
SUGGESTED = 1e-3  # on 0 to 255

scales = st.floats(0.05, 4)
sides = st.integers(1, 40)


def image(height: int, width: int, bands: int = 2, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, (bands, height, width)).astype(np.float32)


def keys(d: float) -> float:
    d = abs(d)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def matlab(signal: NDArray[np.float32], scale: float) -> list[float]:
    """The published recipe word by word for one row of pixels, outer taps and their dropping included."""
    reach = min(scale, 1)
    support = 4 / reach
    taps = math.ceil(support) + 2
    rows, indices = [], []
    for i in range(1, math.ceil(len(signal) * scale) + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        index = [math.floor(u - support / 2) + k for k in range(taps)]
        row = [keys(reach * (u - j)) for j in index]
        rows.append([weight / sum(row) for weight in row])
        indices.append(index)
    kept = slice(0, taps)
    if any(row[0] == 0 for row in rows):
        kept = slice(1, taps - 1)
    elif any(row[-1] == 0 for row in rows):
        kept = slice(0, taps - 2)
    ring = [*signal, *signal[::-1]]
    return [
        sum(weight * ring[(j - 1) % len(ring)] for weight, j in zip(row[kept], index[kept], strict=True))
        for row, index in zip(rows, indices, strict=True)
    ]


@pytest.mark.parametrize("name", ["64x64x3_to32", "64x64x4_to8", "50x50x3_to32"])
def test_published_resize_is_reproduced(name: str) -> None:
    with np.load(GOLDEN) as golden:
        before, after = golden[f"{name}_in"], golden[f"{name}_out"]
    found = resize(before.transpose(2, 0, 1), after.shape[1] / before.shape[1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, after.transpose(2, 0, 1), rtol=0, atol=SUGGESTED)


@given(width=sides, scale=scales, seed=st.integers(0, 99))
@example(width=512, scale=0.125, seed=0)
@example(width=48, scale=1 / 3, seed=0)
@example(width=1, scale=0.05, seed=0)
@settings(deadline=None)
def test_leaving_out_the_outer_taps_changes_nothing(width: int, scale: float, seed: int) -> None:
    row = image(1, width, 1, seed)
    tall = np.repeat(row, 5, axis=1)
    np.testing.assert_allclose(resize(tall, scale)[0, 0], matlab(row[0, 0], scale), rtol=0, atol=SUGGESTED)


@given(height=sides, width=sides, scale=scales, value=st.floats(-255, 255, width=32))
@settings(deadline=None)
def test_a_constant_stays_constant(height: int, width: int, scale: float, value: float) -> None:
    found = resize(np.full((1, height, width), value, np.float32), scale)
    assert found.shape == (1, math.ceil(height * scale), math.ceil(width * scale))
    np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


@given(height=sides, width=sides)
@settings(deadline=None)
def test_scale_one_gives_the_image_back(height: int, width: int) -> None:
    np.testing.assert_array_equal(resize(image(height, width), 1.0), image(height, width))


@given(height=sides, width=sides, scale=scales, a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(deadline=None)
def test_resize_is_linear(height: int, width: int, scale: float, a: float, b: float) -> None:
    first, second = image(height, width, seed=1), image(height, width, seed=2)
    together = resize(np.float32(a) * first + np.float32(b) * second, scale)
    np.testing.assert_allclose(together, a * resize(first, scale) + b * resize(second, scale), atol=5e-3)


@given(height=sides, width=sides, scale=st.sampled_from([0.125, 0.25, 0.5, 2.0]))
@settings(deadline=None)
def test_rows_and_columns_are_treated_alike(height: int, width: int, scale: float) -> None:
    found = resize(image(height, width), scale).transpose(0, 2, 1)
    turned = resize(image(height, width).transpose(0, 2, 1), scale)
    np.testing.assert_allclose(turned, found, rtol=0, atol=SUGGESTED)


def test_bands_do_not_mix() -> None:
    both = resize(image(9, 12), 0.4)
    np.testing.assert_array_equal(both[1:], resize(image(9, 12)[1:], 0.4))


@pytest.mark.parametrize("scale", [0.5, 0.25, 2.0])
def test_a_ramp_stays_a_ramp_away_from_the_edges(scale: float) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32), (1, 64, 64))
    u = np.arange(1, 64 * scale + 1) / scale + 0.5 * (1 - 1 / scale)
    inner = slice(int(8 * scale), -int(8 * scale))
    np.testing.assert_allclose(resize(ramp, scale)[0, 0, inner], (u - 1)[inner], atol=1e-4)


def test_an_edge_overshoots_and_is_not_clipped() -> None:
    edge = np.zeros((1, 16, 64), np.float32)
    edge[..., 31:] = 255
    found = resize(edge, 0.5)
    assert found.min() < -1
    assert found.max() > 256


@pytest.mark.parametrize("scale", [0.0, -0.5, math.nan, math.inf])
def test_an_impossible_scale_is_named(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be finite and above zero"):
        resize(image(4, 4), scale)


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 4, 4), (3, 0, 4)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be \(C, H, W\)"):
        resize(np.zeros(shape, np.float32), 0.5)
