import numpy as np
import pytest
from pair_cases import read_png, save_png, smooth_ground

from decr_scene.models.clouds.roofs import roofed
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.loading import load_source


@pytest.fixture
def ground():
    return (smooth_ground(np.random.default_rng(3), 8, 96, (40, 160)).transpose(2, 0, 1) / 127.5 - 1).astype(
        np.float32
    )


def test_roofs_are_a_function_of_the_generator_and_leave_their_input(ground):
    before = ground.copy()
    first, again, other = (roofed(ground, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(ground, before)
    assert first.dtype == np.float32
    assert first.shape == ground.shape
    assert np.abs(first).max() <= 1


def test_roofs_are_flat_have_shadows_and_leave_the_ground_between_them(ground):
    kept, brighter, darker = [], [], []
    for seed in range(20):
        change = (roofed(ground, np.random.default_rng(seed)) - ground).mean(axis=0)
        kept.append((np.abs(change) < 1e-5).mean())
        brighter.append((change > 0.2).mean())
        darker.append((change < -0.1).mean())
    assert 0.05 < np.mean(kept) < 0.9
    assert np.mean(brighter) > 0.05
    assert np.mean(darker) > 0.02


def test_one_crop_in_so_many_gets_them_and_its_clouds_lie_over_them(tmp_path):
    save_png(tmp_path / "clear" / "0.png", smooth_ground(np.random.default_rng(0), 8, 64, (60, 62)))
    bare, some = (
        load_source(DataConfig(clear="clear", simulate=1.0, roofs=roofs), tmp_path, read_png)
        for roofs in (0.0, 0.5)
    )
    rng = np.random.default_rng(0)
    plain = [bare.crop(rng, 64, ("red", "green", "blue"))[1].std() for _ in range(40)]
    share = np.mean([some.crop(rng, 64, ("red", "green", "blue"))[1].std() > max(plain) for _ in range(80)])
    assert 0.3 < share < 0.7


def test_real_pairs_get_none():
    with pytest.raises(ValueError, match=r"roofs must be a share.*simulate = 1\.0"):
        DataConfig(clear="clear", cloudy="cloudy", roofs=0.5)
