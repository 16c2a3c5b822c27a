"""Find what the pixels of an input are from: its raster, and the other files that decide what they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decr_scene.pipeline.inputs.names import is_gdal_name, local_path
from decr_scene.pipeline.inputs.remote import is_fetched
from decr_scene.pipeline.products.product import find_product
from decr_scene.pipeline.products.stac_item import find_asset
from decr_scene.pipeline.raster.scene import RasterioScene


@dataclass(frozen=True)
class Source:
    """The raster that the pixels of an input are from, and the other files of a product, also metadata."""

    origin: str | Path
    parts: tuple[Path, ...] = ()

    @classmethod
    def of(cls, src: str | Path, asset: str | None = None) -> Source:
        """Find it: of a STAC Item its raster, which may be on the web; of a product's folder one of its."""
        src = local_path(src)
        if (chosen := find_asset(src, asset)) is not None:
            return cls.of(chosen.href)
        if is_gdal_name(src):
            return cls(src)
        product = find_product(src)
        extra = [path for path in (product.pan, product.metadata) if path is not None]
        if not Path(src).is_dir():
            return cls(src, tuple(extra))
        return cls(product.scene, (product.scene, *extra, *(path for _, path in product.stack)))

    @property
    def files(self) -> list[str]:
        """List all files besides the raster; none of what is fetched from the web."""
        if is_fetched(self.origin):
            return []
        with RasterioScene.open(self.origin) as scene:
            return list(dict.fromkeys([*map(os.path.abspath, self.parts), *scene.other_files()]))

    @property
    def state(self) -> list[list[Any]]:
        """List name, bytes and time of change (ns) of all `files`, wherever their folder is."""
        states = [(os.path.basename(path), os.stat(path)) for path in self.files]
        return sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in states)
