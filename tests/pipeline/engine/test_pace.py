"""How many batches a task takes."""

import pickle

import numpy as np
import pytest

from decr_scene.pipeline.engine.pace import SECONDS_A_TASK, TASKS_WATCHED, Pace
from decr_scene.pipeline.restoration.tile_results import Batchwise


def results(seconds, batches=1):
    """What a task gives whose batches took so long."""
    found = Batchwise()
    for number in range(batches):
        found.add({number: np.zeros((1, 2, 2), np.float32)}, seconds)
    return found


def grown(pace, models=1, left=1000):
    """The sizes of the next tasks, of which the last one stays."""
    return [pace.batches(models, left) for _ in range(5)]


@pytest.mark.parametrize(
    ("seconds", "batches", "expected"),
    [
        (10.0, 1, [1, 1, 1, 1, 1]),
        (SECONDS_A_TASK / 2, 1, [2, 2, 2, 2, 2]),
        (SECONDS_A_TASK / 3, 2, [2, 3, 3, 3, 3]),
        (1e-6, 1, [2, 4, 8, 8, 8]),
    ],
)
def test_a_task_takes_what_is_done_in_its_time_and_becomes_large_slowly(seconds, batches, expected):
    pace = Pace(8)
    for _ in range(TASKS_WATCHED):
        pace.note(results(seconds, batches))
    assert grown(pace) == expected


def test_of_a_model_that_nothing_is_known_of_batches_go_one_by_one():
    pace = Pace(8)
    assert grown(pace) == [1] * 5
    nothing = Batchwise()
    nothing.add({}, 1e-6)  # tiles without a valid pixel, say
    pace.note(nothing)
    assert grown(pace) == [1] * 5


def test_the_last_batches_are_shared_among_models():
    pace = Pace(8)
    pace.note(results(1e-6))
    assert grown(pace, 3, 48)[-1] == 8
    assert [pace.batches(3, left) for left in (48, 47, 13, 5, 0)] == [8, 7, 2, 1, 1]


def test_while_no_worker_is_there_batches_go_on():
    pace = Pace(8)
    pace.note(results(1e-6))
    assert grown(pace, 0)[-1] == 8


def test_a_model_that_becomes_slow_is_given_one_at_a_time_again():
    pace = Pace(8)
    for _ in range(TASKS_WATCHED):
        pace.note(results(0.01))
    assert grown(pace)[-1] == 8
    pace.note(results(2.0, 8))
    assert grown(pace)[-1] <= 2
    pace.note(results(2.0, 2))
    assert grown(pace)[-1] == 1


def test_the_time_of_batches_travels_with_their_results():
    found = pickle.loads(pickle.dumps(results(0.5, 3)))
    assert (found.batches, found.seconds, sorted(found)) == (3, 1.5, [0, 1, 2])
