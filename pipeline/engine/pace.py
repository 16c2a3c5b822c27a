"""How many batches a task of Dask takes: one of a slow model, several of one that is done in no time.

A task costs the scheduler, the worker and the client some milliseconds under one interpreter lock, which a
GPU waits for. Its batches are still restored one by one.
"""

from __future__ import annotations

from collections import deque

from decr_scene.pipeline.restoration.tile_results import Batchwise

SECONDS_A_TASK = 0.25
"""Time that a task may take, and a kill may cost, for the sake of fewer tasks, s."""

TASKS_WATCHED = 16
"""Tasks that tell the pace."""


class Pace:
    """How long batches take at their worker, and what follows from it.

    Args:
        most: Most batches in a task.
    """

    def __init__(self, most: int) -> None:
        self._most, self._last = most, 1
        self._seen: deque[tuple[int, float]] = deque(maxlen=TASKS_WATCHED)

    def note(self, results: Batchwise) -> None:
        """Note how long a task took; not one that changed nothing, which no model may have seen."""
        if results.batches:
            self._seen.append((results.batches, results.seconds))

    def batches(self, models: int, left: int) -> int:
        """Return the number of batches of the next task: at first few, at most twice as many as of the last.

        Args:
            models: Models that work at the same time.
            left: Batches that are not handed out yet, which all models are to share.
        """
        seen = list(self._seen)
        seconds = sum(took for _, took in seen)
        fitting = int(SECONDS_A_TASK * sum(number for number, _ in seen) / seconds) if seconds else 1
        shared = left // (2 * max(1, models))
        self._last = max(1, min(self._most, fitting, 2 * self._last, shared))
        return self._last
