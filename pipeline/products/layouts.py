"""Find the rasters in folders of vendors' layouts: bands in files of their own, tiles, stores.

The layouts: Landsat (Collection 1 and 2, level 1 and 2), Sentinel-2 (SAFE), DIMAP (Pleiades, SPOT) and Zarr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decr_scene.pipeline.errors import PairError

Stack = tuple[tuple[str, Path], ...]
"""Names of bands, and the files that hold them."""

_OF_OLI = {"2": "blue", "3": "green", "4": "red", "5": "nir"}
_OF_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir"}
_OF_MSI = {"02": "blue", "03": "green", "04": "red", "08": "nir"}
_LANDSAT = re.compile(
    r"(?P<scene>L[COTE]0?(?P<number>[45789])\w*?)_(?P<kind>SR_|sr_band|B)B?(?P<band>\d)\.tiff?", re.I
)
_COLLECTION = re.compile(r"(L[COTEM]\d\d)_\w{4}_(\d{6})_(\d{8})_\d{8}_", re.I)
_SENTINEL = re.compile(r"(?P<scene>\w+?)_B(?P<band>02|03|04|08)(?:_10m)?\.(?:jp2|tiff?)", re.I)
_OF_SENTINEL = re.compile(r"(T\d\d[A-Z]{3}_\d{8}T\d{6}|S2[A-D]_.*)", re.I)
_IN_SAFE = (
    "*",
    "R10m/*",
    "IMG_DATA/*",
    "IMG_DATA/R10m/*",
    "GRANULE/*/IMG_DATA/*",
    "GRANULE/*/IMG_DATA/R10m/*",
)
_TILE = re.compile(r"_R\d+C\d+\.(tiff?|jp2)$", re.I)
_DIM = re.compile(r"DIM_.*\.XML$", re.I)
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


LISTED = 4
"""Names that a message has at the most."""


@dataclass(frozen=True)
class Layout:
    """The files in a folder of one of the layouts.

    Args:
        scene: The raster, or the first of the stack.
        stack: Bands in files of their own; empty: there is one raster.
        pan: The panchromatic raster.
        metadata: Its metadata file.
    """

    scene: Path
    stack: Stack = ()
    pan: Path | None = None
    metadata: Path | None = None


def find_layout(folder: Path) -> Layout | None:
    """Find the files of a folder by its layout, or ``None`` if it has no known one.

    Raises:
        PairError: It has one, but a file is missing, or there are several.
    """
    if folder.suffix.lower() == ".zarr" or any((folder / name).is_file() for name in _ZARR):
        return Layout(folder)
    found: list[Layout] = []
    faults: list[PairError] = []
    for find in (_landsat, _sentinel, _dimap):
        try:
            layout = find(folder)
        except PairError as error:
            faults.append(error)
        else:
            found += [] if layout is None else [layout]
    if len(found) > 1:
        names = " and ".join(str(layout.scene.relative_to(folder)) for layout in found)
        raise PairError(f"{folder} has products of several kinds ({names}), expected one: name its folder")
    if not found and faults:
        raise faults[0]
    return found[0] if found else None


def _landsat(folder: Path) -> Layout | None:
    levels = ([m for path in _files(folder, (p,)) if (m := _matched(_LANDSAT, path))] for p in ("*", "*/*"))
    matches = next((found for found in levels if found), None)
    if matches is None:
        return None
    scenes = {_of_one_date(match["scene"]): match["scene"] for _, match in matches}
    if len(scenes) > 1:
        raise _several(folder, "Landsat", sorted(scenes.values()))
    kinds = {match["kind"].lower() for _, match in matches}
    kind = next(kind for kind in ("sr_", "sr_band", "b") if kind in kinds)
    chosen = [(path, match) for path, match in matches if match["kind"].lower() == kind]
    roles = _OF_OLI if chosen[0][1]["number"] in "89" else _OF_TM
    stack = _stack(folder, "Landsat", chosen, roles)
    own = stack[0][1].with_name(f"{chosen[0][1]['scene']}_MTL.xml")
    return Layout(stack[0][1], stack, metadata=own if own.is_file() else _only_one(own.parent, "*_MTL.xml"))


def _of_one_date(scene: str) -> str:
    """Return what the names of all levels of a Landsat scene have in common: sensor, path, row and date."""
    match = _COLLECTION.match(scene)
    return "_".join(match.groups()).upper() if match else scene.upper()


def _sentinel(folder: Path) -> Layout | None:
    found = [matches for place in (folder, *_glob(folder, "*.SAFE")) if (matches := _granule(place))]
    if not found:
        is_safe = folder.suffix.upper() == ".SAFE" and _first(folder, "MTD_MSIL*.xml") is not None
        if is_safe and not _glob(folder, "*.tif*"):
            raise PairError(
                f"{folder} has none of the Sentinel-2 bands of 10 m ({', '.join(_OF_MSI)}): get the product "
                "whole, or name a raster of it"
            )
        return None
    if len(found) > 1:
        names = sorted({match["scene"] for matches in found for _, match in matches})
        raise _several(folder, "Sentinel-2", names)
    stack = _stack(folder, "Sentinel-2", found[0], _OF_MSI)
    root = next((up for up in stack[0][1].absolute().parents if up.suffix.upper() == ".SAFE"), folder)
    return Layout(stack[0][1], stack, metadata=_first(root, "MTD_MSIL*.xml"))


def _granule(place: Path) -> list[tuple[Path, re.Match[str]]]:
    """List the bands of a folder that is a SAFE or a part of one."""
    for pattern in _IN_SAFE:
        matches = [match for path in _files(place, (pattern,)) if (match := _matched(_SENTINEL, path))]
        matches = [(path, match) for path, match in matches if _OF_SENTINEL.match(match["scene"])]
        if matches:
            return matches
    return []


def _dimap(folder: Path) -> Layout | None:
    files = list(_files(folder, ("*", "*/*")))
    documents = [path for path in files if _DIM.match(path.name)]
    tiles = [path for path in files if _TILE.search(path.name)]
    if not documents:
        if len(tiles) > 1:
            raise PairError(
                f"{folder} has {len(tiles)} tiles of one image ({listed(tiles)}) and no DIM_….XML that "
                "joins them: get it, or join them with gdalbuildvrt"
            )
        return None
    pan = [path for path in documents if re.search(r"_(P|PAN)_", path.name.upper())]
    scenes = [path for path in documents if path not in pan] or pan
    if len(scenes) > 1 or len(pan) > 1:
        raise PairError(
            f"{folder} has several images ({listed(documents)}): name the DIM_….XML of one of them"
        )
    return Layout(scenes[0], pan=pan[0] if pan and pan != scenes else None, metadata=scenes[0])


def _stack(
    folder: Path, vendor: str, matches: list[tuple[Path, re.Match[str]]], roles: dict[str, str]
) -> Stack:
    """Return the bands of one scene, blue first."""
    scenes = sorted({match["scene"].upper(): match["scene"] for _, match in matches}.values())
    if len(scenes) > 1:
        raise _several(folder, vendor, scenes)
    files: dict[str, Path] = {}
    for path, match in matches:
        role = roles.get(match["band"])
        if role is not None and files.setdefault(role, path) != path:
            raise PairError(
                f"{folder} has two files of {vendor} band {role}, {files[role]} and {path}: name the folder "
                "of one"
            )
    lacking = [f"{number} ({role})" for number, role in roles.items() if role not in files]
    if lacking:
        raise PairError(
            f"{folder} lacks the {vendor} band {', '.join(lacking)} of {scenes[0]}: get it, or stack "
            "what is there with gdalbuildvrt -separate and name its bands with --bands"
        )
    return tuple((role, files[role]) for role in roles.values())


def _several(folder: Path, vendor: str, scenes: list[str]) -> PairError:
    """Say that a folder has several scenes, of which one may be in several levels or copies."""
    what = f"{len(scenes)} {vendor} scenes" if len(scenes) > 1 else f"several products of the {vendor} scene"
    return PairError(f"{folder} has {what} ({', '.join(scenes[:LISTED])}), expected one: name its folder")


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (
            path for path in _glob(folder, pattern) if not path.name.startswith(".") and path.is_file()
        )


def _matched(pattern: re.Pattern[str], path: Path) -> tuple[Path, re.Match[str]] | None:
    match = pattern.fullmatch(path.name)
    return None if match is None else (path, match)


def _first(folder: Path, pattern: str) -> Path | None:
    return next(iter(_glob(folder, pattern)), None)


def _only_one(folder: Path, pattern: str) -> Path | None:
    found = _glob(folder, pattern)
    return found[0] if len(found) == 1 else None


def _glob(folder: Path, pattern: str) -> list[Path]:
    """List what matches a pattern, in order, whatever the case of its letters: copies may have lost that."""
    of_any_case = re.sub("[A-Za-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", pattern)
    return sorted(folder.glob(of_any_case))


def listed(files: list[Path]) -> str:
    """Format the names of the first files for a message."""
    return ", ".join(path.name for path in files[:LISTED])
