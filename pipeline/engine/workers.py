"""Workers of a cluster: which hold a model, how they compute, what they are given, and waiting for them.

Workers that may hold a model have one unit of the resource ``GPU``. A task that runs the model asks for half
of it: while one has the model (`models_turn`), the next one reads and scales its tiles, so the model waits
for no pixels.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from distributed import Client, Future, KilledWorker, WorkerPlugin, wait
from distributed.comm import CommClosedError

from decr_scene.pipeline.errors import ClusterError, OptionError
from decr_scene.pipeline.restoration.open_restorers import forget_plugin, register_plugin
from decr_scene.pipeline.restoration.restorers import Restorer, RestorerSpec
from decr_scene.pipeline.system.version import code_here

HOLDS_MODEL = {"GPU": 1}
"""What a worker that may hold a model has."""

TASKS_A_MODEL = 2
"""Of which one has the model and the others get ready."""

MODEL = {"GPU": 1 / TASKS_A_MODEL}
"""What a task that runs the model asks of its worker."""

PATIENCE = 60.0
"""Time without a worker after which a run ends, s; a local worker that died is restarted sooner."""

A_LOOK = 0.5
"""Time between two checks of the workers, while waiting, s."""


def check_code(client: Client) -> None:
    """Refuse workers that run another state of this program than the process that asks.

    Raises:
        ClusterError: One of them does, or cannot tell: parts of the picture would be made in another way.
    """
    answers = client.run(code_here, workers=list(_model_workers(client)), on_error="return")
    own = code_here()
    for address, answer in answers.items():
        if answer != own:
            other = f"{type(answer).__name__}: {answer}" if isinstance(answer, BaseException) else answer
            raise ClusterError(
                f"worker {address} runs another decr-scene ({other}) than this machine ({own}): install the "
                "same on all machines, and start the workers again"
            )


def settled(client: Client, spec: RestorerSpec) -> RestorerSpec:
    """Ask the workers how they compute, which must be one way, and note it with the restorer.

    Raises:
        OptionError: A worker has no such device, or torch there lacks the precision.
        ClusterError: They compute in several ways.
    """
    if spec.bands is None:
        return spec
    answers = client.run(
        _computing, spec.device, spec.precision, workers=list(_model_workers(client)), on_error="return"
    )
    for address, answer in answers.items():
        if isinstance(answer, ValueError):
            raise OptionError(f"worker {address}: {answer}")
        if isinstance(answer, BaseException):
            raise ClusterError(f"worker {address} cannot compute: {type(answer).__name__}: {answer}")
    kinds = {str(answer): address for address, answer in answers.items()}
    if len(kinds) > 1:
        (first, one), (second, other), *_ = kinds.items()
        raise ClusterError(
            f"worker {one} computes on {first}, worker {other} on {second}: one picture would be made in two "
            "ways; start workers of one kind, or take --device and --precision that all have"
        )
    return replace(spec, computing=next(iter(answers.values()), None))


def _computing(device: str, precision: str) -> Any:
    """Return how this worker computes."""
    from decr_scene.models.devices import computing_of

    return computing_of(device, precision)


def count_workers(client: Client) -> int:
    """Count the workers of all kinds."""
    return len(_workers(client))


def count_models(client: Client) -> int:
    """Count the workers that may hold a model now."""
    return len(_model_workers(client))


def count_threads(client: Client) -> list[int]:
    """Count the threads of each of those workers."""
    return [worker["nthreads"] for worker in _model_workers(client).values()]


def _model_workers(client: Client) -> dict[str, Any]:
    """Find the workers that may hold a model now: what the scheduler tells of them, by address."""
    workers = _workers(client).items()
    return {address: own for address, own in workers if own.get("resources", {}).get("GPU", 0) >= 1}


def _workers(client: Client) -> dict[str, Any]:
    info = client.scheduler_info(n_workers=-1)
    if "workers" not in info:
        raise CommClosedError("the scheduler does not answer")
    return dict(info["workers"])


def _is_done(future: Future) -> bool:
    """Wait a little while for a task."""
    try:
        wait(future, timeout=A_LOOK)
    except TimeoutError:
        return False
    return True


def result_of(
    client: Client,
    future: Future,
    check: Callable[[], None] = lambda: None,
    is_done: Callable[[Future], bool] = _is_done,
) -> Any:
    """Wait for a task, but not for a cluster that is gone.

    Args:
        client: The cluster.
        future: The task.
        check: Called between two checks of it; may raise.
        is_done: Waits a little while for it, and tells whether it is done.

    Raises:
        ClusterError: The scheduler is gone, or there was no worker for `PATIENCE` seconds.
        Exception: What the task raised.
    """
    alive = time.monotonic()
    while not is_done(future):
        check()
        if count_models(client):
            alive = time.monotonic()
        elif time.monotonic() - alive > PATIENCE:
            raise ClusterError(
                f"no worker with the resource GPU for {PATIENCE:.0f} s: start some, then repeat the call"
            )
    check()
    return future.result()


@contextmanager
def cluster_faults(client: Client) -> Iterator[None]:
    """Convert faults of a cluster to our own errors.

    Raises:
        ClusterError: The scheduler is gone, or several workers died of the same task.
    """
    # asked for beforehand: a client that notices first has none any more
    address = client.scheduler.address if client.scheduler is not None else "its address"
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"{error.allowed_failures + 1} workers died of the task {error.task}: is their memory too small? "
            "Try a smaller --batch-size or fewer workers"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(
            f"the Dask scheduler at {address} is gone: start it and its workers again, then repeat the call"
        ) from error


class RestorerPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Registers the user's callable on every worker, including those that join later; one copy a process."""

    def __init__(self, key: str, restorer: Restorer) -> None:
        self.name = key
        self.restorer = restorer

    def setup(self, worker: Any) -> None:
        """Hold it."""
        register_plugin(self.name, self.restorer)

    def teardown(self, worker: Any) -> None:
        """Let go of it."""
        forget_plugin(self.name)


@contextmanager
def at_every_worker(client: Client, plugin: RestorerPlugin) -> Iterator[None]:
    """Have workers hold a callable, for a ``with``."""
    client.register_plugin(plugin)
    try:
        yield
    finally:
        if client.status == "running":
            with suppress(OSError):  # of a scheduler that is lost, unnoticed so far
                client.unregister_worker_plugin(plugin.name)


@contextmanager
def with_plugin(
    client: Client, spec: RestorerSpec, restorer: Restorer | None, local: bool
) -> Iterator[RestorerSpec]:
    """Register the callable on every worker, once.

    In this process it is called itself, not a copy.
    """
    if restorer is None:
        yield spec
        return
    key = uuid.uuid4().hex
    if local:
        register_plugin(key, restorer)
        try:
            yield replace(spec, plugin_key=key)
        finally:
            forget_plugin(key)
    else:
        with at_every_worker(client, RestorerPlugin(key, restorer)):
            yield replace(spec, plugin_key=key)
