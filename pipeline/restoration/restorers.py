"""What is done to a batch of tiles: diffusion, nothing at all (`identity`), or a callable of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from distributed import get_worker

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.errors import CheckpointError, UnknownModelError
from decr_scene.pipeline.errors import ClusterError
from decr_scene.pipeline.restoration.memory import filled_up, in_pieces, is_out_of_memory, let_memory_go
from decr_scene.pipeline.tiling.noise import TileNoise

if TYPE_CHECKING:
    from torch import Tensor

    from decr_scene.models.checkpoints.expected_error import ExpectedError
    from decr_scene.models.devices import Computing

GPU_BATCH = 8
"""Images that a GPU sees at a time, at most: always as many, or cuDNN might add up in another order."""


Restorer = Callable[[Float, Float], Float] | Callable[[Float, None], Float]
"""``(tiles (N, C, 256, 256) in [-1, 1], noise of that shape) -> restored tiles of that shape``.

One with an attribute ``needs_noise`` that is false is given ``None`` in the place of noise, which is saved.
"""


Noise = Float | TileNoise
"""Noise of tiles, ``(N, C, 256, 256)``, drawn or to be drawn where the model computes."""


Agree = Callable[[Float], Float]
"""``(N, C, 256, 256)`` estimates of tiles, which overlap, to those of one picture."""


class TileModel(Protocol):
    """A restorer, ready to run in this process."""

    needs_noise: bool
    draws_noise: bool
    needs_field: bool

    def guess(self, tiles: Float, context: Float | None = None, norm_side: int | None = None) -> Float:
        """Return the first guess ``(N, C, H, W)`` of tiles of that shape, if ``needs_field``.

        ``context`` is ``(N, C + 3, h, w)``: what the scene as a whole shows of the same windows. With
        ``norm_side`` these are large, and normalisation sees only that distance around each pixel, px.
        """
        ...

    def may_change(self, tiles: Float, field: Float | None) -> Bool:
        """Tell which tiles `restore` has to see, ``(N,)``: the others' answer is their field in [-1, 1]."""
        ...

    def restore(
        self, tiles: Float, noise: Noise | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Return restored tiles, ``(N, C, H, W)`` in [-1, 1].

        ``noise`` is still to be drawn for one that ``draws_noise``. ``agree``, for a restorer that works in
        steps, makes the estimates of every step one picture.
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
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        precision: ``auto``, ``fp32``, ``bf16``.
        computing: What became of the two where the run began: a worker that computes otherwise refuses.
        at_once: Images that a GPU sees at a time.
        sha256: Of the model file: a worker that has another one under its name refuses it.
        context: The first guess sees the ground of the scene as a whole.
        windows: First guesses are made over windows of many tiles, not of each tile.
        side_by_side: Its networks are so small that a CPU computes several tiles at the same time.
        alone: The model has no noise network: its reference's answer is the result.
        error: The error to be expected of its answers; ``None``: none is stated.
        gain: Factor of what sampling changes of the first guess; ``None``: the model's own.
        natural: Its bands hold blue, green and red that are what they are called.
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
    computing: Computing | None = None
    at_once: int = GPU_BATCH
    sha256: str | None = None
    context: bool = False
    windows: bool = False
    side_by_side: bool = False
    alone: bool = False
    error: ExpectedError | None = None
    gain: float | None = None
    natural: bool = False
    plugin: Restorer | None = None
    plugin_key: str | None = None


class Identity:
    """Gives its input back: for checking a scene's road through the program, and its cost."""

    needs_noise = False
    draws_noise = False
    needs_field = False

    def guess(self, tiles: Float, context: Float | None = None, norm_side: int | None = None) -> Float:
        """Return the input."""
        return tiles

    def may_change(self, tiles: Float, field: Float | None) -> Bool:
        """Choose all."""
        return np.ones(len(tiles), np.bool_)

    def restore(
        self, tiles: Float, noise: Noise | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Return the input."""
        return tiles


class Fill(Identity):
    """The tone of the clear ground around: the baseline of every model. Its field is that of the ground."""

    needs_field = True

    def restore(
        self, tiles: Float, noise: Noise | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Return the ground's tone."""
        assert field is not None, "needs_field"
        return field


class Plugin:
    """A callable of the user's, with its answer checked."""

    draws_noise = False
    needs_field = False

    def __init__(self, restorer: Restorer) -> None:
        self.restorer: Callable[[Float, Any], Float] = restorer
        self.needs_noise = bool(getattr(restorer, "needs_noise", True))
        self.sizes: dict[str, int] = {}

    def guess(self, tiles: Float, context: Float | None = None, norm_side: int | None = None) -> Float:
        """Return the input: a plug-in has no first guess."""
        return tiles

    def may_change(self, tiles: Float, field: Float | None) -> Bool:
        """Choose all: nobody knows what it does."""
        return np.ones(len(tiles), np.bool_)

    def restore(
        self, tiles: Float, noise: Noise | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Call it with arrays of its own, and take its answer away while it is its turn.

        What it overwrites is still needed, to find what has changed, or to try again with half of the batch
        where memory does not suffice; and the next batch may come, from another thread, before this one is
        used.
        """
        assert not isinstance(noise, TileNoise), "draws_noise"
        return np.array(self.restorer(tiles.copy(), None if noise is None else noise.copy()))


@contextmanager
def worker_named() -> Iterator[None]:
    """Say in what goes wrong with a model which worker it is that has no such file, or another one."""
    try:
        yield
    except (UnknownModelError, CheckpointError, ClusterError) as error:
        try:
            where = f"worker {get_worker().address}: "
        except ValueError:
            raise error from None
        raise type(error)(where + str(error)) from error


def check_digest(name: str, sha256: str | None) -> None:
    """Refuse a model file that is another one than the run was started with, if its digest is known.

    Raises:
        CheckpointError: It is.
    """
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import model_sha256

    if sha256 is not None and model_sha256(find_model(name)) != sha256:
        raise CheckpointError(
            f"model {name} is another file than the run was started with: it was changed, or "
            "another version is installed; use one on all machines, then run again"
        )


class Diffusion:
    """DE: the first guess, then sampling from noise of the place, steered by the field of first guesses."""

    needs_noise = True
    needs_field = True

    def __init__(self, spec: RestorerSpec) -> None:
        from decr_scene.models.devices import computing_of
        from decr_scene.models.model import load_model

        self.spec = spec
        self.sizes: dict[str, int] = {}
        with worker_named():
            computing = computing_of(spec.device, spec.precision)
            if spec.computing not in (None, computing):
                raise ClusterError(
                    f"computes on {computing}, the run on {spec.computing}: that is no one picture; "
                    "take workers of one kind, then run again"
                )
            self.model = load_model(spec.name, device=spec.device, precision=spec.precision)
            self.draws_noise = self._on_gpu  # which would wait for noise that is drawn here
            check_digest(spec.name, spec.sha256)

    def guess(self, tiles: Float, context: Float | None = None, norm_side: int | None = None) -> Float:
        """Make the first guess of the reference network, ``(N, C, H, W)``."""
        batches = (tiles,) if context is None else (tiles, context)
        if norm_side is None:
            return self._on_device(self.model.reference, *batches)

        def reference(cloudy: Tensor, context: Tensor | None = None) -> Tensor:
            return self.model.reference(cloudy, context, norm_side)

        return self._on_device(reference, *batches, at_once=1)

    def may_change(self, tiles: Float, field: Float | None) -> Bool:
        """Tell of which tiles the diffusion may change the first guess: where cloud hid the ground."""
        import torch

        assert field is not None, "needs_field"
        if self.spec.gain == 0:
            return np.zeros(len(tiles), np.bool_)
        cloudy, guess = torch.from_numpy(tiles), torch.from_numpy(field)
        return self.model.may_change(cloudy, guess, self.spec.weight_floor).numpy()

    def restore(
        self, tiles: Float, noise: Noise | None, field: Float | None, agree: Agree | None = None
    ) -> Float:
        """Sample: one tile from the other apart, or all of them as one picture."""
        assert noise is not None, "needs_noise"
        assert field is not None, "needs_field"
        if agree is None:
            return self._on_device(self._sample, tiles, noise, field)
        return self._as_one_picture(tiles, noise, field, agree)

    def _as_one_picture(self, tiles: Float, noise: Noise, field: Float, agree: Agree) -> Float:
        """Sample overlapping tiles together, or anew with fewer at once where memory does not suffice."""
        import torch

        def agreed(x0: Tensor) -> Tensor:
            if isinstance(agree, OnDevice) and x0.device.type == "cuda":
                return agree.on_device(x0)
            return torch.from_numpy(agree(x0.cpu().numpy())).to(x0.device)

        cloudy, guess = torch.from_numpy(tiles), torch.from_numpy(field)
        while True:
            at_once = self.sizes.get("joint", self.spec.at_once if self._on_gpu else 1)
            try:
                x_t = self._part(noise, slice(None), len(tiles))
                return self._sample(cloudy, x_t, guess, agreed, at_once).float().cpu().numpy()
            except (MemoryError, RuntimeError) as error:
                if at_once == 1 or not is_out_of_memory(error):
                    raise
            self.sizes["joint"] = -(-at_once // 2)
            let_memory_go()

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
            gain=self.spec.gain,
            noise=noise,
            reference=reference,
            agree=agree,
            at_once=at_once,
        )

    def _on_device(
        self, call: Callable[..., Tensor], tiles: Float, *others: Noise, at_once: int | None = None
    ) -> Float:
        """Call with some tiles at a time on a GPU, with one on a CPU.

        On a CPU a batch is no faster, takes more memory, and is summed up in another order than its tiles
        are, so that the result would depend on the size of batches in its last bits. Of small networks
        several calls compute at the same time. On a GPU it is the shape of a batch that decides, so the last
        one is filled up with copies of its last tile.
        """
        import torch

        from decr_scene.models.devices import side_by_side

        def answer(part: slice, size: int) -> Tensor:
            return call(*(self._part(batch, part, size) for batch in (tiles, *others)))[: len(tiles[part])]

        if not self._on_gpu and at_once is None:

            def alone(number: int) -> Tensor:
                return answer(slice(number, number + 1), 1)

            threads = torch.get_num_threads() if self.spec.side_by_side else 1
            return torch.cat(side_by_side(alone, len(tiles), threads)).float().cpu().numpy()

        most = (at_once or self.spec.at_once) if self._on_gpu else 1
        answers = in_pieces(answer, len(tiles), most, self.sizes, f"{call.__name__} {tiles.shape[1:]}")
        return torch.cat(answers).float().cpu().numpy()

    def _part(self, batch: Noise, part: slice, size: int) -> Tensor:
        """Cut some images out of a batch, and fill them up to a size."""
        import torch

        if isinstance(batch, TileNoise):
            return batch[part].filled_up(size).drawn_on(self.model.device)
        return torch.from_numpy(filled_up(batch[part], size))

    @property
    def _on_gpu(self) -> bool:
        return bool(self.model.device.type == "cuda")


@runtime_checkable
class OnDevice(Protocol):
    """An `Agree` that can do its work where the images are."""

    def on_device(self, images: Tensor) -> Tensor:
        """Do as `Agree`."""
        ...


BUILT_IN: dict[str, Callable[[], TileModel]] = {"identity": Identity, "fill": Fill}
"""Restorers that are no model files."""


def on_gpu(spec: RestorerSpec) -> bool:
    """Return whether a model is known to run on a GPU, which of a callable it is not."""
    return spec.computing is not None and spec.computing.device == "cuda"


def describe(spec: RestorerSpec) -> dict[str, Any]:
    """Describe the spec as the report shows it."""
    return {
        "name": spec.name,
        "steps": spec.steps,
        "start": spec.start,
        "weight_floor": spec.weight_floor,
        "gain": spec.gain,
        "halo": spec.halo,
        "device": spec.device,
        "precision": spec.precision,
        **({} if spec.computing is None else computing_values(spec.computing)),
    }


def computing_values(computing: Computing) -> dict[str, str | None]:
    """Describe how is computed, in plain values."""
    return {
        "device": computing.device,
        "device_name": computing.name,
        "precision": computing.precision,
        "torch": computing.torch,
    }
