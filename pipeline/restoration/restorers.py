"""What is done to a batch of tiles: diffusion, nothing at all (`identity`), or a callable of the user's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from distributed import get_worker

from decr_scene.models.errors import CheckpointError, UnknownModelError
from decr_scene.pipeline.arrays import Float
from decr_scene.pipeline.files import file_sha256
from decr_scene.pipeline.forks import threads_begin

if TYPE_CHECKING:
    from torch import Tensor


Restorer = Callable[[Float, Float], Float]
"""``(tiles (N, C, 256, 256) in [-1, 1], noise of that shape) -> restored tiles of that shape``."""


Agree = Callable[[Float], Float]
"""``(N, C, 256, 256)`` estimates of tiles, which overlap, to those of one picture."""


class TileModel(Protocol):
    """A restorer, ready to run in this process."""

    needs_noise: bool
    needs_field: bool

    def guess(self, tiles: Float, context: Float | None = None) -> Float:
        """First guess ``(N, C, H, W)`` for tiles of that shape; only if ``needs_field``.

        ``context`` is ``(N, C + 3, h, w)``: what the scene as a whole shows of the same windows.
        """
        ...

    def restore(
        self, tiles: Float, noise: Float | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Restored tiles, ``(N, C, H, W)`` in [-1, 1].

        ``agree``, for a restorer that works in steps, makes the estimates of every step one picture.
        """
        ...


@dataclass(frozen=True)
class RestorerSpec:
    """Everything a worker needs to build the restorer; small, picklable, and the key of its cache.

    Args:
        name: ``identity``, ``fill``, a bundled model or a model file; for a callable, its name in the report.
        bands: Bands that the restorer takes, by name; ``None``: all that the scene has.
        steps: Diffusion steps.
        start: Step at which the diffusion starts from the noised first guess; ``None``: from noise alone.
        weight_floor: Least weight of the first guess, the paper's eta.
        halo: How far beyond its tile a first guess sees, px.
        device: ``auto``, ``cpu``, ``cuda``.
        precision: ``auto``, ``fp32``, ``bf16``.
        sha256: Of the model file: a worker that has another one under its name refuses it.
        context: The first guess is told what the scene as a whole shows.
        plugin: A callable; sent to the workers with the plan.
        plugin_key: Key under which this process holds a callable that must not be copied.
    """

    name: str
    bands: tuple[str, ...] | None = None
    steps: int | None = None
    start: int | None = None
    weight_floor: float | None = None
    halo: int = 0
    device: str = "auto"
    precision: str = "auto"
    sha256: str | None = None
    context: bool = False
    plugin: Restorer | None = None
    plugin_key: str | None = None


