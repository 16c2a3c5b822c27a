"""Open model files, and read their configuration without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from decr_scene.models.checkpoints.fold import FOLD_ENDING, Fold, read_fold
from decr_scene.models.errors import CheckpointError

METADATA_KEY = "decr_scene"
"""Of the configuration in the metadata of a model file."""


@dataclass(frozen=True)
class Summary:
    """A model as a list shows it.

    Args:
        bands: The bands it takes, in order.
        about: One line about it.
        fold: The fold that it is; ``None``: it has weights of its own.
    """

    bands: tuple[str, ...]
    about: str
    fold: Fold | None = None


def fold_of(path: str | Path) -> Fold | None:
    """Read the fold that a model is described as, or ``None`` if its file has weights.

    Raises:
        CheckpointError: It is a wrong description of one.
    """
    return read_fold(path) if Path(path).suffix == FOLD_ENDING else None


def read_summary(path: Path) -> Summary:
    """Read bands and about of a model file, or of a fold.

    Raises:
        CheckpointError: There is no such file, it is damaged or of another kind.
    """
    fold = fold_of(path)
    weights = path if fold is None else fold.model
    try:
        values = json.loads(metadata_text(weights))
        bands, about = tuple(values["bands"]), values.get("info", {}).get("about", "")
        if fold is not None:
            bands, about = tuple(band for band in bands if band != fold.band), fold.about_line(values["name"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{weights} has an unreadable configuration ({type(error).__name__}: {error}): copy it again"
        ) from error
    return Summary(bands, about, fold)


def metadata_text(path: str | Path) -> str:
    """Read the configuration in a file of weights, as text.

    Raises:
        CheckpointError: There is no such file, it is damaged or of another kind.
    """
    with opened(path, "np") as file:
        text: str | None = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a model of this program: import it first"
        )
    return text


@contextmanager
def opened(path: str | Path, framework: str = "pt") -> Iterator[Any]:
    """Open a file of weights for a ``with``.

    Args:
        path: The file.
        framework: ``pt`` for tensors of torch; ``np`` for its metadata alone, without torch.

    Raises:
        CheckpointError: There is no such file, or it is none, or a damaged one.
    """
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        if Path(path).exists():  # safetensors says this of a file without read permission, too
            raise CheckpointError(f"{path} cannot be read: change its permissions") from None
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is no model file, or a damaged one ({error}): copy it again"
        ) from error
