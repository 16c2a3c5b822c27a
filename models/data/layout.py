"""Find the files of a source, in the layouts of published data sets or our own, and pair them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from decr_scene.models.data.config import DataConfig
from decr_scene.models.errors import TrainingError

CLOUDY_FOLDERS = ("cloudy", "cloud")
CLEAR_FOLDERS = ("clear", "label")
NIR_FOLDER = "nir"
"""Names of folders as data sets are published: RICE, CUHK-CR, ours."""

RASTER_ENDINGS = frozenset({".tif", ".tiff"})
"""Endings of files that may be large, and can be read by window."""

IMAGE_ENDINGS = RASTER_ENDINGS | {".png", ".jpg", ".jpeg", ".webp"}


WHUS2_FOLDERS = (("clearDNclips", "cloudDNclips"), ("clear", "cloud"))
"""Folders of clear and cloudy images of WHUS2-CR: as it is published, and as its own scripts cut it."""

_WHUS2_SIDE = "10m"
"""Folder of the bands blue, green, red and near infrared; those of 20 m and 60 m are not read."""

_SHOWN = 4
"""Greatest number of names in a message."""

_SEASON = re.compile(r"ROIs\d+_[a-z]+_s2(_cloudy)?")
_PATCH = re.compile(r"(?P<season>ROIs\d+_[a-z]+)_s2(?P<cloudy>_cloudy)?_(?P<scene>\d+)_p(?P<patch>\d+)")


class PairPaths(NamedTuple):
    """The files of one pair."""

    name: str
    clear: Path
    cloudy: Path | None
    clear_nir: Path | None = None
    cloudy_nir: Path | None = None

    def files(self) -> list[Path]:
        """List the files that the pair has."""
        return [path for path in self[1:] if isinstance(path, Path)]


def source_files(config: DataConfig, root: Path, bands: int | None = None) -> list[Path]:
    """List every file that a source reads, in order.

    Raises:
        TrainingError: A folder is missing or empty.
    """
    paths, _ = find_pairs(config, root, bands)
    return [file for path in paths for file in path.files()]


def find_pairs(config: DataConfig, root: Path, bands: int | None) -> tuple[list[PairPaths], list[str]]:
    """Find the pairs of a source, and a line for each image that lacks a twin.

    Raises:
        TrainingError: A folder is missing or empty.
    """
    if config.folder is not None and is_sen12mscr(root / config.folder):
        return _sen12mscr(root / config.folder)
    if config.folder is not None and (whus2cr := whus2cr_folders(root / config.folder)) is not None:
        return _whus2cr(root / config.folder, whus2cr)
    clear_place, cloudy_place = _layout(config, root)
    if cloudy_place is None:
        (clear,), wrong = _images((clear_place,))
        return [PairPaths(path.stem, path, None) for path in clear.values()], wrong
    places = (clear_place, cloudy_place, *_near_infrared(config, (clear_place, cloudy_place), bands))
    (clear, cloudy, *nirs), wrong = _images(places)
    folders = dict(zip(places, (clear, cloudy, *nirs), strict=True))
    names = sorted(set().union(*folders.values()))
    wrong += [
        f"{name} has no twin in {' nor '.join(str(folder) for folder in lacking)}"
        for name in names
        if (lacking := [folder for folder, images in folders.items() if name not in images])
    ]
    whole = [name for name in names if all(name in images for images in folders.values())]
    return [PairPaths(n, clear[n], cloudy[n], *(images[n] for images in nirs)) for n in whole], wrong


def is_sen12mscr(place: Path) -> bool:
    """Return whether a folder is SEN12MS-CR as published: ``ROIs1158_spring_s2``, ``.._s2_cloudy`` etc."""
    return place.is_dir() and any(_SEASON.fullmatch(part.name) for part in place.iterdir() if part.is_dir())


def _sen12mscr(place: Path) -> tuple[list[PairPaths], list[str]]:
    """Pair ``ROIs.._s2/s2_1/ROIs.._s2_1_p30.tif`` and its twin in ``ROIs.._s2_cloudy/s2_cloudy_1``.

    The name of a pair is that of its files without ``s2``: ``ROIs1158_spring_1_p30``. Files have all 13 bands
    of Sentinel-2.
    """
    files: dict[str, dict[str, Path]] = {"": {}, "_cloudy": {}}
    for file in sorted(place.glob("ROIs*_s2*/s2*/*.tif")):
        match = _PATCH.fullmatch(file.stem)
        if match is not None:
            name = f"{match['season']}_{match['scene']}_p{match['patch']}"
            files[match["cloudy"] or ""][name] = file
    clear, cloudy = files[""], files["_cloudy"]
    if not clear or not cloudy:
        lacking = "s2_cloudy" if not cloudy else "s2"
        raise TrainingError(
            f"{place} looks like SEN12MS-CR, and has no image under ROIs*_{lacking}/{lacking}_*: "
            "unpack that part beside the others"
        )
    return _paired(clear, cloudy)


def whus2cr_folders(place: Path) -> tuple[str, str] | None:
    """Return the folders of clear and cloudy images of WHUS2-CR, or ``None`` for another layout."""
    for folders in WHUS2_FOLDERS:
        published = folders == WHUS2_FOLDERS[0] and any((place / name).is_dir() for name in folders)
        if published or any((place / name / _WHUS2_SIDE).is_dir() for name in folders):
            return folders
    return None


def _whus2cr(place: Path, folders: tuple[str, str]) -> tuple[list[PairPaths], list[str]]:
    """Pair ``clearDNclips/10m/R075_T50TMK/7.tif`` with its twin in ``cloudDNclips``, as ``R075_T50TMK_7``.

    Files have the four bands of 10 m: blue, green, red and near infrared.

    Raises:
        TrainingError: One of the parts is missing or empty; all of them are named.
    """
    sides = [place / name / _WHUS2_SIDE for name in folders]
    clear, cloudy = (
        {f"{file.parent.name}_{file.stem}": file for file in sorted(side.glob("*/*.tif"))} for side in sides
    )
    faults = [_whus2cr_fault(side) for side, images in zip(sides, (clear, cloudy), strict=True) if not images]
    if faults:
        raise TrainingError(
            f"{place} looks like WHUS2-CR, but {'; '.join(faults)}: unpack all parts of it, as "
            f"{'/'.join((folders[0], _WHUS2_SIDE, 'SCENE', 'NUMBER.tif'))} and the same in {folders[1]}"
        )
    return _paired(clear, cloudy)


def _paired(clear: Mapping[str, Path], cloudy: Mapping[str, Path]) -> tuple[list[PairPaths], list[str]]:
    """Pair images by name, and list those without a twin."""
    wrong = [f"{name} has no cloudy twin" for name in sorted(clear.keys() - cloudy.keys())]
    wrong += [f"{name} has no clear twin" for name in sorted(cloudy.keys() - clear.keys())]
    return [PairPaths(n, clear[n], cloudy[n]) for n in sorted(clear.keys() & cloudy.keys())], wrong


def _whus2cr_fault(side: Path) -> str:
    """Describe why a part has no images: it or its folder is missing, or it has other content."""
    name = f"{side.parent.name}/{side.name}"
    if not side.parent.is_dir():
        return f"there is no folder {side.parent.name}"
    content = sorted(path.name for path in (side if side.is_dir() else side.parent).iterdir())
    listed = ", ".join(content[:_SHOWN]) + (" and others" if len(content) > _SHOWN else "") or "nothing"
    return (
        f"{name} has {listed}, no scene with .tif" if side.is_dir() else f"{name} is missing beside {listed}"
    )


def place_of(config: DataConfig, root: Path) -> Path:
    """Return the name of a source in messages: its folder, or that of its clear images."""
    return root / (config.folder or config.clear or config.masks or "")


def _layout(config: DataConfig, root: Path) -> tuple[Path, Path | None]:
    """Return the folders of the clear images, or of the masks, and of the cloudy images."""
    if config.masks is not None:
        assert config.cloudy is not None, "DataConfig has checked this"
        return root / config.masks, root / config.cloudy
    if config.folder is None:
        assert config.clear is not None, "DataConfig has checked this"
        return root / config.clear, None if config.cloudy is None else root / config.cloudy
    place = root / config.folder
    there = {p.name for p in place.iterdir() if p.is_dir()} if place.is_dir() else set()
    clear, cloudy = ([n for n in names if n in there] for names in (CLEAR_FOLDERS, CLOUDY_FOLDERS))
    if not clear or not cloudy:
        expected = f"{' or '.join(CLOUDY_FOLDERS)}, and {' or '.join(CLEAR_FOLDERS)}"
        raise TrainingError(
            f"{place}: found {', '.join(sorted(there)) or 'no folders'}, expected {expected}: "
            "name the folder that holds them"
        )
    return place / clear[0], place / cloudy[0]


def _near_infrared(config: DataConfig, places: tuple[Path, Path], bands: int | None) -> list[Path]:
    """List folders of a fourth band besides those of three, as CUHK-CR has them, if the source has four.

    Both are listed where one of them is there, so that the other is missed.
    """
    count = bands if config.bands is None else max(config.bands) + 1
    folders = [place.parent / NIR_FOLDER / place.name for place in places]
    return folders if count == 4 and any(folder.is_dir() for folder in folders) else []


def _images(places: Sequence[Path]) -> tuple[list[dict[str, Path]], list[str]]:
    """List images by name, of each folder, or of ``folder/pattern*``, and a line for each name of two files.

    Raises:
        TrainingError: Folders are missing or empty; all of them are named.
    """
    found, doubled, faults = [], [], []
    for place in places:
        folder, pattern = (place.parent, place.name) if "*" in place.name else (place, "*")
        files = sorted(folder.glob(pattern)) if folder.is_dir() else []
        images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
        found.append({path.stem: path for path in images})
        doubled += [
            f"{path.name} and {found[-1][path.stem].name} are both in {folder}"
            for path in images
            if path != found[-1][path.stem]
        ]
        if not found[-1]:
            faults.append(f"{folder}: {'no images' if folder.is_dir() else 'no such folder'}")
    if faults:
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise TrainingError(f"{'; '.join(faults)}: expected images ({endings}), check --data and the names")
    return found, doubled