class Identity:
    """Gives its input back: for checking a scene's road through the program, and its cost."""

    needs_noise = False
    needs_field = False

    def guess(self, tiles: Float, context: Float | None = None) -> Float:
        """The input."""
        return tiles

    def restore(
        self, tiles: Float, noise: Float | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """The input."""
        return tiles


class Fill(Identity):
    """The tone of the clear ground around: the baseline of every model. Its field is that of the ground."""

    needs_field = True

    def restore(
        self, tiles: Float, noise: Float | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """The ground's tone."""
        assert field is not None, "needs_field"
        return field


class Plugin:
    """A callable of the user's, with its answer checked."""

    needs_noise = True
    needs_field = False

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer

    def guess(self, tiles: Float, context: Float | None = None) -> Float:
        """The input: a plug-in has no first guess."""
        return tiles

    def restore(
        self, tiles: Float, noise: Float | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Call it with arrays of its own, and take its answer away while it is its turn.

        What it overwrites is still needed, to tell what has changed, or to try again with half of the batch
        where memory does not suffice; and the next batch may come, from another thread, before this one is
        used.
        """
        assert noise is not None, "needs_noise"
        return np.array(self.restorer(tiles.copy(), noise.copy()))


@contextmanager
def _worker_named() -> Iterator[None]:
    """Say in what goes wrong with a model which worker it is that has no such file, or another one."""
    try:
        yield
    except (UnknownModelError, CheckpointError) as error:
        try:
            where = f"worker {get_worker().address}: "
        except ValueError:
            raise error from None
        raise type(error)(where + str(error)) from error


class Diffusion:
    """DE: the first guess, then sampling from noise of the place, steered by the field of first guesses."""

    needs_noise = True
    needs_field = True

    def __init__(self, spec: RestorerSpec) -> None:
        from decr_scene.models.model import find_model, load_model

        self.spec = spec
        with _worker_named():
            self.model = load_model(spec.name, device=spec.device, precision=spec.precision)
            if spec.sha256 is not None and file_sha256(Path(find_model(spec.name))) != spec.sha256:
                raise CheckpointError(
                    f"model {spec.name} is another file than the run was started with: it was changed, or "
                    "another version is installed; use one on all machines, then run again"
                )

    def guess(self, tiles: Float, context: Float | None = None) -> Float:
        """First guess of the reference network."""
        if context is None:
            return self._on_device(self.model.reference, tiles)
        return self._on_device(self.model.reference, tiles, context)

    def restore(
        self, tiles: Float, noise: Float | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Sample: one tile from the other apart, or all of them as one picture."""
        assert noise is not None, "needs_noise"
        assert field is not None, "needs_field"
        if agree is None:
            return self._on_device(self._sample, tiles, noise, field)
        return self._as_one_picture(tiles, noise, field, agree)

    def _as_one_picture(self, tiles: Float, noise: Float, field: Float, agree: Agree) -> Float:
        """Sample overlapping tiles together; where memory does not suffice, anew with fewer at once."""
        import torch

        def agreed(x0: Tensor) -> Tensor:
            return torch.from_numpy(agree(x0.cpu().numpy())).to(x0.device)

        cloudy, x_t, guess = (torch.from_numpy(batch) for batch in (tiles, noise, field))
        at_once = self._at_once(len(tiles))
        while True:
            try:
                return self._sample(cloudy, x_t, guess, agreed, at_once).float().cpu().numpy()
            except (MemoryError, RuntimeError) as error:
                if at_once == 1 or not _is_out_of_memory(error):
                    raise
            at_once = -(-at_once // 2)

    def _sample(
        self,
        cloudy: Tensor,
        noise: Tensor,
        reference: Tensor,
        agree: Callable[[Tensor], Tensor] | None = None,
        at_once: int | None = None,
    ) -> Tensor:
        return self.model.sample(
            cloudy,
            steps=self.spec.steps,
            start=self.spec.start,
            weight_floor=self.spec.weight_floor,
            noise=noise,
            reference=reference,
            agree=agree,
            at_once=at_once,
        )

    def _on_device(self, call: Callable[..., Tensor], *batches: Float) -> Float:
        """Call with so many tiles as are seen at once."""
        import torch

        together = self._at_once(len(batches[0]))
        answers = [
            call(*(torch.from_numpy(batch[first : first + together]) for batch in batches))
            for first in range(0, len(batches[0]), together)
        ]
        return torch.cat(answers).float().cpu().numpy()

    def _at_once(self, count: int) -> int:
        """A whole batch on a GPU, and tile by tile on a CPU.

        There a batch is no faster, takes more memory, and is summed up in another order than its tiles are,
        so that the result would depend on the size of batches in its last bits.
        """
        return count if self.model.device.type == "cuda" else 1


BUILT_IN: dict[str, Callable[[], TileModel]] = {"identity": Identity, "fill": Fill}
"""Restorers that are no model files."""

_PLUGINS: dict[str, Restorer] = {}


def on_gpu(spec: RestorerSpec) -> bool:
    """Whether a model of this program would run on a GPU here; of a callable, nobody knows."""
    if spec.bands is None:
        return False
    from decr_scene.models.model import pick_device

    return pick_device(spec.device).type == "cuda"


def register_plugin(key: str, restorer: Restorer) -> None:
    """Hold a callable for this process's own workers, so that it is called itself and not a copy."""
    _PLUGINS[key] = restorer


def forget_plugin(key: str) -> None:
    """Let go of it."""
    _PLUGINS.pop(key, None)


def open_restorer(spec: RestorerSpec) -> TileModel:
    """Build the restorer of a spec, once a process."""
    threads_begin()
    if spec.plugin_key is not None:
        return Plugin(_PLUGINS[spec.plugin_key])
    if spec.plugin is not None:
        return Plugin(spec.plugin)
    with _opening:  # or two tasks that come at the same time load it twice
        return _open_model(spec)


_opening = threading.Lock()


@lru_cache(maxsize=2)
def _open_model(spec: RestorerSpec) -> TileModel:
    built_in = BUILT_IN.get(spec.name)
    return Diffusion(spec) if built_in is None else built_in()


def run_in_halves(call: Callable[..., Float], *batches: Float | None) -> Float:
    """Call with the whole batch; where memory does not suffice, with its halves, and so on down to one.

    Raises:
        Exception: Whatever ``call`` raises, an out-of-memory error included once the batch is a single tile.
    """
    count = next(len(batch) for batch in batches if batch is not None)
    try:
        return call(*batches)
    except (MemoryError, RuntimeError) as error:
        if count == 1 or not _is_out_of_memory(error):
            raise
    half = count // 2
    parts = [
        run_in_halves(call, *(None if batch is None else batch[part] for batch in batches))
        for part in (slice(half), slice(half, None))
    ]
    return np.concatenate(parts)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def describe(spec: RestorerSpec) -> dict[str, Any]:
    """The spec as the report shows it."""
    return {
        "name": spec.name,
        "steps": spec.steps,
        "start": spec.start,
        "weight_floor": spec.weight_floor,
        "halo": spec.halo,
        "device": spec.device,
        "precision": spec.precision,
    }


@contextmanager
def models_turn() -> Iterator[None]:
    """Have the model of this worker to oneself; outside a worker, nobody else wants it."""
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
