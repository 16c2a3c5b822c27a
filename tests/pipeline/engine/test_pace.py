"""How many batches a task takes."""

import pytest

from decr_scene.pipeline.engine.pace import SECONDS_A_TASK, TASKS_WATCHED, Pace


def pace_of(seconds, batches=1, most=8):
    """A pace after some tasks, the first of which took longest."""
    times = iter([100.0 + seconds * number for number in range(2 * TASKS_WATCHED)])
    pace = Pace(most, lambda: next(times))
    for _ in range(TASKS_WATCHED):
        pace.finished(batches)
    return pace


@pytest.mark.parametrize(
    ("seconds", "batches", "models", "expected"),
    [
        (10.0, 1, 1, 1),
        (SECONDS_A_TASK / 2, 1, 1, 2),
        (SECONDS_A_TASK, 2, 1, 2),
        (SECONDS_A_TASK / 4, 1, 4, 1),
        (SECONDS_A_TASK / 4, 1, 2, 2),
        (0.0, 1, 1, 8),
    ],
)
def test_a_task_takes_what_is_done_in_its_time(seconds, batches, models, expected):
    assert pace_of(seconds, batches).batches(models, 1000) == expected


def test_nothing_is_known_before_the_second_end():
    pace = Pace(8, lambda: 0.0)
    assert pace.batches(1, 1000) == 1
    pace.finished(1)
    assert pace.batches(1, 1000) == 1


def test_the_last_batches_are_shared_among_models():
    assert [pace_of(0.0).batches(3, left) for left in (48, 47, 13, 5, 0)] == [8, 7, 2, 1, 1]


def test_a_model_that_becomes_slow_is_given_less():
    times = iter([0.0] * TASKS_WATCHED + [10.0 * number for number in range(1, TASKS_WATCHED + 1)])
    pace = Pace(8, lambda: next(times))
    for _ in range(TASKS_WATCHED):
        pace.finished(1)
    assert pace.batches(1, 1000) == 8
    for _ in range(TASKS_WATCHED):
        pace.finished(1)
    assert pace.batches(1, 1000) == 1
