"""Folders of the layouts of vendors, with few pixels."""

import numpy as np
import rasterio.shutil
from raster_cases import write

SHAPE = (60, 50)
LANDSAT = "LC09_L2SP_123032_20240315_20240316_02_T1"
GRANULE = "safe.SAFE/GRANULE/L2A_T33UVP/IMG_DATA/R10m"
PLEIADES = "PHR1A_MS_202001010101_ORT_1"


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


def pleiades(folder, described=True):
    folder.mkdir()
    tiles = [f"IMG_{PLEIADES}_R1C{col}.TIF" for col in (1, 2)]
    for number, tile in enumerate(tiles, start=1):
        write(folder / tile, np.full((4, 64, 64), number, np.uint16))
    data = "".join(
        f'<Data_File tile_R="1" tile_C="{col}"><DATA_FILE_PATH href="{tile}"/></Data_File>'
        for col, tile in enumerate(tiles, start=1)
    )
    if described:
        (folder / f"DIM_{PLEIADES}.XML").write_text(
            '<Dimap_Document><Metadata_Identification><METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT>'
            "</Metadata_Identification><Raster_Data><Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT>"
            f"<Data_Files>{data}</Data_Files></Data_Access><Raster_Dimensions><NROWS>64</NROWS>"
            "<NCOLS>128</NCOLS><NBANDS>4</NBANDS><Tile_Set><NTILES>2</NTILES><Regular_Tiling>"
            '<NTILES_COUNT ntiles_R="1" ntiles_C="2"/><NTILES_SIZE nrows="64" ncols="64"/></Regular_Tiling>'
            "</Tile_Set></Raster_Dimensions>"
            "<Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>16</NBITS></Raster_Encoding></Raster_Data>"
            "<Dataset_Sources><Source_Identification><Strip_Source><IMAGING_DATE>2020-01-01</IMAGING_DATE>"
            "<IMAGING_TIME>01:01:00.5Z</IMAGING_TIME></Strip_Source></Source_Identification></Dataset_Sources>"
            "</Dimap_Document>"
        )
    return folder


def safe_with(place, level, baseline):
    quantification, offset = ("BOA_", "BOA_") if level == "2A" else ("", "RADIO_")
    offsets = "".join(f'<{offset}ADD_OFFSET band_id="{n}">{-n}000</{offset}ADD_OFFSET>' for n in range(13))
    (place / "safe.SAFE" / f"MTD_MSIL{level}.xml").write_text(
        f'<n1:Product xmlns:n1="x"><{quantification}QUANTIFICATION_VALUE unit="none">10000'
        f"</{quantification}QUANTIFICATION_VALUE>{offsets if baseline >= 4 else ''}</n1:Product>"
    )
    return place
