"""Resolve an input to the raster to open: the raster itself, that of a folder, or a pair, sharpened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from decr_scene.pipeline.errors import PairError, SceneNotFoundError
from decr_scene.pipeline.files import check_target, journal_path, source_path, vrt_path
from decr_scene.pipeline.inputs.addresses import last_part, secrets_hidden
from decr_scene.pipeline.inputs.names import for_gdal, full_name, is_gdal_name, local_files, local_path
from decr_scene.pipeline.inputs.remote import fetched, is_fetched
from decr_scene.pipeline.products.metadata import acquisition_time, bands_of, facts_of, metadata_warnings
from decr_scene.pipeline.products.pansharpen import write_pansharpened
from decr_scene.pipeline.products.product import find_product
from decr_scene.pipeline.products.reflectance import units_of
from decr_scene.pipeline.products.stac_item import find_asset
from decr_scene.pipeline.products.stack import bands_told, write_stack
from decr_scene.pipeline.raster.fingerprint import fingerprint


@dataclass(frozen=True)
class Delivery:
    """The raster to open for an input, with what is known of it.

    Args:
        path: The raster to open.
        origin: The file that the pixels are from, the multispectral one of a pair.
        bands: Its bands as ``--bands``, from the user or the metadata; ``None``: the raster names them.
        facts: For the report: plain values.
        warnings: For the user, one line each.
        files: All its files.
        address: Web address that ``origin`` was fetched from, if it was.
    """

    path: str | Path
    origin: str | Path
    bands: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    address: str | None = None


@contextmanager
def delivered(
    src: str | Path,
    out: str | Path,
    pan: str | None = None,
    bands: str | None = None,
    asset: str | None = None,
    fetch: bool = True,
) -> Iterator[Delivery]:
    """Find the raster to open: the input itself, that of a folder, or a pair, sharpened on the fly.

    Args:
        src: A raster, the folder of a product, a STAC Item, or a web address of one of them, which
            is fetched beside the output first.
        out: The output; the description of a sharpened pair, or of a stack, lies hidden beside it until it is
            done, or for as long as the run can be continued.
        pan: The panchromatic raster; ``none``: none, although the folder has one.
        bands: As ``--bands``; it overrules the metadata.
        asset: Name of an Item's asset, where several may be the scene.
        fetch: Whether a web address is fetched; else it is read there, by window.

    Raises:
        SceneNotFoundError: The name is empty.
        PairError: The folder or the Item has no raster or several, or the pair does not match.
        SceneReadError: The web address cannot be read.
        OutputError: The output cannot be written there.

    In all errors, also in those of the ``with``, the secrets in addresses are hidden.
    """
    with secrets_hidden(), _delivered(src, out, pan, bands, asset, fetch) as delivery:
        yield delivery


@contextmanager
def _delivered(
    src: str | Path, out: str | Path, pan: str | None, bands: str | None, asset: str | None, fetch: bool
) -> Iterator[Delivery]:
    """Find the raster to open, as `delivered` does."""
    src = local_path(src)
    if not src:
        raise SceneNotFoundError("the name of the scene is empty, expected that of a raster or a folder")
    if (item_asset := find_asset(src, asset)) is not None:
        with _delivered(item_asset.href, out, pan, bands or item_asset.bands, None, fetch) as delivery:
            yield replace(delivery, facts={**delivery.facts, **item_asset.facts})
        return
    if asset is not None:
        raise PairError(f"{src} is no STAC Item, of which asset {asset} could be taken: leave --asset out")
    if fetch and is_fetched(src):
        copy = source_path(Path(out))
        with (
            fetched(src, copy, journal_path(Path(out))) as facts,
            _delivered_product(copy, Path(out), pan, bands, last_part(src)) as delivery,
        ):
            yield replace(delivery, facts={**delivery.facts, **facts}, address=src)
        return
    if is_gdal_name(src):
        name = full_name(src)
        plain = Delivery(name, name, bands, files=tuple(local_files(name)))
        if pan in (None, "none"):
            yield plain
            return
        with _sharpened(plain, str(pan), Path(out), None) as delivery:
            yield delivery
        return
    with _delivered_product(Path(src), Path(out), pan, bands) as delivery:
        yield delivery


@contextmanager
def _delivered_product(
    src: Path, out: Path, pan: str | None, bands: str | None, name: str = ""
) -> Iterator[Delivery]:
    """Find the raster of a folder or of a raster with files beside it, as `delivered` does.

    ``name`` is as in `facts_of`.
    """
    product = find_product(src)
    files = tuple(str(path) for path in (product.scene, product.metadata) if path is not None)
    sharp = None if pan == "none" else pan if pan is not None else product.pan
    bands = bands or bands_of(product)
    facts, warnings = facts_of(product, src, name), metadata_warnings(product)
    if product.stack:
        if sharp is not None:
            raise PairError(
                f"{src} has its bands in files of their own, which no --pan {sharp} sharpens: "
                "stack them with gdalbuildvrt -separate first"
            )
        with _hidden_vrt(out, [path for _, path in product.stack]) as vrt, bands_told(product.stack, vrt):
            units = write_stack(product.stack, vrt, units_of(product.stack, product.metadata))
            facts |= {"scale and offset": {band: list(unit) for band, unit in units.items()}} if units else {}
            files = (*files, *(str(path) for _, path in product.stack))
            yield Delivery(vrt, product.scene, bands, facts, warnings, files)
        return
    plain = Delivery(product.scene, product.scene, bands, facts, warnings, files)
    if sharp is None:
        yield plain
        return
    with _sharpened(plain, sharp, out, acquisition_time(product.scene, name)) as delivery:
        yield delivery


@contextmanager
def _sharpened(plain: Delivery, pan: str | Path, out: Path, when: datetime | None) -> Iterator[Delivery]:
    """Sharpen a raster by a panchromatic one, on the fly."""
    colours, sharp = (for_gdal(full_name(name)) for name in (plain.origin, pan))
    with _hidden_vrt(out, [colours, sharp]) as vrt:
        weights = write_pansharpened(colours, sharp, vrt, plain.bands, when)
        facts = {"pan": fingerprint(sharp), "weights of the bands in pan": list(weights)}
        files = tuple(dict.fromkeys([*plain.files, *local_files(sharp)]))
        yield replace(plain, path=vrt, facts=plain.facts | facts, files=files)


@contextmanager
def _hidden_vrt(out: Path, sources: Sequence[str | Path]) -> Iterator[Path]:
    """Yield the path of a VRT of some rasters beside the output, and remove it once no run needs it.

    Raises:
        OutputError: The output is one of them, or cannot be written there.
    """
    for source in sources:
        check_target(source, out, overwrite=True)
    vrt = vrt_path(out)
    try:
        yield vrt
    finally:
        if not journal_path(out).exists():
            vrt.unlink(missing_ok=True)
