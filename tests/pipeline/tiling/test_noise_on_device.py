"""The noise that a model draws where it computes has the bits of that which is drawn here."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decr_scene.pipeline.tiling import noise_on_device
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import TileNoise, place_noise
from decr_scene.pipeline.tiling.noise_on_device import place_noise_on
from decr_scene.pipeline.tiling.normal import MARGIN, TURN

CPU = torch.device("cpu")
SPANS = [Span(192, 192 * number, 256, 256) for number in range(3)]

places = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found.numpy().view(np.uint32), expected.view(np.uint32))


@given(
    st.lists(places, min_size=1, max_size=3),
    st.integers(0, 2**64 - 1),
    st.integers(0, 999),
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
)
def test_windows_of_any_place_seed_and_step(corners, seed, step, size):
    spans = [Span(*corner, *size) for corner in corners]
    expected = np.stack([place_noise(seed, step, 2, span) for span in spans])
    assert_same_bits(place_noise_on(CPU, seed, step, 2, spans), expected)


@pytest.mark.parametrize("side", [-1, 1])
def test_last_bits_of_another_kind_of_device_do_not_matter(side, monkeypatch):
    """A GPU's functions are off by two units in the last place at most."""
    expected = TileNoise(3, 1, SPANS).drawn()
    for name in ("log", "cos", "sin"):
        monkeypatch.setattr(torch.Tensor, name, _off(getattr(torch, name), side))
    assert_same_bits(TileNoise(3, 1, SPANS).drawn_on(CPU), expected)


def test_without_numpys_word_some_would_be_others(monkeypatch):
    """So the test above can fail."""
    expected = TileNoise(3, 1, SPANS).drawn()
    monkeypatch.setattr(noise_on_device, "MARGIN", 0.0)
    for name in ("log", "cos", "sin"):
        monkeypatch.setattr(torch.Tensor, name, _off(getattr(torch, name), 1, 2**20))
    assert (TileNoise(3, 1, SPANS).drawn_on(CPU).numpy() != expected).any()


def test_numpy_is_asked_wherever_an_error_might_decide(monkeypatch):
    """Of cosines near 0, which single precision tells finely apart."""
    turns = 2**30 + np.random.default_rng(0).integers(-(2**19), 2**19, 200_000)
    bits = np.random.Philox(5).random_raw(len(turns)) >> np.uint64(32) << np.uint64(32) | turns.astype(
        np.uint64
    )
    exact = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32)) * np.cos(turns * TURN)
    near = MARGIN * 0.9
    below, here, above = (np.float32(exact + off) for off in (-near, 0, near))
    monkeypatch.setattr(
        noise_on_device, "exactly", lambda words, half: np.full(len(words), np.nan, np.float32)
    )
    asked = noise_on_device._normal(torch.from_numpy(bits.view(np.int64)))[0].isnan().numpy()
    assert (below != here).sum() > 50
    assert (above != here).sum() > 50
    assert asked[(below != here) | (above != here)].all()
    assert asked.mean() < 0.05


def test_few_numbers_are_asked_of_numpy(monkeypatch):
    asked, exactly = [], noise_on_device.exactly

    def count(bits, half):
        asked.append(len(bits))
        return exactly(bits, half)

    monkeypatch.setattr(noise_on_device, "exactly", count)
    TileNoise(3, 4, SPANS).drawn_on(CPU)
    assert sum(asked) < 1e-5 * 4 * 3 * 256**2


def test_a_part_and_what_fills_it_up_have_their_own_noise():
    noise = TileNoise(3, 1, SPANS)[1:].filled_up(4)
    assert len(noise) == 4
    assert_same_bits(noise.drawn_on(CPU), TileNoise(3, 1, [SPANS[1], *[SPANS[2]] * 3]).drawn())


def _off(function, side, units=2):
    def near(values):
        found = function(values)
        step = torch.nextafter(found, torch.full_like(found, side * torch.inf)) - found
        return found + units * step

    return near
