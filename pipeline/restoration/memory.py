"""Divide a batch into parts that memory suffices for: where it does not, half as many images from then on."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from decr_scene.models.arrays import Float

A = TypeVar("A")

_NO_MEMORY = re.compile(
    r"out of memory|STATUS_ALLOC_FAILED|can't allocate memory|not enough memory|MemoryAllocation",
    re.IGNORECASE,
)
"""What torch, cuDNN, cuBLAS and the driver say when memory does not suffice, each in its own class."""


def in_pieces(
    call: Callable[[slice, int], A], count: int, most: int, sizes: dict[str, int], kind: str = ""
) -> list[A]:
    """Call with some images at a time, and with half as many from where memory does not suffice.

    Args:
        call: Takes the slice of images, and the size of a full part.
        count: Images in all.
        most: Greatest number of images at a time.
        sizes: Number of images that memory suffices for, by kind of call; kept up to date.
        kind: Kind of this call.

    Raises:
        Exception: Whatever ``call`` raises, an out-of-memory error included once it is of a single image.
    """
    answers: list[A] = []
    first = 0
    while first < count:
        size = min(sizes.get(kind, most), most)
        part = slice(first, min(first + size, count))
        try:
            answers.append(call(part, size))
            first = part.stop
            continue
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        sizes[kind] = -(-size // 2)  # here the error is gone, which held what there was
        let_memory_go()
    return answers


class Batch(Protocol):
    """What belongs to images, one by one, such as their noise, and can be cut as they are."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> object: ...


def run_in_halves(call: Callable[..., Float], tiles: Float, *others: Batch | None) -> Float:
    """Call with the whole batch, or with its halves where memory does not suffice, and so on down to one.

    Tiles and answer are ``(N, C, h, w)``; of the others each call is given its part. The size that suffices
    is kept by the object whose method is called, if it has ``sizes``.

    Raises:
        Exception: Whatever ``call`` raises, an out-of-memory error included once the batch is a single tile.
    """
    sizes = getattr(getattr(call, "__self__", None), "sizes", {})
    kind = f"batch of {getattr(call, '__name__', '')} {tiles.shape[1:]}"

    def answer(part: slice, size: int) -> Float:
        return call(*(None if batch is None else batch[part] for batch in (tiles, *others)))

    answers = in_pieces(answer, len(tiles), len(tiles), sizes, kind)
    return answers[0] if len(answers) == 1 else np.concatenate(answers)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory did not suffice, of the machine or of its GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or bool(_NO_MEMORY.search(str(error)))
    )


def let_memory_go() -> None:
    """Free the memory of a GPU that torch keeps in pieces that are too small now."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def filled_up(batch: Float, size: int) -> Float:
    """Extend a batch ``(N, C, h, w)`` to ``size`` images with copies of its last one."""
    missing = size - len(batch)
    return batch if missing <= 0 else np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
