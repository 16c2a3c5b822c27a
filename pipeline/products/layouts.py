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
    for find in (_landsat, _sentinel, _dimap):
        if (layout := find(folder)) is not None:
            return layout
    return None


def _landsat(folder: Path) -> Layout | None:
    levels = ([m for path in _files(folder, (p,)) if (m := _matched(_LANDSAT, path))] for p in ("*", "*/*"))
    matches = next((found for found in levels if found), None)
    if matches is None:
        return None
    kinds = {match["kind"].lower() for _, match in matches}
    kind = next(kind for kind in ("sr_", "sr_band", "b") if kind in kinds)
    chosen = [(path, match) for path, match in matches if match["kind"].lower() == kind]
    roles = _OF_OLI if chosen[0][1]["number"] in "89" else _OF_TM
    stack = _stack(folder, "Landsat", chosen, roles)
    return Layout(stack[0][1], stack, metadata=_first(stack[0][1].parent, "*_MTL.xml"))


def _sentinel(folder: Path) -> Layout | None:
    for pattern in (*_IN_SAFE, *(f"*.SAFE/{inside}" for inside in _IN_SAFE)):
        files = _files(folder, (pattern,))
        matches = [match for path in files if (match := _matched(_SENTINEL, path))]
        matches = [(path, match) for path, match in matches if _OF_SENTINEL.match(match["scene"])]
        if matches:
            stack = _stack(folder, "Sentinel-2", matches, _OF_MSI)
            root = next((up for up in stack[0][1].parents if up.suffix.upper() == ".SAFE"), folder)
            return Layout(stack[0][1], stack, metadata=_first(root, "MTD_MSIL*.xml"))
    return None


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
    scenes = sorted({match["scene"] for _, match in matches})
    if len(scenes) > 1:
        raise PairError(
            f"{folder} has {len(scenes)} {vendor} scenes ({', '.join(scenes[:LISTED])}), expected one: "
            "name its folder"
        )
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


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (
            path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".") and path.is_file()
        )


def _matched(pattern: re.Pattern[str], path: Path) -> tuple[Path, re.Match[str]] | None:
    match = pattern.fullmatch(path.name)
    return None if match is None else (path, match)


def _first(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)


def listed(files: list[Path]) -> str:
    """Format the names of the first files for a message."""
    return ", ".join(path.name for path in files[:LISTED])
