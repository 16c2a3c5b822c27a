"""What lies beside an output, and what it is called: all names come from the output's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.files import check_target


@dataclass(frozen=True)
class Beside:
    """The files beside an output.

    Args:
        output: The output.
        uncertainty: Whether there is a raster of uncertainty.
        stac: Whether there is a STAC Item.
        quicklook: Whether there is a picture.
        polygons: A vector file, which may lie anywhere.

    Raises:
        OptionError: Two of them have the same name.
    """

    output: Path
    uncertainty: bool = False
    stac: bool = False
    quicklook: bool = False
    polygons: Path | None = None

    def __post_init__(self) -> None:
        names = [os.path.abspath(path) for path in (self.output, *self.paths.values())]
        if twice := {name for name in names if names.count(name) > 1}:
            raise OptionError(f"{min(twice)} would be two files of one run: choose another name")

    @property
    def paths(self) -> dict[str, Path]:
        """What they are, and where."""
        stem, wanted = (
            self.output.stem,
            {
                "report": f"{self.output.stem}.json",
                "provenance": f"{self.output.stem}_provenance.tif",
                "style": f"{self.output.stem}.qml",
                "provenance_style": f"{self.output.stem}_provenance.qml",
            },
        )
        if self.uncertainty:
            wanted["uncertainty"] = f"{stem}_uncertainty.tif"
        if self.stac:
            wanted["stac"] = f"{stem}.stac.json"
        if self.quicklook:
            wanted["quicklook"] = f"{stem}.png"
        paths = {role: self.output.with_name(name) for role, name in wanted.items()}
        return paths if self.polygons is None else paths | {"polygons": self.polygons}

    @staticmethod
    def all_of(output: Path) -> Beside:
        """Whatever could lie beside an output under a name of its own."""
        return Beside(output, uncertainty=True, stac=True, quicklook=True)

    def check(self, source: Path, overwrite: bool, going_on: bool) -> None:
        """Refuse before any work is done.

        Args:
            source: The input.
            overwrite: Whether files that exist may be replaced.
            going_on: Whether an interrupted run of the same output goes on: it may have finished its rasters.

        Raises:
            OutputError: As `check_target`.
        """
        for role, path in self.paths.items():
            check_target(source, path, overwrite or (going_on and role in ("provenance", "uncertainty")))
