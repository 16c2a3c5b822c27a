"""Find the files of a product as its vendor delivers it: a folder, or a raster beside its metadata.

Jilin-1 products are folders such as ``JL1KF01C_PMSL3_20250112084005_200339713_101_0039_001_L1`` that hold
``…_MSS.tif`` and ``…_PAN.tif``, for each a ``…_meta.xml`` and a ``…_rpc.txt``, and previews. GDAL reads the
RPCs. None of the rest is needed: a folder with one raster will do, masks of cloud or quality not counted.
A folder without one raster has one of the layouts of `layouts`, or is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from decr_scene.pipeline.errors import PairError
from decr_scene.pipeline.products.layouts import LISTED, Stack, find_layout, listed

IN_NAME = re.compile(r"^(?:JL1|JXGF|TEE)[A-Z0-9]*_[^_]+_(\d{14})_", re.IGNORECASE)
_NO_SCENES = re.compile(r"(?<![a-z0-9])clouds?(?![a-z0-9])|mask|thumb|browse|preview", re.IGNORECASE)
_NO_BAND = re.compile("cloud", re.IGNORECASE)
"""In the name of a raster of one band, as of the shadows or the share of cloud: it is no panchromatic one."""

_QUALITY = re.compile(
    r"(?<![a-z0-9])(?:udm2?|qa_\w+|qa60|bqa|pixel_qa|scl|cldprb|msk_classi|c?fmask4?|fixedmask|clm)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
_OF_A_FOLDER = re.compile(r"MTD_MSIL\w+\.xml|\w+_MTL\.(?:xml|txt|json)", re.I)
_KINDS = (("mss", r"MSS\d?"), ("mss", "MUX"), ("pan", r"PAN\d?"), ("psh", "PSH"))


@dataclass(frozen=True)
class Product:
    """The files of a product.

    Args:
        scene: The raster to process: multispectral, or sharpened already.
        pan: Its panchromatic companion, if there is one.
        metadata: The XML that goes with ``scene``, if there is one.
        stack: Bands in files of their own, of which ``scene`` is the first; empty: it has all.
    """

    scene: Path
    pan: Path | None = None
    metadata: Path | None = None
    stack: Stack = ()


def find_product(path: str | Path) -> Product:
    """Find the rasters and the metadata of a product.

    Args:
        path: Its folder; or a raster, which is then the scene, other rasters beside it or not.

    Raises:
        PairError: The folder has no raster, or several of one kind, or lacks one of those of its layout; or
            the path is that of its metadata.
    """
    path = Path(path)
    if not path.is_dir():
        if _OF_A_FOLDER.fullmatch(path.name) and path.is_file():
            raise PairError(
                f"{path} is the metadata of a product, expected its folder or a raster: name {path.parent}"
            )
        return Product(path, None, _metadata_of(path))
    if (layout := find_layout(path)) is not None:
        return Product(layout.scene, layout.pan, layout.metadata, layout.stack)
    rasters = _rasters(path)
    if not any(rasters.values()):
        raise PairError(
            f"{path} has no .tif that may be a scene ({_contents(path)}), expected the folder of one "
            "product: name the raster itself"
        )
    for kind in ("mss", "psh"):
        if rasters[kind]:
            scene = _only(path, rasters[kind])
            pan = _only(path, rasters["pan"]) if rasters["pan"] and kind == "mss" else None
            return Product(scene, pan, _metadata_of(scene))
    if len(rasters["pan"]) > 1:
        raise PairError(
            f"{path} has {len(rasters['pan'])} rasters of one band ({listed(rasters['pan'])}), expected "
            "one of all: stack them with gdalbuildvrt -separate, or name one of them"
        )
    raise PairError(f"{path} has only a panchromatic raster ({rasters['pan'][0].name}): its MSS is missing")


def _rasters(folder: Path) -> dict[str, list[Path]]:
    """List the GeoTIFFs in a folder, or else in the folders in it, by kind."""
    rasters: dict[str, list[Path]] = {kind: [] for kind, _ in _KINDS}
    for pattern in ("*", "*/*"):
        for file in sorted(folder.glob(pattern)):
            if file.suffix.lower() in (".tif", ".tiff") and not file.name.startswith("."):
                kind = _kind(file)
                if kind is not None:
                    rasters[kind].append(file)
        if any(rasters.values()):
            break
    return rasters


def _kind(file: Path) -> str | None:
    """Tell the kind of a file by its name, else by its bands, or ``None`` if it is no scene."""
    if _NO_SCENES.search(file.stem) or is_quality_mask(file):
        return None
    named = _named_kind(file.stem)
    if named in ("mss", "psh"):
        return named
    try:
        with rasterio.open(file) as dataset:
            if dataset.count == 1:
                return None if _NO_BAND.search(file.stem) else "pan"
            return "psh" if named == "pan" else "mss"
    except RasterioError:
        return named or "mss"  # it is refused with the reason when it is opened


def _only(folder: Path, files: list[Path]) -> Path:
    if len(files) > 1:
        raise PairError(
            f"{folder} has {len(files)} rasters that may be the scene ({listed(files)}): name one of them"
        )
    return files[0]


def _contents(folder: Path) -> str:
    """List the contents of a folder, for a message."""
    names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in folder.iterdir())
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"in it: {', '.join(names[:LISTED])}{more}" if names else "it is empty"


def is_quality_mask(path: Path) -> bool:
    """Return whether a file has the name of a mask of cloud or quality, as vendors deliver them."""
    return _QUALITY.search(path.stem) is not None


def _metadata_of(raster: Path) -> Path | None:
    """Find ``x_meta.xml``, ``x_metadata.xml`` or ``x.xml`` of ``x.tif``, or the only ``…_meta.xml``."""
    for name in (f"{raster.stem}_meta.xml", f"{raster.stem}_metadata.xml", f"{raster.stem}.xml"):
        if raster.with_name(name).is_file():
            return raster.with_name(name)
    candidates = sorted(raster.parent.glob("*_meta.xml")) if IN_NAME.match(raster.name) else []
    if len(candidates) != 1:
        return None
    named, own = _named_kind(candidates[0].stem), _named_kind(raster.stem)
    return candidates[0] if named is None or named == own else None


def _named_kind(stem: str) -> str | None:
    """Tell the kind of a file by the words of its name."""
    words = re.split(r"[^A-Z0-9]+", stem.upper())
    return next((kind for kind, word in _KINDS if any(re.fullmatch(word, part) for part in words)), None)
