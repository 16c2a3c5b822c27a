"""Stream a scene through Dask: rows under way move down, never the whole scene is in memory.

A row of output blocks asks for the batches of tiles that touch it; a batch asks for the first guesses of its
tiles and their neighbours. Every batch is submitted once, shared by all blocks that it touches, and forgotten
when the last of them is done; several of a quick model are one task (`pace`). At most `WINDOWS_UNDER_WAY`
windows of `ROWS_UNDER_WAY` rows of blocks are under way. Further batches are submitted ahead, enough that no
model idles while blocks are written or while the next cloud is rows away. Neither number grows with the
scene: a slow disk holds up the models, and a slow model the reading. Rows that no tile touches are copied
while the others wait for a model.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from distributed import Client, Future

from decr_scene.models.arrays import Float
from decr_scene.pipeline.engine.pace import Pace
from decr_scene.pipeline.engine.under_way import (
    COPIES_AHEAD,
    ROWS_UNDER_WAY,
    TASKS_AHEAD,
    WINDOWS_UNDER_WAY,
    block_rows,
    most_batches,
)
from decr_scene.pipeline.engine.workers import (
    A_LOOK,
    MODEL,
    TASKS_A_MODEL,
    cluster_faults,
    count_threads,
    result_of,
)
from decr_scene.pipeline.raster.source import Source
from decr_scene.pipeline.restoration.blending import Blended, blend_tiles
from decr_scene.pipeline.restoration.plan import Plan, guessed_together
from decr_scene.pipeline.restoration.tasks import guess_tiles, look_at_window, restore_batches
from decr_scene.pipeline.restoration.tile_results import Batchwise, Results
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span

_PATIENCE_FOR_CALLS = 1.0
"""Longest wait for the callbacks of the last batches, s; for a lost batch there is none."""
_LAST = -(1 << 40)
"""Priority of blending, which is that of no batch, where workers have a thread to spare for it.

