from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from decr_scene.pipeline.tiling.normal import ERROR, _decide, normal_numbers


def formula(bits):
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(0xFFFFFFFF)) * (2 * np.pi * 2.0**-32)
    return radius * np.cos(angle), radius * np.sin(angle)


def same_in_single_precision(bits):
    for found, expected in zip(normal_numbers(bits), formula(bits), strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), expected.astype(np.float32).view(np.uint32))


def test_every_bit_is_that_of_the_formula():
    same_in_single_precision(np.random.Philox(5).random_raw(1 << 18))


@pytest.mark.parametrize("eighth", range(9))
def test_so_it_is_where_sine_or_cosine_are_nearly_0_or_1(eighth):
    turns = (np.arange(-2000, 2000) + eighth * 2**29) % 2**32
    radii = np.random.Philox(eighth).random_raw(len(turns)) >> np.uint64(32)
    radii[:2] = 0, 2**32 - 1
    same_in_single_precision(radii << np.uint64(32) | turns.astype(np.uint64))


def test_what_an_error_of_the_tables_might_round_the_other_way_is_computed_anew():
    bits = np.random.Philox(7).random_raw(1 << 18)
    radius, expected = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32)), formula(bits)[0]
    values = expected + 0.9 * ERROR * radius
    assert (values.astype(np.float32) != expected.astype(np.float32)).any()
    normal_numbers(bits)  # makes room for as many
    found = np.empty(len(bits), np.float32)
    _decide(values, bits, 0, found)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_threads_do_not_disturb_one_another():
    streams = [np.random.Philox(seed).random_raw(1 << 13) for seed in range(4)]
    expected = [normal_numbers(bits) for bits in streams]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [normal_numbers(bits) for bits in streams], range(40)):
            np.testing.assert_array_equal(found, expected)


def test_a_call_keeps_nothing_of_one_before_of_another_length():
    long, short = (np.random.Philox(3).random_raw(count) for count in (4096, 64))
    first = normal_numbers(long)
    kept = first.copy()
    np.testing.assert_array_equal(normal_numbers(short), kept[:, :64])
    np.testing.assert_array_equal(first, kept)
