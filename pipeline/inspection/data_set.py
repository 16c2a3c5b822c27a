"""Inspect a folder of pairs: the published data set, its parts, and images that are in it more than once."""

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
    whus2cr_folders,
)
from decr_scene.models.errors import DecrSceneError, TrainingError
from decr_scene.pipeline.raster.images import RasterImage, read_image

TRAINING = "train"
PARTS = (TRAINING, "val", "test")
OFFICIAL = "official_{part}_names.txt"
"""Name of a list of the files of a part, in the folder of the parts or of the pairs."""

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
        """Return whether they are of two parts, so that an image of the training is also in the test."""
        return self.one.partition("/")[0] != self.other.partition("/")[0]


@dataclass(frozen=True)
class DataSet:
    """A folder of pairs.

    Args:
        kind: The published data set whose layout it has.
        parts: Pairs by part; ``all`` where there are none.
        bands: Bands of an image.
        sizes: Height and width of the images, each once.
        official: By part, the number of pairs on its official list, and of those in other parts.
        twins: Images that are twice in it.
    """

    kind: str
    parts: dict[str, int]
    bands: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    official: dict[str, tuple[int, int]]
    twins: tuple[Twins, ...]

    def to_text(self) -> str:
        """Format it as a few lines."""
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
        """Return all fields as plain values."""
        return asdict(self)


def inspect_data_set(place: Path) -> DataSet:
    """Read every pair of a folder.

    Args:
        place: A data set as published, whole or one part of it.

    Raises:
        TrainingError: It holds no pairs, or some that cannot be used; the message lists all of them.
    """
    if not place.is_dir():
        raise TrainingError(f"{place}: no such folder, expected one of pairs")
    folders = folders_of(place)
    pairs: dict[str, list[PairPaths]] = {}
    faults: list[str] = []
    for part, folder in folders.items():
        try:
            pairs[part], unpaired = find_pairs(DataConfig(folder="."), folder, _band_count(folder))
            faults += [f"{part}: {text}" for text in unpaired]
        except TrainingError as error:
            faults.append(str(error))
    images = [image for part, of_part in pairs.items() for image in _read_images(part, of_part, faults)]
    faults += _parts_of_training(images)
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise TrainingError(
            f"{place}: {len(faults)} {'thing is' if len(faults) == 1 else 'things are'} wrong: "
            f"{'; '.join(faults[:SHOWN])}{more}; mend them or take them out"
        )
    return DataSet(
        kind_of(next(iter(folders.values())), len(folders) > 1),
        {part: len(of_part) for part, of_part in pairs.items()},
        tuple(sorted({image.shape[0] for image in images})),
        tuple(sorted({image.shape[1:] for image in images})),
        dict(_official(place, pairs)),
        tuple(_twins(images)),
    )


def folders_of(place: Path) -> dict[str, Path]:
    """Return the folders of the parts of a data set, or the one that holds all pairs."""
    return {part: place / part for part in PARTS if (place / part).is_dir()} or {"all": place}


def kind_of(folder: Path, parted: bool) -> str:
    """Recognise the published data set of a folder of pairs by its layout.

    SEN12MS-CR by its seasons, WHUS2-CR by its folders ``10m``, CUHK-CR by ``nir`` beside the pairs, RICE2 by
    ``mask``, RICE1 by ``cloud`` and ``label`` alone, T-Cloud by the same in ``train`` and ``test``.
    """
    if is_sen12mscr(folder):
        return "SEN12MS-CR"
    if whus2cr_folders(folder) is not None:
        return "WHUS2-CR"
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    if NIR_FOLDER in names:
        return "CUHK-CR"
    if {"cloud", "label", "mask"} <= names:
        return "RICE2"
    if {"cloud", "label"} <= names:
        return "T-Cloud" if parted else "RICE1"
    return "pairs"


@dataclass(frozen=True)
class _Image:
    name: str
    shape: tuple[int, int, int]
    digest: str
    small: Float


def _band_count(folder: Path) -> int | None:
    return 4 if (folder / NIR_FOLDER).is_dir() else None


def _read_images(part: str, pairs: Sequence[PairPaths], faults: list[str]) -> Iterator[_Image]:
    """Yield the clear image of each pair.

    Unusable pairs are added to ``faults``.
    """
    for pair in pairs:
        try:
            clear = read_image(pair.clear, pair.cloudy)  # which reads the cloudy one for its scaling
            cloudy = clear.shape if pair.cloudy is None else RasterImage.open(pair.cloudy).shape
        except DecrSceneError as error:
            faults.append(f"{part}/{pair.name}: {error}")
            continue
        if clear.shape != cloudy:
            faults.append(f"{part}/{pair.name}: cloudy is {cloudy}, clear is {clear.shape}")
            continue
        bands = len(clear) + (pair.clear_nir is not None)
        digest = hashlib.sha256(clear.tobytes()).hexdigest()
        yield _Image(f"{part}/{pair.name}", (bands, *clear.shape[1:]), digest, _small(clear))


def _parts_of_training(images: Sequence[_Image]) -> Iterator[str]:
    """Yield a line for each part whose clear images are all among those of the training."""
    digests: dict[str, set[str]] = {}
    for image in images:
        digests.setdefault(image.name.partition("/")[0], set()).add(image.digest)
    trained = digests.pop(TRAINING, set())
    for part, of_part in digests.items():
        if of_part <= trained:
            yield f"{part} has no clear image that is not in {TRAINING}, too: its figures would say nothing"


def _small(image: Float) -> Float:
    """Return a grey ``(SMALL ** 2,)`` of an image ``(C, H, W)``, of mean 0 and length 1, or zeros if flat."""
    grey = image.mean(axis=0)
    rows, cols = (np.linspace(0, side, SMALL + 1).astype(int) for side in grey.shape)
    cells = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), cols[:-1], axis=1)
    small = cells / np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(cols), 1))
    if small.std() < FLAT:
        return np.zeros(SMALL * SMALL, np.float32)
    flat = (small - small.mean()).ravel()
    return (flat / np.linalg.norm(flat)).astype(np.float32)


def _twins(images: Sequence[_Image]) -> Iterator[Twins]:
    """Yield every two images that are the same or alike."""
    if not images:
        return
    small, digests = np.stack([image.small for image in images]), np.array([image.digest for image in images])
    for number, image in enumerate(images):
        same = digests[number + 1 :] == image.digest
        alike = small[number + 1 :] @ image.small > ALIKE
        for offset in np.flatnonzero(same | alike).tolist():
            yield Twins(image.name, images[number + 1 + offset].name, bool(same[offset]))


def _official(place: Path, pairs: dict[str, list[PairPaths]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Count, by part, the pairs on official lists, and those of them in other parts."""
    for part in PARTS:
        path = place / OFFICIAL.format(part=part)
        if path.is_file():
            listed = {
                Path(line.strip()).stem
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.strip()
            }
            listed_pairs = {
                (own, pair.name) for own, of_part in pairs.items() for pair in of_part if pair.name in listed
            }
            yield part, (len(listed_pairs), sum(own != part for own, _ in listed_pairs))
