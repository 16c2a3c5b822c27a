"""Finished tiles on disk: what is read is what was saved, or nothing."""

import resource
from contextlib import ExitStack

import numpy as np
import pytest

from decr_scene.pipeline.writing.tile_store import TileStore

GUARD = {"seed": 0, "input": "scene"}
SIDE = 32


@pytest.fixture
def opened(path):
    """Opens stores, and closes them in the end."""
    with ExitStack() as stack:

        def open_one(guard=GUARD, **more):
            store = TileStore(path, guard, 2 * SIDE**2 * 8, 10, **more)
            store.open()
            stack.callback(store.close, keep=True)
            return store

        yield open_one


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tiles"


def change(number, dtype=np.float32, shape=(2, SIDE, SIDE)):
    return np.random.default_rng(number).standard_normal(shape).astype(dtype)


def save(store, *numbers):
    store.save(numbers, {number: change(number) for number in numbers})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_read_has_the_bits_that_were_saved(dtype, path, opened):
    store = opened()
    store.save([3, 4, 7], {3: change(3, dtype), 7: change(7, dtype, (1, 5, SIDE))})
    store.close(keep=True)
    found = opened().read([3, 4, 7])
    assert set(found) == {3, 7}, "4 has no change"
    for number, expected in {3: change(3, dtype), 7: change(7, dtype, (1, 5, SIDE))}.items():
        assert found[number].dtype == dtype
        np.testing.assert_array_equal(found[number], expected)


def test_what_was_not_saved_is_not_there(path, opened):
    store = opened()
    save(store, 1)
    assert store.read([1, 2]) is None
    store.close(keep=False)
    assert not path.exists()


@pytest.mark.parametrize("where", [1, 20, 40, 48, 60, 4000])
def test_a_damaged_tile_is_not_there(where, path, opened):
    store = opened()
    save(store, 1)
    store.close(keep=True)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    again = opened()
    assert 1 not in again
    save(again, 1)
    np.testing.assert_array_equal(again.read([1])[1], change(1))


def test_a_tile_that_is_damaged_under_way_is_not_there(path, opened):
    store = opened()
    save(store, 1, 2)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    size = path.stat().st_size
    assert store.read([1]) is None
    assert set(store.read([2])) == {2}
    save(store, 3)
    assert path.stat().st_size == size, "its slot is taken again"
    assert set(store.read([2, 3])) == {2, 3}


@pytest.mark.parametrize("size", [0, 50, 5000, 20_000])
def test_a_file_that_was_cut_short_holds_what_is_whole(size, path, opened):
    store = opened()
    save(store, 1, 2)
    store.close(keep=True)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    again = opened()
    assert 2 not in again
    assert (1 in again) == (size == 20_000)


def test_tiles_of_another_run_do_not_count(path, opened):
    store = opened()
    save(store, 1)
    store.close(keep=True)
    assert len(opened({**GUARD, "seed": 1})) == 0


def test_without_resume_nothing_counts(path, opened):
    store = opened()
    save(store, 1)
    store.close(keep=True)
    assert len(opened(resume=False)) == 0


def test_the_room_of_forgotten_tiles_is_used_again_once_their_blocks_are_safe(path, opened):
    store, calls = opened(), []
    store.before_forgetting = lambda: calls.append(len(store))
    for number in range(0, 40, 2):
        save(store, number, number + 1)
        store.forget([number, number + 1])
    assert calls == [2] * 20
    assert path.stat().st_size <= 2 * (2 * SIDE**2 * 8 + 4096)


def test_a_tile_that_is_too_large_is_not_saved(path, opened):
    store = opened()
    store.save([1], {1: change(1, np.float64, (3, SIDE, SIDE))})
    assert 1 not in store


def test_a_closed_store_takes_nothing(path, opened):
    store = opened()
    store.close(keep=True)
    save(store, 1)
    assert len(opened()) == 0


def test_a_disk_that_is_full_ends_the_saving_and_nothing_else(path, opened, caplog):
    store = opened()
    save(store, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        save(store, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    save(store, 3)
    assert [len(store), set(store.read([1]))] == [1, {1}]
    (record,) = caplog.records
    assert "File too large" in record.getMessage()
    assert "no longer kept" in record.getMessage()
