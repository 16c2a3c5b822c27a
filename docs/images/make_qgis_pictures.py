"""Make the pictures of docs/qgis.md: clean a bundled sample and let a real QGIS draw what came out.

    python docs/images/make_qgis_pictures.py

Needs Debian's ``python3-qgis qgis-providers``; QGIS runs in the system's Python, see tests/qgis/look.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from decr_scene.pipeline import process_scene

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCENE = ROOT / "sample_scenes" / "landsat_cloudy.tif"
SIZE = [400, 400]
SAMPLES = 2
CUT = Window(col_off=240, row_off=120, width=400, height=400)
"""What is cleaned of the sample: cloud, shadow and clear ground."""

ZOOM = (200, 200, 120)
"""Row, column and side of the square that is drawn enlarged, px."""


def main() -> None:
    """One run of the program, one of QGIS for each picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "landsat_cloudy.tif"
        cut_out(scene)
        clean = folder / "clean.tif"
        process_scene(scene, clean, model="rice2", samples=SAMPLES)
        whole, near = None, square(scene)
        draw(scene, clean.with_suffix(".qml"), whole, "before")
        draw(clean, None, whole, "after")
        draw(scene, clean.with_suffix(".qml"), near, "before-near")
        draw(clean, None, near, "after-near")
        draw(folder / "clean_provenance.tif", None, whole, "provenance")
        draw(folder / "clean_uncertainty.tif", None, whole, "uncertainty")


def cut_out(path: Path) -> None:
    """A copy of a part of the sample: QGIS writes statistics beside what it opens."""
    with rasterio.open(SCENE) as dataset:
        place = {"width": CUT.width, "height": CUT.height, "transform": dataset.window_transform(CUT)}
        with rasterio.open(path, "w", **{**dataset.profile, **place}) as part:
            part.write(dataset.read(window=CUT))
            part.colorinterp = dataset.colorinterp


def square(scene: Path) -> list[float]:
    """The extent of `ZOOM` in the scene's CRS."""
    row, col, side = ZOOM
    with rasterio.open(scene) as dataset:
        left, top = dataset.transform @ (col - side // 2, row - side // 2)
        right, bottom = dataset.transform @ (col + side // 2, row + side // 2)
    return [left, bottom, right, top]


def draw(raster: Path, style: Path | None, extent: list[float] | None, name: str) -> None:
    """One picture, ``qgis-NAME.png``; without a style QGIS takes the one that lies beside the raster."""
    path = HERE / f"qgis-{name}.png"
    pictures: list[dict[str, Any]] = [{"extent": extent, "size": SIZE, "path": str(path)}]
    task = raster.with_suffix(".task.json")
    task.write_text(json.dumps({"raster": str(raster), "style": style and str(style), "pictures": pictures}))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GDAL", "PROJ"))}
    command = ["/usr/bin/python3", str(ROOT / "tests" / "qgis" / "look.py"), str(task)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**kept, "QT_QPA_PLATFORM": "offscreen"}
    )
    found = json.loads(done.stdout.splitlines()[-1])
    if found["errors"]:
        raise RuntimeError(f"{raster}: {found['errors']}")
    print(f"{path.name}: {found['style']}")


if __name__ == "__main__":
    main()
