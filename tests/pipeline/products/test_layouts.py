"""Folders of vendors that are known, and what is said of those that are not."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from product_cases import GRANULE, LANDSAT, SHAPE, landsat, sentinel, single_bands
from raster_cases import plain, write
from test_run import pixels_of

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import PairError, SceneReadError
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.products.metadata import facts_of
from decr_scene.pipeline.products.product import find_product, is_quality_mask
from decr_scene.pipeline.regions.conventions import CONVENTIONS

PLEIADES = "PHR1A_MS_202001010101_ORT_1"


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


def test_a_damaged_band_is_told_by_its_own_file(tmp_path):
    folder = tmp_path / "product"
    folder.mkdir()
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    bands = [folder / f"{LANDSAT}_SR_B{band}.TIF" for band in (2, 3, 4, 5)]
    for band in bands:
        write(band, np.arange(90000, dtype=np.uint16).reshape(1, 300, 300), **blocks)
    with rasterio.open(bands[2]) as dataset:
        place, size = (
            int(dataset.get_tag_item(f"BLOCK_{w}_1_1", "TIFF", bidx=1)) for w in ("OFFSET", "SIZE")
        )
    with bands[2].open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * size)
    with pytest.raises(
        SceneReadError, match=r"^\S*_SR_B4.TIF: cannot read rows .*the file is damaged"
    ) as told:
        process_scene(folder, tmp_path / "out.tif", model="identity")
    assert ".vrt" not in str(told.value)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (landsat, [2, 3, 4, 5]),
        (lambda at: landsat(at, (1, 2, 3, 4, 5, 7), "LT05_L2SP_1_20100315_20100316_02_T1"), [1, 2, 3, 4]),
        (lambda at: landsat(at, range(1, 7), "LC08_L1TP_1_20190315_20190316_01_T1", "B"), [2, 3, 4, 5]),
        (sentinel, [1, 2, 3, 4]),
    ],
)
def test_bands_in_files_of_their_own_become_one_scene(make, values, tmp_path):
    place = make(tmp_path / "delivery")
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert pixels_of(tmp_path / "out.tif")[:, 5, 5].tolist() == values
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == ("blue", "green", "red", "nir")
        assert (dataset.nodata, dataset.crs.to_epsg()) == (0, 32650)
    assert list(report.product["bands"]) == ["blue", "green", "red", "nir"]
    assert all(report.checks.values())
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_times_of_landsat_and_sentinel(tmp_path):
    place = landsat(tmp_path / "delivery")
    (place / f"{LANDSAT}_MTL.xml").write_text(
        "<LANDSAT_METADATA_FILE><IMAGE_ATTRIBUTES><DATE_ACQUIRED>2024-03-15</DATE_ACQUIRED>"
        "<SCENE_CENTER_TIME>02:53:10.1234560Z</SCENE_CENTER_TIME></IMAGE_ATTRIBUTES></LANDSAT_METADATA_FILE>"
    )
    report = process_scene(place, tmp_path / "out.tif", model="identity", stac=True)
    assert report.product["acquired"] == "2024-03-15T02:53:10.123456+00:00"
    place = sentinel(tmp_path / "s2")
    assert (
        process_scene(place, tmp_path / "s.tif", model="identity")
        .product["acquired"]
        .startswith("2024-03-15T10:10:10+00")
    )


def units_of_output(place, out):
    process_scene(place, out, model="identity")
    with rasterio.open(out) as dataset:
        return dataset.scales, dataset.offsets


@pytest.mark.parametrize("level", ["1C", "2A"])
def test_sentinel_2_tells_what_its_numbers_are_in_reflectance(level, tmp_path):
    place = sentinel(tmp_path / "new")
    assert units_of_output(place, tmp_path / "a.tif") == ((1,) * 4, (0,) * 4)
    assert units_of_output(safe_with(place, level, 3), tmp_path / "b.tif") == ((1e-4,) * 4, (0,) * 4)
    scales, offsets = units_of_output(safe_with(place, level, 5.11), tmp_path / "c.tif")
    assert (scales, offsets) == ((1e-4,) * 4, (-0.1, -0.2, -0.3, -0.7))
    report = process_scene(place / "safe.SAFE", tmp_path / "d.tif", model="identity")
    assert report.product["scale and offset"]["nir"] == [1e-4, -0.7]
    metadata = next(place.glob("*/MTD*"))
    for of, by in (
        (">-3000<", ">abc<"),
        ('band_id="7"', 'band_id="B08"'),
        (">10000<", ">0<"),
        (">10000<", ">-10000<"),
        (">10000<", ">1e308<"),
    ):
        whole = metadata.read_text()
        metadata.write_text(whole.replace(of, by))
        assert units_of_output(place, tmp_path / f"{len(by)}{by[1]}.tif") == ((1,) * 4, (0,) * 4), by
        metadata.write_text(whole)


def test_the_metadata_of_a_product_are_read_once_and_again_when_they_have_changed(tmp_path, monkeypatch):
    place = safe_with(sentinel(tmp_path / "new"), "2A", 5.11)
    read, whole = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.suffix) or whole(path))
    process_scene(place, tmp_path / "a.tif", model="identity", stac=True)
    assert read.count(".xml") == 1
    metadata = next(place.glob("*/MTD*"))
    metadata.write_text(metadata.read_text().replace(">10000<", ">20000<"))
    assert units_of_output(place, tmp_path / "b.tif")[0] == (5e-5,) * 4
    assert read.count(".xml") == 2


def test_the_metadata_of_a_safe_are_found_from_within(tmp_path, monkeypatch):
    place = safe_with(sentinel(tmp_path / "s2"), "2A", 5)
    monkeypatch.chdir(place / GRANULE)
    assert find_product(".").metadata == place / "safe.SAFE" / "MTD_MSIL2A.xml"


def rescaling(group, times):
    values = "".join(
        f"<REFLECTANCE_MULT_BAND_{n}>{n * times}e-5</REFLECTANCE_MULT_BAND_{n}>"
        f"<REFLECTANCE_ADD_BAND_{n}>{-0.1 * times}</REFLECTANCE_ADD_BAND_{n}>"
        for n in range(1, 8)
    )
    return f"<{group}>{values}</{group}>"


def test_landsat_tells_what_its_numbers_are_in_reflectance(tmp_path):
    second, first = landsat(tmp_path / "second"), landsat(tmp_path / "first", kind="B")
    assert units_of_output(second, tmp_path / "a.tif") == ((2.75e-5,) * 4, (-0.2,) * 4)
    old = landsat(tmp_path / "old", kind="sr_band")
    assert units_of_output(old, tmp_path / "old.tif") == ((1e-4,) * 4, (0,) * 4)
    assert units_of_output(first, tmp_path / "b.tif") == ((1,) * 4, (0,) * 4)
    metadata, of_level_2 = (
        first / f"{LANDSAT}_MTL.xml",
        rescaling("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", 7),
    )
    values = of_level_2 + rescaling("LEVEL1_RADIOMETRIC_RESCALING", 1)
    metadata.write_text(f"<a>{values}<b><SUN_ELEVATION>30</SUN_ELEVATION></b></a>")
    scales, offsets = units_of_output(first, tmp_path / "c.tif")
    assert scales == pytest.approx([4e-5, 6e-5, 8e-5, 10e-5])
    assert offsets == pytest.approx([-0.2] * 4)
    other = metadata.rename(first / f"{LANDSAT.replace('123032', '123033')}_MTL.xml")
    assert units_of_output(first, tmp_path / "d.tif") == ((1,) * 4, (0,) * 4), "that of another scene"
    other.rename(metadata)
    for sun, groups in ((-3, values), (30, of_level_2)):
        metadata.write_text(f"<a>{groups}<b><SUN_ELEVATION>{sun}</SUN_ELEVATION></b></a>")
        assert units_of_output(first, tmp_path / f"{sun}.tif") == ((1,) * 4, (0,) * 4)


def test_what_a_band_s_own_file_says_of_its_numbers_stays(tmp_path):
    place = landsat(tmp_path / "delivery")
    for path in place.glob("*_SR_B[23].TIF"):
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (0.5,), (3,)
    assert units_of_output(place, tmp_path / "out.tif") == ((0.5, 0.5, 1, 1), (3, 3, 0, 0))
    report = process_scene(place, tmp_path / "other.tif", model="identity")
    assert "scale and offset" not in report.product


def test_metadata_are_no_scene_their_folder_is(tmp_path):
    place = safe_with(sentinel(tmp_path / "s2"), "2A", 5) / "safe.SAFE"
    with pytest.raises(PairError, match=rf"metadata of a product, .*: name {re.escape(str(place))}$"):
        process_scene(place / "MTD_MSIL2A.xml", tmp_path / "out.tif", model="identity")


def test_names_may_have_lost_their_case(tmp_path):
    for make in (landsat, sentinel):
        place = make(tmp_path / make.__name__)
        for path in sorted(place.rglob("*"), reverse=True):
            path.rename(path.with_name(path.name.lower()))
        process_scene(place, tmp_path / f"{make.__name__}.tif", model="identity")
        assert len(pixels_of(tmp_path / f"{make.__name__}.tif")) == 4
    mixed = landsat(tmp_path / "mixed")
    for path in mixed.glob("*_B3.TIF"):
        path.rename(path.with_name(path.name.lower()))
    assert len(find_product(mixed).stack) == 4


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda at: landsat(at, (2, 3, 5)), r"lacks the Landsat band 4 \(red\)"),
        (lambda at: landsat(landsat(at), name=LANDSAT.replace("123032", "123033")), "2 Landsat scenes"),
        (lambda at: sentinel(at, ("B02", "B03", "B04")), r"lacks the Sentinel-2 band 08 \(nir\)"),
        (lambda at: sentinel(sentinel(at), tile="T33UVQ"), "2 Sentinel-2 scenes"),
        (lambda at: pleiades(at, described=False), "2 tiles of one image .*gdalbuildvrt"),
        (lambda at: single_bands(at, ["B02.tif", "B03.tif"]), r"2 rasters of one band \(B02.tif, B03.tif\)"),
        (
            lambda at: single_bands(at, ["a.jp2x", "b.TXT"]),
            r"no .tif that may be a scene \(in it: a.jp2x, b.TXT\)",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_lies_there(make, told, tmp_path):
    with pytest.raises(PairError, match=told):
        process_scene(make(tmp_path / "delivery"), tmp_path / "out.tif", model="identity")
    assert not (tmp_path / "out.tif").exists()


OF_MARCH = "LC09_L1TP_123032_20240331_20240401_02_T1"
OF_THE_DATE = LANDSAT.replace("L2SP", "L1TP")


def test_products_of_two_dates_or_kinds_in_one_folder_are_refused(tmp_path):
    landsat(landsat(tmp_path / "dates"), name=OF_MARCH, kind="B")
    with pytest.raises(PairError, match=f"has 2 Landsat scenes .{OF_MARCH}, {LANDSAT}., expected one"):
        find_product(tmp_path / "dates")
    sentinel(landsat(tmp_path / "kinds"))
    with pytest.raises(PairError, match=r"has products of several kinds .*SR_B2.*T33UVP.*, expected one"):
        find_product(tmp_path / "kinds")
    sentinel(tmp_path / "levels")
    other = tmp_path / "levels" / "S2A_MSIL1C_20230115.SAFE" / "GRANULE" / "L1C" / "IMG_DATA"
    single_bands(other, [f"T33UVP_20230115T101010_{band}.tif" for band in ("B02", "B03", "B04", "B08")])
    with pytest.raises(PairError, match=r"has 2 Sentinel-2 scenes .*20230115.*20240315.*, expected one"):
        find_product(tmp_path / "levels")


def test_of_two_levels_of_a_landsat_scene_the_higher_is_taken_with_its_own_metadata(tmp_path):
    folder = landsat(landsat(tmp_path / "levels"), name=OF_THE_DATE, kind="B")
    for name in (OF_THE_DATE, LANDSAT):
        (folder / f"{name}_MTL.xml").write_text("<LANDSAT_METADATA_FILE/>")
    found = find_product(folder)
    assert found.scene.name == f"{LANDSAT}_SR_B2.TIF"
    assert found.metadata == folder / f"{LANDSAT}_MTL.xml"


def test_a_copy_of_a_band_in_a_folder_below_is_not_taken(tmp_path):
    place = landsat(tmp_path / "delivery")
    (place / "old").mkdir()
    write(place / "old" / f"{LANDSAT}_SR_B3.TIF", np.full((1, 60, 50), 999, np.uint16))
    assert all(path.parent == place for _, path in find_product(place).stack)
    (place / f"{LANDSAT}_SR_B3.TIF").rename(place / f"{LANDSAT}_SR_B3.tif")
    write(place / f"{LANDSAT}_sr_B3.TIF", np.full((1, 60, 50), 999, np.uint16))
    with pytest.raises(PairError, match=r"has two files of Landsat band green, .*: name the folder of one"):
        find_product(place)


def test_bands_of_different_nodata_are_refused_by_name(tmp_path):
    place = landsat(tmp_path / "delivery")
    with rasterio.open(place / f"{LANDSAT}_SR_B4.TIF", "r+") as dataset:
        dataset.nodata = 65535
    with pytest.raises(
        PairError, match=r"different nodata values \(.*_B4\.TIF: 65535\.0.*\), a stack holds one"
    ):
        process_scene(place, tmp_path / "out.tif", model="identity")
    assert list(tmp_path.iterdir()) == [place]


def test_bands_of_two_grids_are_refused(tmp_path):
    place = landsat(tmp_path / "delivery")
    write(place / f"{LANDSAT}_SR_B4.TIF", np.ones((1, 30, 25), np.uint16))
    with pytest.raises(PairError, match=r"B4\.TIF is 1 x \(30, 25\) px"):
        process_scene(place, tmp_path / "out.tif", model="identity")
    with pytest.raises(PairError, match="--pan"):
        process_scene(place, tmp_path / "out.tif", model="identity", pan=str(place / f"{LANDSAT}_SR_B4.TIF"))
    assert list(tmp_path.iterdir()) == [place]


def test_tiles_that_an_xml_joins_are_one_scene(tmp_path):
    place = pleiades(tmp_path / "delivery")
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert pixels_of(tmp_path / "out.tif")[0, 0].tolist() == [1] * 64 + [2] * 64
    assert report.product["acquired"] == "2020-01-01T01:01:00.500000+00:00"


@pytest.mark.parametrize("mask", ["3B_udm2_clip.tif", "3B_AnalyticMS_DN_udm.tif"])
def test_a_usable_data_mask_is_neither_scene_nor_pan(mask, tmp_path):
    place = tmp_path / "planet"
    place.mkdir()
    scene = plain(place / "20240315_101010_12_2489_3B_AnalyticMS_SR.tif", SHAPE)
    plain(place / f"20240315_101010_12_2489_{mask}", SHAPE, 8 if "udm2" in mask else 1, "uint8")
    found = find_product(place)
    assert (found.scene, found.pan) == (scene, None)
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert report.product["acquired"] == "2024-03-15T10:10:10+00:00"


@pytest.mark.parametrize(
    "name",
    ["T33_MSK_CLDPRB_20m.tif", "QA60.tif", "T33_MSK_CLASSI_B00.jp2", "LC08_Fmask4.tif", "LC80_fixedmask.tif"],
)
def test_a_mask_whose_values_are_understood_is_no_scene(name):
    assert is_quality_mask(Path(name))
    assert any(re.search(each.names, name.lower()) for each in CONVENTIONS)


def test_gaofen_cameras_have_numbers(tmp_path):
    name = "GF2_PMS1_E116.5_N39.9_20200602_L1A0004842146"
    for kind, shape in (("PAN1", SHAPE), ("MSS1", (15, 12))):
        plain(tmp_path / f"{name}-{kind}.tiff", shape, 1)  # by its bands it would be PAN
    found = find_product(tmp_path)
    assert (found.scene.name, found.pan.name) == (f"{name}-MSS1.tiff", f"{name}-PAN1.tiff")


def test_a_zarr_store_is_a_raster(tmp_path):
    scene = plain(tmp_path / "scene.tif", SHAPE)
    rasterio.shutil.copy(scene, tmp_path / "store.zarr", driver="Zarr")
    report = process_scene(tmp_path / "store.zarr", tmp_path / "out.tif", model="identity")
    np.testing.assert_array_equal(pixels_of(tmp_path / "out.tif"), pixels_of(scene))
    assert report.input["bytes"] > 0
    assert inspect_scene(tmp_path / "store.zarr", model="identity")["size"] == {"height": 60, "width": 50}


def test_metadata_that_are_absurd_are_none(tmp_path):
    told = at_time(tmp_path / "product", "0001-01-01 00:00:00")
    assert "2025-01-12" in told["acquired"], "as the name says"
    xml = next((tmp_path / "product").glob("*.xml"))
    xml.write_text(
        "<a><CenterTime>2025-01-12 10:40:07</CenterTime><Gain>nan,inf,1,2</Gain><Bias>0 1</Bias></a>"
    )
    product = find_product(tmp_path / "product")
    assert {"gain", "bias"} & set(facts_of(product, tmp_path)) == {"bias"}


# -- clocks that nobody tells of -----------------------------------------------------------------------------


def at_time(folder, moment, name="JXGF07A03_PMS01_20250112104007_200339713_101_0039_001_L1", **profile):
    folder.mkdir()
    plain(folder / f"{name}_MSS.tif", SHAPE, **profile)
    if moment:
        body = f"<CenterTime>{moment}</CenterTime>"
        (folder / f"{name}_MSS_meta.xml").write_text(f"<ProductMetaData>{body}</ProductMetaData>")
    return inspect_and_report(folder)


def inspect_and_report(folder):
    return process_scene(folder, folder.parent / "out.tif", model="identity").product


@pytest.mark.parametrize(
    ("moment", "acquired"),
    [
        ("2025-01-12 10:40:07", "2025-01-12T02:40:07+00:00"),  # the scene lies at 117 degrees east
        ("2025-01-12 02:40:07", "2025-01-12T02:40:07+00:00"),
        ("2025-01-12T10:40:07Z", "2025-01-12T10:40:07+00:00"),
        (None, "2025-01-12T02:40:07+00:00"),  # as its name says
    ],
)
def test_a_clock_without_zone_is_told_by_the_sun(moment, acquired, tmp_path):
    assert at_time(tmp_path / "product", moment)["acquired"] == acquired


@pytest.mark.parametrize(
    ("moment", "profile"),
    [("2025-01-12 21:00:00", {}), ("2025-01-12 10:40:07", {"crs": None, "transform": None})],
)
def test_a_clock_that_nothing_tells_of_has_no_zone(moment, profile, tmp_path):
    told = at_time(tmp_path / "product", moment, **profile)
    assert "acquired" not in told
    assert told["acquired, zone unknown"] == moment.replace(" ", "T")


def test_the_place_may_stand_in_the_name(tmp_path):
    name = "GF2_PMS1_E116.5_N39.9_20200602_L1A0004842146"
    told = at_time(tmp_path / "product", None, name, crs=None, transform=None)
    assert "acquired" not in told
    (tmp_path / "product" / f"{name}_MSS.xml").write_text(
        "<a><CenterTime>2020-06-02 11:25:00</CenterTime></a>"
    )
    (tmp_path / "out.tif").unlink()
    for path in tmp_path.glob("out*"):
        path.unlink()
    assert inspect_and_report(tmp_path / "product")["acquired"] == "2020-06-02T03:25:00+00:00"


def test_a_safe_without_its_bands_of_10_m_is_told_as_one(tmp_path):
    folder = tmp_path / "S2A_MSIL2A_20230115.SAFE"
    (folder / "GRANULE/L2A/IMG_DATA/R20m").mkdir(parents=True)
    (folder / "MTD_MSIL2A.xml").write_text("<x/>")
    with pytest.raises(PairError, match=r"none of the Sentinel-2 bands of 10 m \(02, 03, 04, 08\)"):
        find_product(folder)
