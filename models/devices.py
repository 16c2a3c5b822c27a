"""Where a model computes and how exactly: device, precision, and what of them a picture depends on."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

A = TypeVar("A")


@dataclass(frozen=True)
class Computing:
    """How a model computes, as it turned out: what of a machine a picture depends on.

    Args:
        device: Kind of the device, such as ``cpu`` or ``cuda``.
        name: Of the GPU. Of a CPU in bf16 the instructions that it has for that, as they make a DN in one of
            twenty values, and how the user has set Numba; ``None`` in fp32, where CPUs differ by last bits
            alone.
        precision: ``fp32`` or ``bf16``.
        torch: Version of torch.
    """

    device: str
    name: str | None
    precision: str
    torch: str

    def __str__(self) -> str:
        where = self.device if self.name is None else f"{self.device} ({self.name})"
        return f"{where} in {self.precision} with torch {self.torch}"


_NUMBA = ("NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
"""Environment variables that change what the loops of `kernels` round to."""


def computing_of(device: str, precision: str) -> Computing:
    """Return how this process computes with a device and a precision.

    Raises:
        ValueError: As `pick_device` and `pick_precision`.
    """
    where = pick_device(device)
    chosen = pick_precision(precision, where)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else None
    if where.type == "cpu" and chosen == "bf16":
        amd = " of AMD" if _is_amd() else ""
        name = "AMX" if _has_amx() else f"AVX-512 BF16{amd}" if _has_avx512_bf16() else "no bf16 of its own"
        name = ", ".join([name, *(f"{key}={os.environ[key]}" for key in _NUMBA if os.environ.get(key))])
    return Computing(where.type, name, chosen, torch.__version__.partition("+")[0])


def pick_device(name: str) -> torch.device:
    """Return the device of a name.

    ``auto`` is the GPU if there is one.

    Raises:
        ValueError: torch has no such device, or the machine lacks it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown: take auto, cpu, cuda or cuda:NUMBER") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {name} asked for, no GPU found: take auto or cpu")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ValueError(
                f"device {name} asked for, GPUs found: {torch.cuda.device_count()}, counted from cuda:0"
            )
    return device


def pick_precision(name: str, device: torch.device, *, training: bool = False) -> str:
    """Choose ``fp32`` or ``bf16``.

    ``auto`` is bf16 where the device is faster in it: on CPUs with AMX or with AVX-512's as AMD has it, for a
    training with Intel's, too.

    Args:
        name: ``auto``, ``fp32`` or ``bf16``.
        device: Where to compute.
        training: For a training.

    Raises:
        ValueError: There is no such precision.
    """
    if name in ("fp32", "bf16"):
        return name
    if name != "auto":
        raise ValueError(f"precision must be auto, fp32 or bf16, got {name!r}")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    is_fast = device.type == "cpu" and (_has_amx() or (_has_avx512_bf16() and (training or _is_amd())))
    return "bf16" if is_fast else "fp32"


def _has_amx() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _has_avx512_bf16() -> bool:
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


@cache
def _is_amd() -> bool:
    """Return whether the processor is AMD's: its AVX-512 is twice as fast in bf16 as in fp32."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        told = platform.processor()
    return "AuthenticAMD" in told


def side_by_side(call: Callable[[int], A], count: int, threads: int) -> list[A]:
    """Call with each number below ``count`` on a CPU, several at a time in threads of their own.

    One image of 256 px keeps one thread busy, two threads by two thirds, and more of them by less. Each call
    has its share of the threads, but always a power of 2 of them, as the images' sides are: threads then get
    equal parts, and how many they are decides no last bits.

    Args:
        call: Computes one of them.
        count: How many there are.
        threads: Threads that torch may compute with in all; with 1, the calling thread computes with its own.

    Returns:
        The answers in their order.

    Raises:
        Exception: That of the first call that raises one.
    """
    if threads < 2 or not count:
        return [call(number) for number in range(count)]
    at_once = min(count, threads)
    own = 2 ** ((threads // at_once).bit_length() - 1)
    before, begun = torch.get_num_threads(), threading.Barrier(at_once + 1)

    def begin() -> None:
        torch.get_num_threads()  # at its first call in a thread torch sets it as it is everywhere
        torch.set_num_threads(own)
        begun.wait()

    with ThreadPoolExecutor(at_once, "image", begin) as pool:
        answers = [pool.submit(call, number) for number in range(count)]
        begun.wait()
        torch.set_num_threads(before)  # what one thread sets is what threads that are new begin with
        try:
            return [answer.result() for answer in answers]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def full_fp32() -> Iterator[None]:
    """Keep fp32 exact on a GPU, where torch computes convolutions in TF32, of 10 bits, by default.

    The setting is of the whole process. Models in several threads overlap, so the first one sets it and the
    last one sets it back.
    """
    with _full_fp32:
        yield


class _SharedSetting:
    """A setting of the process that is held while anybody needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                switches = _tf32_switches()
                self._before = [(place, name, getattr(place, name)) for place, name, _ in switches]
                for place, name, value in switches:
                    setattr(place, name, value)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for place, name, value in self._before:
                    setattr(place, name, value)


_full_fp32 = _SharedSetting()


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """List the settings of torch that let fp32 be less, with the values that forbid it.

    torch has two settings for it, and ignores the older one once the other is used.
    """
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    try:
        _ = cudnn.allow_tf32, matmul.allow_tf32
    except RuntimeError:
        return [(place, "fp32_precision", "ieee") for place in (cudnn.conv, cudnn.rnn, matmul)]
    return [(place, "allow_tf32", False) for place in (cudnn, matmul)]
