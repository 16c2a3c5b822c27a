"""Measure the cloud coverage probability (CCP) of a scene or a data set, and its histogram.

The CCP of an image is the mean over its valid pixels of the detector's probability of cloud or thin cloud.
The histogram has the share of the images in each tenth of coverage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np

from decr_scene.pipeline.errors import OptionError, SceneNotFoundError
from decr_scene.pipeline.files import write_csv, write_whole
from decr_scene.pipeline.look.detection import Coverage, Places
from decr_scene.pipeline.planning.detect_clouds import clouds_of
from decr_scene.pipeline.planning.options import Choices, Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene

ENDINGS = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg", ".webp"})
"""Endings of the images in a folder."""

BINS = 10
BAR = 40
"""Length of the longest bar of the printed histogram, characters."""


@dataclass(frozen=True)
class DatasetCoverage:
    """Coverage of some images, by name.

    Args:
        names: Of the images.
        images: Coverage of each.
    """

    names: tuple[str, ...]
    images: tuple[Coverage, ...]

    @property
    def mean(self) -> float:
        """Average the CCP of the images."""
        return float(np.mean([image.cloud for image in self.images]))

    def shares(self) -> list[float]:
        """Return the share of the images in each tenth of coverage, lowest first.

        They sum to 1.
        """
        counts, _ = np.histogram([image.cloud for image in self.images], bins=BINS, range=(0, 1))
        return [float(share) for share in counts / len(self.images)]

    def to_text(self) -> str:
        """Format the mean, and a histogram of bars."""
        shares = self.shares()
        lines = [f"{len(self.images)} images, mean cloud coverage probability {self.mean:.3f}"]
        for number, share in enumerate(shares):
            bar = "#" * round(BAR * share / max(shares))
            lines.append(f"{number / BINS:4.1f} to {(number + 1) / BINS:.1f}  {100 * share:5.1f} %  {bar}")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write a row per image (``.csv``) or the histogram as a picture (``.png``).

        Raises:
            OptionError: The name ends otherwise.
        """
        if path.suffix.lower() == ".csv":
            self._write_csv(path)
        elif path.suffix.lower() == ".png":
            self._write_png(path)
        else:
            raise OptionError(f"{path} must end in .csv or .png")

    def _write_csv(self, path: Path) -> None:
        rows = (
            [name, *(f"{share:.5f}" for share in (image.cloud, image.restore, image.valid))]
            for name, image in zip(self.names, self.images, strict=True)
        )
        write_csv(path, ["name", "ccp", "cloud_or_shadow", "valid"], rows)

    def _write_png(self, path: Path) -> None:
        from PIL import Image, ImageDraw

        step, height, left, top = 56, 260, 48, 36
        picture = Image.new("L", (left + step * BINS + 24, top + height + 44), 255)
        draw = ImageDraw.Draw(picture)
        shares = self.shares()
        draw.text((left, 10), self.to_text().splitlines()[0], fill=0)
        for number, share in enumerate(shares):
            x, y = left + step * number, top + height * (1 - share / max(shares))
            draw.rectangle((x + 4, round(y), x + step - 4, top + height), fill=120)
            draw.text((x + 12, max(0, round(y) - 13)), f"{100 * share:.1f} %", fill=0)
            draw.text((x - 8, top + height + 6), f"{number / BINS:.1f}", fill=0)
        draw.text((left + step * BINS - 8, top + height + 6), "1.0", fill=0)
        draw.text((left, top + height + 24), "cloud coverage probability; share of the images", fill=0)
        draw.line((left, top + height, left + step * BINS, top + height), fill=0)
        with write_whole(path) as partial:
            picture.save(partial)


def measure_coverage(
    place: str | Path, options: Options | None = None, **named: Unpack[Choices]
) -> DatasetCoverage:
    """Measure the CCP of a scene, or of all images in a folder.

    Args:
        place: A raster, or a folder of rasters.
        options: All options as one value, of which model, device, bands and scale matter.
        **named: Fields of `Options` by name, which take precedence.

    Raises:
        SceneNotFoundError: There is no such file, or no image in the folder.
        SceneError: The model has no detector.
        DecrSceneError: An image cannot be read, or does not have the model's bands.
    """
    place = Path(place)
    chosen = replace(Options.given(options, named), mask="auto", mask_values=None)
    paths = [place]
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS)
        if not paths:
            raise SceneNotFoundError(f"{place}: no images, expected some of {', '.join(sorted(ENDINGS))}")
    with TemporaryDirectory() as folder:
        places = Places.inside(folder)
        coverages = []
        for path in paths:
            with RasterioScene.open(path, chosen.bands) as scene:
                planned = plan_scene(scene, chosen)
                coverages.append(clouds_of(planned, scene, chosen, places)[0])
    return DatasetCoverage(tuple(path.name for path in paths), tuple(coverages))
