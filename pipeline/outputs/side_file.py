"""A file beside an output: its role, its name, whether it can be made of a scene, and how.

A new one is a class of its own and a line in `pipeline.outputs.names.SIDE_FILES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.writing.origin import Companion


@dataclass(frozen=True)
class FinishedRun:
    """A run whose rasters are finished, for the files written from them.

    Args:
        scene: The input.
        bands: Names of its bands.
        model: Name of the model, or path of its file.
        output: The output.
        paths: The side files by role: those that are written, and the report, which is the last.
        origin: Name of the file that the scene comes from.
        acquired: Acquisition time by the vendor's metadata (ISO 8601, UTC), if they have one.
        item_acquired: By the STAC Item that was the input, or a first and a last one, separated by a slash.
    """

    scene: RasterioScene
    bands: tuple[str, ...]
    model: str
    output: Path
    paths: Mapping[str, Path]
    origin: Path
    acquired: str | None = None
    item_acquired: str | None = None


class SideFile(ABC):
    """A file beside an output.

    Attributes:
        role: What the report and the STAC Item call it.
        ending: What its name has after the stem of the output's.
        option: The option that requests it; ``None``: it is always written.
    """

    role: ClassVar[str]
    ending: ClassVar[str] = ""
    option: ClassVar[str | None] = None

    @classmethod
    def requested(cls, options: Mapping[str, Any]) -> Self | None:
        """Make one if the options ask for it."""
        return cls() if cls.option is None or options[cls.option] else None

    def path(self, output: Path) -> Path:
        """Name the file that belongs to an output."""
        return output.with_name(output.stem + self.ending)

    def check(self, scene: RasterioScene) -> None:
        """Refuse a scene that it cannot be made of, before any work is done.

        Raises:
            DecrSceneError: It cannot be made of this scene.
        """
        return


class SideRaster(SideFile):
    """A raster that is written with the output, block by block."""

    @abstractmethod
    def companion(self, scene: RasterioScene) -> Companion:
        """Describe its bands."""


class SideDocument(SideFile):
    """A file that is written when all rasters are finished."""

    @abstractmethod
    def write(self, run: FinishedRun, path: Path) -> None:
        """Write it under a hidden name, from which it is moved to its own.

        Args:
            run: The finished run.
            path: The hidden name, with the same suffix.
        """
