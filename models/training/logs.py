"""Write the logs of a run: a table, curves for TensorBoard, and pictures of its answers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decr_scene.models.arrays import Float
from decr_scene.models.data.pictures import contact_sheet, display_bands

METRICS = "metrics.csv"
SAMPLES = "samples"
CURVE_EVERY = 10
"""Steps between two points of a curve."""


class Sample(NamedTuple):
    """Cloudy image, answer and truth, ``(C, H, W)`` in [-1, 1] each."""

    cloudy: Float
    answer: Float
    truth: Float


class RunLog:
    """Writes into a run folder, and first removes what an interrupted run wrote after its last checkpoint.

    Args:
        folder: The run folder.
        step: The step at which the run begins or continues.
        bands: Names of the bands, to show red, green and blue as such.
        curves: Write for TensorBoard, if it is installed.
        pictures: Write pictures of samples, if Pillow is installed.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        bands: Sequence[str] = (),
        curves: bool = False,
        pictures: bool = False,
    ) -> None:
        self.folder = folder
        self.wants_pictures = pictures and find_spec("PIL") is not None
        self._display = display_bands(bands)
        self._curves = _curves(folder, step) if curves and find_spec("tensorboard") is not None else None
        self._begins = step
        self._has_rows = False

    def curve(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a point to each curve, every `CURVE_EVERY` steps."""
        if self._curves is not None and step % CURVE_EVERY == 0:
            for name, value in figures.items():
                self._curves.add_scalar(f"training/{name}", value, step)

    def has_row(self, step: int) -> bool:
        """Return whether the table has the row of a step, whole."""
        path = self.folder / METRICS
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return any(row.startswith(f"{step},") and row.endswith("\n") for row in rows)

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a row to the table, and its figures to the curves."""
        path = self.folder / METRICS
        if not self._has_rows:
            _drop_later_rows(path, self._begins)
            self._has_rows = True
        fresh = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *figures])
            writer.writerow([step, *(f"{value:.5f}" for value in figures.values())])
        if self._curves is not None:
            for name, value in figures.items():
                self._curves.add_scalar(f"validation/{name}", value, step)
            self._curves.flush()

    def picture(self, step: int, samples: Sequence[Sample]) -> None:
        """Write the samples below one another, each as cloudy, answer, truth from left to right."""
        from PIL import Image

        picture = contact_sheet([[self._shown(image) for image in sample] for sample in samples])
        path = self.folder / SAMPLES / f"{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
        if self._curves is not None:
            self._curves.add_image("cloudy, answer, truth", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        if self._curves is not None:
            self._curves.close()

    def _shown(self, image: Float) -> NDArray[np.uint8]:
        bands = self._display if max(self._display) < len(image) else (0, 0, 0)
        shown = np.clip(np.rint((image[list(bands)] + 1) * 127.5), 0, 255)
        return np.moveaxis(shown, 0, 2).astype(np.uint8)


def _drop_later_rows(table: Path, step: int) -> None:
    """Drop rows of later steps, and a last one without its end: the run is about to write them again."""
    if not table.exists():
        return
    head, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
    if len(kept) < len(rows):
        table.write_text(head + "".join(kept), encoding="utf-8")


def _curves(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step)
