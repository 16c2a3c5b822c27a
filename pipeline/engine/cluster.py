"""Where the tasks run: one process by default, several local ones, or a Dask cluster that is there already.

All three are `dask.distributed` clients, so there is one road, and only the address differs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib.util import find_spec
from multiprocessing import current_process, resource_tracker
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, Nanny

from decr_scene.pipeline.engine import worker_setup
from decr_scene.pipeline.engine.worker_setup import loggers_of_dask
from decr_scene.pipeline.engine.workers import HOLDS_MODEL, count_models, count_workers
from decr_scene.pipeline.errors import ClusterError, OptionError
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.system.forks import refuse_after_fork, threads_begin

_log = logging.getLogger("decr_scene")

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
    "distributed.admin.tick.interval": "1s",  # every 20 ms it takes 1 % of a core, to measure itself
}

_DASHBOARD = {
    "distributed.scheduler.http.routes": [
        f"distributed.http.{name}"
        for name in ("scheduler.info", "scheduler.json", "health", "proxy", "statics")
    ]
}
"""Settings of Dask with which its dashboard is served."""

_UNSEEN = {"distributed.admin.system-monitor.interval": "10s", "distributed.admin.system-monitor.disk": False}
"""Settings of Dask without one: what it would draw takes 3 % of a core to measure."""

_OF_CLIENTS = ("scheduler", "shuffle")
"""Settings of Dask that a client sets while it is open."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that set the number of computing threads."""


_UNGUARDED = (
    "decr-scene: workers > 1 are processes that begin by running this script: put what calls decr_scene "
    'below if __name__ == "__main__":'
)
"""What a worker says whose script would start workers in turn: Python's own words are of frozen programs."""


def check_workers(workers: int, scheduler: str | Client | None, device: str = "auto") -> None:
    """Refuse what `connect` cannot do.

    Raises:
        OptionError: There are to be no workers, or workers here while a cluster has its own, or several on
            the one GPU that is named.
    """
    if not isinstance(workers, int) or workers < 1:
        raise OptionError(f"workers must be 1 or more, got {workers!r}")
    if workers > 1 and getattr(current_process(), "_inheriting", False):  # a worker that is being started
        sys.exit(_UNGUARDED)
    if scheduler is not None and workers > 1:
        raise OptionError(
            f"the cluster at {_address(scheduler)} has its own workers, got --workers {workers}: drop one of "
            "the two"
        )
    if workers > 1 and device.startswith("cuda:"):
        raise OptionError(
            f"{device} is one GPU, got --workers {workers}: take --device cuda, by which each has its own, "
            "or one worker"
        )


def check_dashboard(dashboard: bool, scheduler: str | Client | None) -> None:
    """Refuse a dashboard that cannot be served.

    Raises:
        OptionError: A cluster that has its own is named, or bokeh is missing.
    """
    if dashboard and scheduler is not None:
        raise OptionError(
            f"the cluster at {_address(scheduler)} has a dashboard of its own, got --dashboard: drop one of "
            "the two"
        )
    if dashboard and find_spec("bokeh") is None:
        raise OptionError(
            "Dask's dashboard is drawn by bokeh, which is not installed: pip install 'decr-scene[dashboard]'"
        )


def dashboard_at(client: Client) -> str:
    """Return the address of the dashboard of a cluster that was started here."""
    return f"http://{_NO_PORT.partition(':')[0]}:{client.cluster.scheduler.services['dashboard'].port}/status"


def memory_bytes(limit: int | str | None, scheduler: str | Client | None) -> int | None:
    """Read a limit of memory, such as ``4GB``, in bytes, or ``None`` if there is none.

    Raises:
        OptionError: It is no size, or a cluster that has its own is named.
    """
    if limit is None:
        return None
    try:
        size = int(parse_bytes(limit)) if any(map(str.isdecimal, str(limit))) else 0
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise OptionError(f"memory limit must be a size such as 4GB or 800MiB, got {limit or repr(limit)}")
    if scheduler is not None:
        raise OptionError(
            f"the cluster at {_address(scheduler)} has limits of its own, got memory limit {limit}: give it "
            "to dask worker --memory-limit"
        )
    return size


