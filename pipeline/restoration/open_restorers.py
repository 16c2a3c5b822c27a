"""Keep the restorers and detectors that this process has open, and have them work one task at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from distributed import get_worker

from decr_scene.models.arrays import Float
from decr_scene.pipeline.restoration.restorers import (
    BUILT_IN,
    Diffusion,
    Plugin,
    Restorer,
    RestorerSpec,
    TileModel,
    check_digest,
    worker_named,
)
from decr_scene.pipeline.system.forks import threads_begin

if TYPE_CHECKING:
    from decr_scene.models.model import LoadedDetector

_PLUGINS: dict[str, Plugin] = {}


def register_plugin(key: str, restorer: Restorer) -> None:
    """Hold a callable for this process's own workers, so that it is called itself and not a copy."""
    _PLUGINS[key] = Plugin(restorer)


def forget_plugin(key: str) -> None:
    """Let go of it."""
    _PLUGINS.pop(key, None)


def open_restorer(spec: RestorerSpec) -> TileModel:
    """Build the restorer of a spec, once a process."""
    threads_begin()
    if spec.plugin_key is not None:
        return _PLUGINS[spec.plugin_key]
    if spec.plugin is not None:
        return Plugin(spec.plugin)
    with _opening:  # or two tasks that come at the same time load it twice
        return _open_model(spec)


_opening = threading.Lock()


@lru_cache(maxsize=2)
def _open_model(spec: RestorerSpec) -> TileModel:
    built_in = BUILT_IN.get(spec.name)
    return Diffusion(spec) if built_in is None else built_in()


def detect(spec: RestorerSpec, image: Float) -> Float:
    """Run a model's detector on averaged images, ``(B, C, h, w)`` to ``(B, 2, h, w)``, in its turn."""
    import torch

    with _opening:
        detector = _open_detector(spec.name, spec.device, spec.sha256)
    with models_turn():
        return detector.probability(torch.from_numpy(image)).cpu().numpy()


@lru_cache(maxsize=2)
def _open_detector(name: str, device: str, sha256: str | None) -> LoadedDetector:
    from decr_scene.models.model import load_detector

    with worker_named():
        detector = load_detector(name, device)
        check_digest(name, sha256)
    assert detector is not None, "the plan says that there is one"
    return detector


@contextmanager
def models_turn() -> Iterator[None]:
    """Have the model of this worker to oneself.

    Outside a worker nobody else wants it.
    """
    try:
        worker = get_worker()
    except ValueError:
        yield
        return
    with _turns_lock:
        turn = _turns.setdefault(worker, threading.Lock())
    with turn:
        yield


_turns: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_turns_lock = threading.Lock()
