"""Where the tasks run: one process by default, several local ones, or a Dask cluster that is there already.

All three are `dask.distributed` clients, so there is one road, and only the address differs. Tasks that hold
a model ask for one unit of the resource ``GPU``: a worker runs one of them at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster

from decr_scene.pipeline.errors import ClusterError

MODEL = {"GPU": 1}
"""What a task that runs the model asks of its worker."""

_NO_PORT = "127.0.0.1:0"
"""Dask always serves HTTP: on a free port of this machine only, so that two runs do not meet."""

_SETTINGS = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.large-graph-warning-threshold": "1GB",
}


@contextmanager
def connect(scheduler: str | None, workers: int = 1) -> Iterator[Client]:
    """Give a client whose workers have the resource `MODEL`.

    Args:
        scheduler: Address of a running cluster; ``None``: start one here.
        workers: Model workers of a cluster started here; more than one are processes of their own.

    Raises:
        ClusterError: The cluster cannot be reached or none of its workers has the resource.
    """
    with dask.config.set(_SETTINGS), _quiet():
        if scheduler is not None:
            with _remote(scheduler) as client:
                yield client
            return
        with (
            LocalCluster(
                n_workers=workers,
                processes=workers > 1,
                threads_per_worker=3,
                resources=MODEL,
                memory_limit=0,
                dashboard_address=_NO_PORT,
                worker_dashboard_address=_NO_PORT,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from telling on standard error what we tell in one line."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout="15s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler at {address}: {error}; start one or drop --scheduler"
        ) from error
    with client:
        _require_model_workers(client, address)
        yield client


def _require_model_workers(client: Client, address: str) -> None:
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    if not any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers.values()):
        raise ClusterError(
            f"none of the {len(workers)} workers at {address} has the resource GPU: "
            'start them with --resources "GPU=1"'
        )