def one_cluster(scheduler: str | None, client: Client | None) -> str | Client | None:
    """Join the two ways to name a cluster that is there.

    Raises:
        OptionError: Both are given, the client is none, or the address is empty or no text.
        ClusterError: The client is closed.
    """
    if not isinstance(scheduler, (str, type(None))):
        raise OptionError(
            f"scheduler is a {type(scheduler).__name__}, expected an address: a client is given as client"
        )
    if scheduler == "":
        raise OptionError("scheduler is empty: leave it out, or is a variable of the shell not set?")
    if client is not None and scheduler is not None:
        raise OptionError(f"client and scheduler {scheduler} both name a cluster: give one of them")
    if not isinstance(client, (Client, type(None))):
        raise OptionError(f"client is a {type(client).__name__}, expected a distributed.Client")
    if client is not None and client.status in ("closed", "closing"):
        raise ClusterError("the client is closed, expected an open one: make another of its cluster")
    return scheduler if client is None else client


@contextmanager
def connect(
    scheduler: str | Client | None,
    workers: int = 1,
    spec: RestorerSpec | None = None,
    memory_limit: int | None = None,
    dashboard: bool = False,
) -> Iterator[Client]:
    """Give a client whose workers have the resource `MODEL`.

    Args:
        scheduler: Address of a running cluster, or a client of it, which stays open; ``None``: start one
            here.
        workers: Model workers of a cluster started here; more than one are processes of their own, each with
            its share of the cores and, where the restorer computes on GPUs, with one of them.
        spec: The restorer.
        memory_limit: Bytes above which a worker process started here is ended and begun anew; ``None``: none.
        dashboard: Whether a cluster started here serves Dask's dashboard.

    Raises:
        ClusterError: The cluster cannot be reached or none of its workers has the resource.
    """
    refuse_after_fork()
    threads_begin()
    with _settings():
        if scheduler is not None:
            with _remote(scheduler) as client:
                yield client
            return
        if workers > 1:
            _calm_tracker()
        with (
            _in_time(lambda: _local(workers, spec, memory_limit, dashboard)) as cluster,
            _in_time(lambda: Client(cluster)) as client,
        ):
            try:
                yield client
            except BaseException:
                _let_go(client, cluster)
                raise


@contextmanager
def _in_time(start: Callable[[], Any]) -> Iterator[Any]:
    """Start and close a cluster or a client of it; one that does not end in time has done its work.

    Raises:
        ClusterError: It does not start in time, or its processes end at once.
    """
    is_started = is_done = False
    try:
        with start() as started:
            is_started = True
            yield started
            is_done = True
    except TimeoutError as error:
        if not is_started:
            raise ClusterError(
                "the workers here did not start in time: this machine is too busy, run again or take fewer"
            ) from error
        if not is_done:
            raise
        _log.info("the workers here did not end in time, and are left to the end of the program")
    except RuntimeError as error:
        if is_started or not str(error).endswith("failed to start."):
            raise
        raise ClusterError(
            "the workers here ended while they started: look at what they say above, take --workers 1, or "
            "run again"
        ) from None  # their own words tell why, Dask's do not


def _let_go(client: Client, cluster: LocalCluster) -> None:
    """Cancel tasks that are no longer needed, and end processes that compute them.

    A thread cannot be ended, and none may be left at a raster: closing waits for what it has in hand.
    """
    with suppress(Exception):
        client.cancel(list(client.futures.values()), force=True)
    for worker in cluster.workers.values():
        if hasattr(worker, "kill"):
            with suppress(Exception):
                cluster.sync(worker.close, timeout=0.2)


@contextmanager
def _remote(address: str | Client) -> Iterator[Client]:
    if not isinstance(address, str):
        _require_model_workers(address, _address(address))
        yield address
        return
    try:
        client = Client(address, timeout="15s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler at {address}: {error}; start one or drop --scheduler"
        ) from error
    with client:
        _require_model_workers(client, address)
        yield client


def _address(scheduler: str | Client) -> str:
    return scheduler if isinstance(scheduler, str) else str(scheduler.scheduler.address)


