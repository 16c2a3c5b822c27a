"""How many batches a task of Dask takes: one of a slow model, several of one that is done in no time.

A task costs the scheduler, the worker and the client some milliseconds under one interpreter lock, which a
GPU waits for. Its batches are still restored one by one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SECONDS_A_TASK = 0.25
"""Time that a task may take, and a kill may cost, for the sake of fewer tasks, s."""

TASKS_WATCHED = 16
"""Tasks whose ends tell the pace."""


class Pace:
    """Batches finished a second, and what follows from it.

    Args:
        most: Most batches in a task.
        clock: Tells the time, s.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._ends: deque[tuple[float, int]] = deque(maxlen=TASKS_WATCHED)

    def finished(self, batches: int) -> None:
        """Note that a task with so many batches is done."""
        self._ends.append((self._clock(), batches))

    def batches(self, models: int, left: int) -> int:
        """Return the number of batches of the next task.

        Args:
            models: Models that work at the same time.
            left: Batches that are not handed out yet, which all models are to share.
        """
        ends = list(self._ends)
        counted = sum(batches for _, batches in ends[1:])
        if not counted:
            return 1
        seconds = models * (ends[-1][0] - ends[0][0]) / counted
        fitting = SECONDS_A_TASK / max(seconds, SECONDS_A_TASK / self._most)
        return max(1, min(int(fitting), left // (2 * models)))