Where they have none, models would run out of batches and then wait until all of their worker's threads have
blended: there it goes first.
"""
_A_GLANCE = 0.02
"""Time between two glances at a task whose end may be told late, s."""
SAVING_SHARE = 0.25
"""Greatest share of the time spent on saving finished tiles: a model as quick as the disk saves fewer."""


class Saved(Protocol):
    """A store of finished tiles until their blocks are written."""

    def save(self, tiles: Collection[int], changes: Results) -> None:
        """Save tiles, of which those without a change are not in ``changes``."""

    def read(self, tiles: Collection[int]) -> Results | None:
        """Read saved tiles, or return ``None`` if one of them is missing."""

    def forget(self, tiles: Collection[int]) -> None:
        """Free the room of tiles."""

    def __contains__(self, tile: int) -> bool: ...


@dataclass
class Flow:
    """One scene's tasks on a cluster.

    Args:
        client: The cluster.
        plan: The plan of the scene.
        source: The scene, as workers open it.
        batches: The tiles in batches.
        needs_field: Whether the restorer needs the field of first guesses.
        on_batch: Called with the number of tiles of every finished batch, and 0 when the stream begins; an
            exception in it ends the stream.
        check: Called now and then; an exception in it ends the stream.
        saved: Store of finished tiles, also of an interrupted run; ``None``: they are not kept.
        far: Whether tiles come to the store over a network.
    """

    client: Client
    plan: Plan
    source: Source
    batches: Batches
    needs_field: bool
    on_batch: Callable[[int], None]
    check: Callable[[], None] = lambda: None
    saved: Saved | None = None
    far: bool = False
    resumed: int = 0
    """Tiles read from the store."""
    kept: int = 0
    """Tiles of an interrupted run: in the store, or of finished windows."""
    _saved_batches: frozenset[int] = frozenset()
    _to_submit: set[int] = field(default_factory=set)
    _uncounted: set[int] = field(default_factory=set)
    _guesses: dict[int, Future] = field(default_factory=dict)
    _changes: dict[int, Future] = field(default_factory=dict)
    _ahead: Iterator[int] = field(default_factory=lambda: iter(()))
    _copies: Iterator[tuple[Span, Blended]] = field(default_factory=lambda: iter(()))
    _last_needed: int = -1
    _models: int = 1
    _spare_threads: bool = False
    _trouble: BaseException | None = None
    _calls_due: int = 0
    _to_save: set[int] = field(default_factory=set)
    _saving: threading.Lock = field(default_factory=threading.Lock)
    _news: threading.Event = field(default_factory=threading.Event)
    _began: float = 0.0
    _spent: float = 0.0

    def blocks(self, block: int, done: Collection[Span] = ()) -> Iterator[tuple[Span, Blended]]:
        """Yield the windows, each once, but for the finished ones.

        Rows of them that some tile touches come from top to bottom, left to right; so do the others, in
        between and after them.

        Raises:
            ClusterError: The scheduler is gone, or there are no workers any more.
        """
        rows = ([span for span in row if span not in done] for row in block_rows(self.plan.grid.shape, block))
        restored: list[list[Span]] = []
        copied: list[Span] = []
        for row in rows:
            if any(self.batches.touching(span) for span in row):
                restored.append(row)
            else:
                copied.extend(row)
        self._copies = self._copy(copied)
        self._began = time.monotonic()
        with cluster_faults(self.client):
            yield from self._stream(restored)
            yield from self._copies
            self._wait_for_callbacks()

    def _stream(self, rows: list[list[Span]]) -> Iterator[tuple[Span, Blended]]:
        self._ahead = self._in_order(rows)
        self._read_saved(list(self._in_order(rows)))
        self.on_batch(0)
        todo = deque((number, span) for number, row in enumerate(rows) for span in row)
        waiting: deque[Future] = deque()
        for number, row in enumerate(rows):
            threads = count_threads(self.client)
            self._models = len(threads)
            self._spare_threads = min(threads, default=0) > TASKS_A_MODEL
            for span in row:
                self._submit_windows(todo, waiting, number + ROWS_UNDER_WAY)
                future = waiting.popleft()
                self._run_ahead()
                yield from self._copies_until(future)
                yield span, self._result(future)
            self._forget_above(self.plan.sight(row[0]._replace(row=row[0].bottom, height=1)).row)

    def _submit_windows(self, todo: deque[tuple[int, Span]], waiting: deque[Future], end: int) -> None:
        """Submit the next windows, of rows ahead of ``end``, until as many are under way as may be."""
        while todo and todo[0][0] < end and len(waiting) < WINDOWS_UNDER_WAY:
            waiting.append(self._blend(todo.popleft()[1]))

    def _read_saved(self, numbers: list[int]) -> None:
        """Note the needed batches that an interrupted run has saved, and free the rest."""
        groups, saved = self.batches.groups, self.saved
        if saved is not None:
            needed = {tile for number in numbers for tile in groups[number]}
            saved.forget([tile for tile in range(len(self.plan.grid)) if tile not in needed])
            self._saved_batches = frozenset(n for n in numbers if all(tile in saved for tile in groups[n]))
        self._to_submit = {*numbers} - self._saved_batches
        self.kept = self.batches.tiles - sum(len(groups[n]) for n in numbers if n not in self._saved_batches)

    def _copies_until(self, future: Future) -> Iterator[tuple[Span, Blended]]:
        """Yield copies, one after the other, until a task is done."""
        while not future.done() and (copy := next(self._copies, None)):
            yield copy
            self._run_ahead()

    def _result(self, future: Future) -> Blended:
        """Wait for a window, and hand out batches meanwhile."""
        future.add_done_callback(lambda done: self._news.set())
        result: Blended = result_of(self.client, future, self._check, self._is_done_or_late)
        return result

    def _is_done_or_late(self, future: Future) -> bool:
        """Wait a little while for a task, and tell whether it is done.

        Whenever a batch is finished, models are given others. The task's own callback may be late, behind
        those that save batches: so it is looked at now and then, too.
        """
        end = time.monotonic() + A_LOOK
        while not future.done() and time.monotonic() < end:
            if self._news.wait(_A_GLANCE):
                self._news.clear()
                self._run_ahead()
        return bool(future.done())

    def _copy(self, spans: list[Span]) -> Iterator[tuple[Span, Blended]]:
        """Yield windows that no tile touches, some of them read ahead."""
        waiting: deque[tuple[Span, Future]] = deque()
        for span in spans:
            waiting.append((span, self._blend(span)))
            if len(waiting) > COPIES_AHEAD:
                first, future = waiting.popleft()
                yield first, self._result(future)
        for span, future in waiting:
            yield span, self._result(future)

    def _in_order(self, rows: list[list[Span]]) -> Iterator[int]:
        """Yield the batches that some windows need, each when the first of them does."""
        yielded: set[int] = set()
        for row in rows:
            numbers = set().union(*(self._needed(span) for span in row)) - yielded
            yield from sorted(numbers)
            yielded |= numbers

    def _run_ahead(self) -> None:
        """Submit batches beyond the rows under way while models are about to run out of them."""
        enough = TASKS_AHEAD * self._models
        while len({future.key for future in self._changes.values() if not future.done()}) < enough:
            beyond = len({own.key for number, own in self._changes.items() if number > self._last_needed})
            new = (number for number in self._ahead if number > self._last_needed)
            number = next(new, None) if beyond < 2 * enough else None
            if number is None:
                return
            self._change(number)

    def _blend(self, span: Span) -> Future:
        needed = sorted(self._needed(span))
        self._last_needed = max([self._last_needed, *needed])
        parts = {part.key: part for part in map(self._change, needed)}
        return self.client.submit(
            blend_tiles,
            self.plan,
            self.source,
            span,
            *parts.values(),
            key=_key("blend", span.row, span.col),
            priority=_LAST if self._spare_threads else 0,
            pure=False,
        )

    def _needed(self, span: Span) -> set[int]:
        """Find the batches that a window is blended from, none if no tile touches it."""
        touching = self.batches.touching(span)
        return self.batches.touching(self.plan.sight(span)) if touching else touching

    def _change(self, number: int) -> Future:
        if number not in self._changes:
            saved_changes = None if self.saved is None else self.saved.read(self.batches.groups[number])
            with self._saving:  # or it might finish before it is registered
                if saved_changes is None:
                    self._restore(number)
                else:
                    self._changes[number] = self._hand_over(number, saved_changes)
        return self._changes[number]

    def _restore(self, number: int) -> None:
        """Submit a batch, and with it some of those behind it, as the pace is."""
        if number in self._saved_batches:  # and damaged since
            self.kept -= len(self.batches.groups[number])
        numbers = self._together(number)
        tiles = [self.batches[own] for own in numbers]
        around = set().union(*map(self._guessed.over, tiles)) if self.needs_field else set()
        guesses = [self._guess(other, number) for other in sorted(around)]
        future = self._model_task(restore_batches, "restore", tiles, number, guesses)
        self._changes |= dict.fromkeys(numbers, future)
        self._to_save.update(numbers)
        self._to_submit.difference_update(numbers)
        self._uncounted.update(numbers)
        self._calls_due += 1
        future.add_done_callback(lambda done: self._take(numbers, done))

    def _together(self, number: int) -> list[int]:
        """List a batch and those that follow it and are in the same task."""
        most = self._pace.batches(self._models, len(self._to_submit))
        numbers = [number]
        while len(numbers) < most and numbers[-1] + 1 in self._to_submit:
            numbers.append(numbers[-1] + 1)
        return numbers

    @cached_property
    def _pace(self) -> Pace:
        return Pace(most_batches(self.plan, self.batches))

    def _hand_over(self, number: int, changes: Results) -> Future:
        """Submit the saved changes of a batch instead of its task."""
        self.resumed += len(self.batches[number])
        return self.client.submit(dict, changes, key=_key("saved", number), priority=-number - 1, pure=False)

    def _take(self, numbers: list[int], done: Future) -> None:
        """Handle finished batches in a thread of Dask's.

        Exceptions are kept for the stream.
        """
        self._news.set()
        try:
            if self._trouble is None:
                if self.saved is not None and done.status == "finished":
                    self._save()
                self.on_batch(self._counted(numbers) if done.status == "finished" else 0)
        except BaseException as error:
            self._trouble = error
        with self._saving:  # it is counted up in another thread
            self._calls_due -= 1

    def _counted(self, numbers: Collection[int]) -> int:
        """Count the tiles of restored batches that are not counted yet."""
        with self._saving:
            new = self._uncounted.intersection(numbers)
            self._uncounted -= new
        return sum(len(self.batches.groups[number]) for number in new)

    def _save(self) -> None:
        """Save finished batches whose blocks are not written, unless sampling them again is hardly slower.

        Those that have come together, or had to wait until there is time again, are fetched together. What
        waiting for a worker of this machine takes is no time of the disk: it is busy with the next tiles
        meanwhile. A network has the blocks to carry, too, so there the wait counts.
        """
        assert self.saved is not None, "_take has checked"
        began = time.monotonic()
        if self._spent > SAVING_SHARE * (began - self._began):
            return
        due = self._unsaved()
        if not due:
            return
        changes = self.client.gather(due)
        for results in {own.key: changes[number] for number, own in due.items()}.values():
            if isinstance(results, Batchwise):
                self._pace.note(results)
        with self._saving:
            began = began if self.far else time.monotonic()
            for number in due.keys() & self._changes.keys():
                self.saved.save(self.batches.groups[number], changes[number])
            self._to_save -= due.keys()
            self._spent += time.monotonic() - began

    def _unsaved(self) -> dict[int, Future]:
        """Find the first finished batches that are not saved, as many as a queue of the models holds."""
        with self._saving:
            waiting = [(number, self._changes[number]) for number in sorted(self._to_save & {*self._changes})]
            finished = {number: own for number, own in waiting if own.status == "finished"}
            keys = [*dict.fromkeys(own.key for own in finished.values())][: TASKS_AHEAD * self._models]
            return {number: own for number, own in finished.items() if own.key in keys}

    def _wait_for_callbacks(self) -> None:
        """Wait for callbacks: the last batches may be in their blocks before Dask has called back.

        One that was called when its worker had just died counted nothing, and is not called again.
        """
        patience = time.monotonic() + _PATIENCE_FOR_CALLS
        while self._calls_due > 0 and time.monotonic() < patience:
            self._check()
            time.sleep(0.001)
        self._check()
        if uncounted := self._counted({*self._uncounted}):
            self.on_batch(uncounted)

    def _check(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        self.check()

    def _guess(self, number: int, batch: int) -> Future:
        """Submit the first guesses of a window, once, with the priority of the batch that needs them."""
        if number not in self._guesses:
            self._guesses[number] = self._model_task(guess_tiles, "guess", self._guessed[number], batch, [])
        return self._guesses[number]

    @cached_property
    def _guessed(self) -> Batches:
        return guessed_together(self.plan, self.batches)

    def _model_task(
        self,
        task: Callable[..., object],
        name: str,
        tiles: Sequence[object],
        number: int,
        inputs: list[Future],
    ) -> Future:
        """Submit tiles of batches, earlier ones first, so that rows of blocks are finished in order."""
        return self.client.submit(
            task,
            self.plan,
            self.source,
            tiles,
            *inputs,
            key=_key(name, number),
            resources=MODEL,
            priority=-number - 1,
            pure=False,
        )

    def _forget_above(self, row: int) -> None:
        """Drop batches whose tiles all end above ``row``, and guesses that no later batch needs."""
        finished = [number for number in self._changes if self.batches.bottom(number) <= row]
        with self._saving:
            for number in finished:
                del self._changes[number]
            self._to_save -= set(finished)
        if self.saved is not None:
            self.saved.forget([tile for number in finished for tile in self.batches.groups[number]])
        first_alive = min(self._changes, default=0)
        for number in [n for n in self._guesses if self._guessed.bottom(n) <= self.batches.top(first_alive)]:
            del self._guesses[number]


def looking(client: Client, plan: Plan, check: Callable[[], None]) -> Callable[[Float], Float]:
    """Return a function that runs the model's detector on images ``(C, H, W)`` at a worker."""

    def ask(image: Float) -> Float:
        with cluster_faults(client):
            task = client.submit(look_at_window, plan, image, key=_key("look"), resources=MODEL, pure=False)
            return result_of(client, task, check)

    return ask


def _key(name: str, *numbers: int) -> str:
    return "-".join([name, *(str(n) for n in numbers), uuid.uuid4().hex[:8]])