def _require_model_workers(client: Client, address: str) -> None:
    if not count_models(client):
        raise ClusterError(
            f"none of the {count_workers(client)} workers at {address} has the resource GPU: "
            'start them with --resources "GPU=1"'
        )


def _local(
    workers: int, spec: RestorerSpec | None, memory_limit: int | None, dashboard: bool
) -> LocalCluster:
    """Start one here, one after the other.

    Dask's imports while it starts are not safe in threads.
    """
    apart: dict[str, Any] = {}
    if workers > 1:
        apart = {"worker_class": _PlacedNanny, "places": places_of(workers, _gpus(spec))}
        apart["preload"] = [*dask.config.get("distributed.worker.preload"), worker_setup.__name__]
    settings: dict[str, Any] = {
        f"distributed.nanny.pre-spawn-environ.{name}": threads_each(workers) for name in _THREADS
    }
    heaps = os.environ.get("MALLOC_ARENA_MAX", 1)  # as `share_one_heap`, ahead of the first thread
    settings["distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX"] = heaps
    if memory_limit is not None:
        settings["distributed.worker.memory.terminate"] = 1.0
    settings |= _DASHBOARD if dashboard else _UNSEEN
    deaf = _deaf_to_ctrl_c() if workers > 1 else nullcontext()
    with _starting, dask.config.set(settings), _environment_restored(), deaf:
        return LocalCluster(
            n_workers=workers,
            processes=workers > 1,
            threads_per_worker=3,
            resources=HOLDS_MODEL,
            memory_limit=memory_limit or 0,
            dashboard_address=_NO_PORT,
            worker_dashboard_address=_NO_PORT,
            **apart,
        )


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start threads, and with them processes, that a terminal's Ctrl-C does not reach.

    It goes to all processes of a command. This one ends its workers, which would each print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would end what follows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Restore the environment of this process, which Dask sets for those that it starts."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in dask.config.get("distributed.nanny.pre-spawn-environ"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


class _PlacedNanny(Nanny):  # type: ignore[misc]  # Dask ships no types
    """Starts a worker in an environment of its own: Dask's own way has one for all."""

    def __init__(self, *args: Any, name: int, places: Sequence[dict[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, name=name, env=places[name], **kwargs)


def places_of(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Choose the environment of each worker: one of the GPUs, in turns, if there are any."""
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


def threads_each(workers: int) -> int:
    """Count the threads that each of some workers on this machine computes with."""
    return max(1, int(CPU_COUNT) // workers)


def _gpus(spec: RestorerSpec | None) -> list[str]:
    """List the GPUs that workers share out, by their names in CUDA, none if the restorer uses none."""
    if spec is None or spec.bands is None or spec.device not in ("auto", "cuda"):
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    return names or [str(number) for number in range(torch.cuda.device_count())]


_starting = threading.Lock()
_users = 0
_users_lock = threading.Lock()
_undo = ExitStack()


@contextmanager
def _settings() -> Iterator[None]:
    """Have Dask's settings and log level be ours, while anybody needs them.

    Both are of the whole process. Runs in several threads overlap, so the first one sets them and the last
    one sets them back; were it each for itself, one would put back what another had set.
    """
    global _users
    with _users_lock:
        _users += 1
        if _users == 1:
            for logger in loggers_of_dask():
                _undo.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL)  # our own line replaces Dask's on standard error
            _undo.enter_context(dask.config.set(_SETTINGS))
            _undo.callback(_put_back, {key: dask.config.config.get(key) for key in _OF_CLIENTS})
    try:
        yield
    finally:
        with _users_lock:
            _users -= 1
            if not _users:
                _undo.close()


def _put_back(before: dict[str, Any]) -> None:
    """Set what clients set back to what it was: of several in threads, the last one puts back the first's."""
    for key, value in before.items():
        if value is None:
            dask.config.config.pop(key, None)
        else:
            dask.config.config[key] = value


def _calm_tracker() -> None:
    """Start Python's tracker of semaphores such that it is silent when it cleans up after a killed run."""
    if os.name != "posix":  # there is none elsewhere
        return
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
