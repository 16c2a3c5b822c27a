"""Make the sample scenes out of the data sets that the README beside this file names.

    python sample_scenes/make_scenes.py DATA

``DATA`` holds ``scenes/landsat_green_A_{cloudy,clear}.tif``, ``scenes/landsat8_cloudy_bgrn.tif`` and
``clear4/rotterdam1_wv2_0p5m_bgrn.tif``. The results are in the repository already; this shows what was done
to make them.
"""

import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.pipeline.training.simulation import draw_clouds

HERE = Path(__file__).parent
LANDSAT_WINDOW = Window(col_off=1560, row_off=440, width=640, height=640)
FOUR_BANDS_WINDOW = Window(col_off=179, row_off=155, width=448, height=448)


def cut_landsat(data: Path) -> None:
    """Cut the real cloudy scene and its clear twin of another date."""
    for kind in ("cloudy", "clear"):
        with rasterio.open(data / f"scenes/landsat_green_A_{kind}.tif") as source:
            profile = {
                "driver": "GTiff",
                "dtype": source.dtypes[0],
                "count": 3,
                **place_of(LANDSAT_WINDOW, source),
                "photometric": "RGB",
            }
            tags = {
                "NOTE": "Landsat 8 in false colour (SWIR, NIR, visible); CRS and place are assigned",
                "SOURCE": "USGS/NASA Landsat, public domain; RICE2 source scenes",
            }
            write(HERE / f"landsat_{kind}.tif", source.read(window=LANDSAT_WINDOW), profile, tags)


def cut_four_bands(data: Path) -> None:
    """Cut a real cloudy scene of four bands, digital numbers as delivered."""
    with rasterio.open(data / "scenes/landsat8_cloudy_bgrn.tif") as source:
        profile = {
            "driver": "GTiff",
            "dtype": "uint16",
            "count": 4,
            **place_of(FOUR_BANDS_WINDOW, source),
        }
        tags = {"SOURCE": "USGS/NASA Landsat 8, public domain; bands 2, 3, 4 and 5, digital numbers"}
        pixels = source.read(window=FOUR_BANDS_WINDOW)
        write(HERE / "landsat8_cloudy.tif", pixels, profile, tags, source.descriptions)


def cloud_rotterdam(data: Path) -> None:
    """Draw clouds over the real half-metre image; keep it as the truth."""
    with rasterio.open(data / "clear4/rotterdam1_wv2_0p5m_bgrn.tif") as source:
        profile = {
            "driver": "GTiff",
            "dtype": "uint16",
            "count": 4,
            "width": source.width,
            "height": source.height,
            "crs": source.crs,
            "transform": source.transform,
            "nodata": source.nodata,
        }
        clear, names = source.read(), source.descriptions
    recipe = CloudRecipe(
        coverage=(0.55, 0.6),
        thickness=(0.9, 1.2),
        scale=(250.0, 350.0),
        softness=(0.9, 1.1),
        clear=0,
        aside=0,
        second=0,
        types={"stratus": 1.0},
    )
    everywhere = np.ones(clear.shape, bool)
    cloudy, _ = draw_clouds(clear, everywhere, names, np.random.default_rng(7), recipe, profile["nodata"])
    note = {
        "SOURCE": "SpaceNet 6 (WorldView-2, Rotterdam), CC BY-SA 4.0, pan-sharpened to 0.5 m",
    }
    write(HERE / "rotterdam_clear.tif", clear, profile, note, names)
    note["NOTE"] = "clouds and shadows are simulated"
    write(HERE / "rotterdam_cloudy.tif", cloudy, profile, note, names)


def place_of(window: Window, source: rasterio.DatasetReader) -> dict:
    """Return size and georeferencing of a window of a raster, as a profile has them."""
    transform = window_transform(window, source.transform)
    return {
        "width": int(window.width),
        "height": int(window.height),
        "crs": source.crs,
        "transform": transform,
    }


def write(path: Path, pixels: np.ndarray, profile: dict, tags: dict, names: tuple = ()) -> None:
    """Write a tiled, deflated GeoTIFF."""
    with rasterio.open(path, "w", **profile, tiled=True, compress="deflate", predictor=2, zlevel=9) as target:
        target.write(pixels)
        target.update_tags(**tags)
        for band, name in enumerate(names, start=1):
            target.set_band_description(band, name)
        if names:
            target.colorinterp = [
                ColorInterp[name] if name != "nir" else ColorInterp.undefined for name in names
            ]


if __name__ == "__main__":
    cut_landsat(Path(sys.argv[1]))
    cut_four_bands(Path(sys.argv[1]))
    cloud_rotterdam(Path(sys.argv[1]))
