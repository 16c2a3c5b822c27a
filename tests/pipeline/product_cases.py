"""Folders as vendors deliver them."""

import numpy as np
import rasterio.shutil
from raster_cases import write

SHAPE = (60, 50)
LANDSAT = "LC09_L2SP_123032_20240315_20240316_02_T1"
GRANULE = "safe.SAFE/GRANULE/L2A_T33UVP/IMG_DATA/R10m"


def single_bands(folder, names, values=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=1):
        write(folder / name, np.full((1, *SHAPE), number, np.uint16))
    return folder


def landsat(folder, bands=(1, 2, 3, 4, 5, 6), name=LANDSAT, kind="SR_B"):
    others = [f"{name}_{other}.TIF" for other in ("QA_PIXEL", "QA_RADSAT", "SR_QA_AEROSOL")]
    return single_bands(folder, [f"{name}_{kind}{band}.TIF" for band in bands] + others)


def sentinel(folder, bands=("B02", "B03", "B04", "B08", "TCI"), tile="T33UVP"):
    place = folder / GRANULE
    single_bands(place, [f"{tile}_20240315T101010_{band}_10m.tif" for band in bands])
    for path in place.glob("*.tif"):
        rasterio.shutil.copy(
            path, path.with_suffix(".jp2"), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"
        )
        path.unlink()
    return folder
