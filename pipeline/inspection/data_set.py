"""What a folder of pairs is: the published data set, its parts, and images that are in it more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decr_scene.models.arrays import Float
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import (
    NIR_FOLDER,
    PairPaths,
    find_pairs,
    is_sen12mscr,
)
from decr_scene.models.errors import DecrSceneError, TrainingError
from decr_scene.pipeline.raster.images import RasterImage, read_image

PARTS = ("train", "val", "test")
OFFICIAL = "official_{part}_names.txt"
"""A list of file names beside the parts, or beside the pairs, that says which of them are the part."""

ALIKE = 0.995
"""Correlation of two small grey versions of clear images from which on they are near-duplicates."""

SMALL = 32
"""Side of those, px."""

FLAT = 0.01
"""Standard deviation, of 2 from black to white, below which an image is alike to any other flat one."""

SHOWN = 20


@dataclass(frozen=True)
class Twins:
    """Two images of one data set that are the same, or nearly.

    Args:
        one: ``part/name``.
        other: ``part/name``.
        same: Every pixel is; else they are alike.
    """

    one: str
    other: str
    same: bool

    def across(self) -> bool:
        """Whether they are of two parts: what is trained on is then measured on."""
        return self.one.partition("/")[0] != self.other.partition("/")[0]


@dataclass(frozen=True)
class DataSet:
    """A folder of pairs.

    Args:
        kind: The data set that it is laid out as.
        parts: Pairs by part; ``all`` where there are none.
        bands: Bands of an image.
        sizes: Height and width of the images, each once.
        official: Pairs that an official list of names gives a part, and how many of them lie elsewhere.
        twins: Images that are twice in it.
    """

    kind: str
    parts: dict[str, int]
    bands: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    official: dict[str, tuple[int, int]]
    twins: tuple[Twins, ...]

    def to_text(self) -> str:
        """A few lines for people."""
        parts = ", ".join(f"{name} {count}" for name, count in self.parts.items())
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        lines = [f"{self.kind}: {parts} pairs; {' or '.join(map(str, self.bands))} bands; {sizes} px"]
        for part, (listed, elsewhere) in self.official.items():
            lines.append(f"official list of {part}: {listed} are here, {elsewhere} of them not in {part}")
        across = [twins for twins in self.twins if twins.across()]
        lines.append(
            f"images twice: {len(self.twins)}, across parts {len(across)}"
            + (": figures of such a test part are too good" if across else "")
        )
        lines += [
            f"  {twins.one} {'is' if twins.same else 'is nearly'} {twins.other}"
            for twins in (across or list(self.twins))[:SHOWN]
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def inspect_data_set(place: Path) -> DataSet:
    """Look at every pair of a folder.

    Args:
        place: A data set as published, whole or one part of it.

    Raises:
        TrainingError: It holds no pairs, or some that cannot be used; the message lists all of them.
    """
    if not place.is_dir():
        raise TrainingError(f"{place}: no such folder, expected one of pairs")
    folders = {part: place / part for part in PARTS if (place / part).is_dir()} or {"all": place}
    pairs: dict[str, list[PairPaths]] = {}
    wrong: list[str] = []
    for part, folder in folders.items():
        try:
            pairs[part], lacking = find_pairs(DataConfig(folder="."), folder, _bands_wanted(folder))
            wrong += [f"{part}: {text}" for text in lacking]
        except TrainingError as error:
            wrong.append(str(error))
    images = [image for part, found in pairs.items() for image in _looked_at(part, found, wrong)]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise TrainingError(
            f"{place}: {len(wrong)} things are wrong: {'; '.join(wrong[:SHOWN])}{more}; "
            "mend them or take them out"
        )
    return DataSet(
        kind_of(next(iter(folders.values())), len(folders) > 1),
        {part: len(found) for part, found in pairs.items()},
        tuple(sorted({image.shape[0] for image in images})),
        tuple(sorted({image.shape[1:] for image in images})),
        dict(_official(place, pairs)),
        tuple(_twins(images)),
    )


def kind_of(folder: Path, parted: bool) -> str:
    """The published data set that a folder of pairs is laid out as.

    By what lies there: SEN12MS-CR by its seasons, CUHK-CR by ``nir`` beside the pairs, RICE2 by ``mask``,
    RICE1 by ``cloud`` and ``label`` alone, T-Cloud by the same in ``train`` and ``test``.
    """
    if is_sen12mscr(folder):
        return "SEN12MS-CR"
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    if NIR_FOLDER in there:
        return "CUHK-CR"
    if {"cloud", "label", "mask"} <= there:
        return "RICE2"
    if {"cloud", "label"} <= there:
        return "T-Cloud" if parted else "RICE1"
    return "pairs"


@dataclass(frozen=True)
class _Image:
    name: str
    shape: tuple[int, int, int]
    digest: str
    small: Float


def _bands_wanted(folder: Path) -> int | None:
    return 4 if (folder / NIR_FOLDER).is_dir() else None


def _looked_at(part: str, pairs: Sequence[PairPaths], wrong: list[str]) -> Iterator[_Image]:
    """The clear image of each pair; what cannot be used is told in ``wrong``."""
    for pair in pairs:
        try:
            clear = read_image(pair.clear, pair.cloudy)  # which reads the cloudy one for its scaling
            cloudy = clear.shape if pair.cloudy is None else RasterImage.open(pair.cloudy).shape
        except DecrSceneError as error:
            wrong.append(f"{part}/{pair.name}: {error}")
            continue
        if clear.shape != cloudy:
            wrong.append(f"{part}/{pair.name}: cloudy is {cloudy}, clear is {clear.shape}")
            continue
        bands = len(clear) + (pair.clear_nir is not None)
        digest = hashlib.sha256(clear.tobytes()).hexdigest()
        yield _Image(f"{part}/{pair.name}", (bands, *clear.shape[1:]), digest, _small(clear))


def _small(image: Float) -> Float:
    """A grey version, zero in the mean and of length one; zeros where the image is flat."""
    grey = image.mean(axis=0)
    rows, cols = (np.linspace(0, side, SMALL + 1).astype(int) for side in grey.shape)
    cells = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), cols[:-1], axis=1)
    small = cells / np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(cols), 1))
    if small.std() < FLAT:
        return np.zeros(SMALL * SMALL, np.float32)
    flat = (small - small.mean()).ravel()
    return (flat / np.linalg.norm(flat)).astype(np.float32)


def _twins(images: Sequence[_Image]) -> Iterator[Twins]:
    """Every two images that are the same or alike."""
    if not images:
        return
    small, digests = np.stack([image.small for image in images]), np.array([image.digest for image in images])
    for number, image in enumerate(images):
        same = digests[number + 1 :] == image.digest
        alike = small[number + 1 :] @ image.small > ALIKE
        for offset in np.flatnonzero(same | alike).tolist():
            yield Twins(image.name, images[number + 1 + offset].name, bool(same[offset]))


def _official(place: Path, pairs: dict[str, list[PairPaths]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """What official lists of names say of the pairs that are here."""
    for part in PARTS:
        path = place / OFFICIAL.format(part=part)
        if path.is_file():
            listed = {Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()}
            here = {(own, pair.name) for own, found in pairs.items() for pair in found if pair.name in listed}
            yield part, (len(here), sum(own != part for own, _ in here))
