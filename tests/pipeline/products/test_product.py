"""Products as a vendor delivers them: the rasters of a folder, and what the XML beside them says."""

from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from model_cases import tiny_model
from pansharpen_cases import NAMES, ground, pair
from raster_cases import plain
from test_run import pixels_of

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import BandError, PairError
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.products.metadata import acquisition_time
from decr_scene.pipeline.products.product import Product, find_product

NAME = "JL1KF01C_PMSL3_20250112084005_200339713_101_0039_001_L1"
IN_UTC = datetime(2025, 1, 12, 0, 40, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of four named bands, of which an estimate is made in no time."""
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", bands=NAMES))


def product(folder, side=128, with_pan=True):
    """A folder as delivered: MSS and PAN without band names, previews, a cloud mask."""
    place = folder / NAME
    place.mkdir()
    colours, sharp = pair(folder, ground(side))
    with rasterio.open(colours, "r+") as dataset:
        dataset.descriptions = ("",) * 4
    colours.rename(place / f"{NAME}_MSS.tif")
    if with_pan:
        sharp.rename(place / f"{NAME}_PAN.tif")
    plain(place / f"{NAME}_MSS_Cloud.tif", (32, 32), 1, "uint8")
    (place / f"{NAME}_MSS_thumb.jpg").write_bytes(b"a picture")
    return place


def metadata(place, body):
    path = place / f"{NAME}_MSS_meta.xml"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<ProductMetaData>{body}</ProductMetaData>')
    return path


def test_a_folder_is_its_pair_sharpened(tmp_path):
    place = product(tmp_path)
    metadata(place, "<Bands>B1,B2,B3,B4</Bands><CenterTime>2025-01-12 08:40:06.5</CenterTime>")
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert pixels_of(tmp_path / "out.tif").shape == (4, 128, 128)
    assert report.input["path"].endswith("_MSS.tif")
    assert report.product["pan"]["path"].endswith("_PAN.tif")
    assert report.product["acquired"].startswith("2025-01-12T00:40:06.5")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags(ns="IMAGERY")["ACQUISITIONDATETIME"] == "2025-01-12 00:40:06"


def test_a_folder_without_pan_is_its_mss(tmp_path):
    place = product(tmp_path, with_pan=False)
    process_scene(place, tmp_path / "out.tif", model="identity")
    np.testing.assert_array_equal(pixels_of(place / f"{NAME}_MSS.tif"), pixels_of(tmp_path / "out.tif"))


def test_pan_none_leaves_pan_alone(tmp_path):
    place = product(tmp_path)
    process_scene(place, tmp_path / "out.tif", model="identity", pan="none")
    assert pixels_of(tmp_path / "out.tif").shape == (4, 32, 32)


def test_a_folder_in_the_folder_will_do(tmp_path):
    outer = tmp_path / "delivery"
    outer.mkdir()
    product(tmp_path).rename(outer / NAME)
    found = find_product(outer)
    assert (found.scene.name, found.pan.name) == (f"{NAME}_MSS.tif", f"{NAME}_PAN.tif")


def test_a_folder_with_one_raster_of_any_name(tmp_path):
    place = tmp_path / "delivery"
    place.mkdir()
    scene = plain(place / "IMAGE.TIF", (60, 50), 3)
    assert find_product(place).scene == scene
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert report.product == {"folder": str(place)}


@pytest.mark.parametrize("name", ["StCloud_MSS.tif", "landsat_cloudy.tif", "GF2_PAN_sharpened.tif"])
def test_a_word_in_a_name_makes_no_scene_a_mask_or_panchromatic(name, tmp_path):
    scene = plain(tmp_path / name, (60, 50), 4)
    plain(tmp_path / "x_cloud_mask.tif", (60, 50), 1, "uint8")
    for other in ("x_Clouds", "x_CloudShadow", "x_cloudcover"):
        plain(tmp_path / f"{other}.tif", (240, 200), 1, "uint8")
    assert find_product(tmp_path) == Product(scene)


def test_names_that_do_not_say_it_are_told_by_their_bands(tmp_path):
    place = tmp_path / "delivery"
    place.mkdir()
    plain(place / "a.tif", (60, 50), 1)
    plain(place / "b.tif", (15, 13), 4)
    found = find_product(place)
    assert (found.scene.name, found.pan.name) == ("b.tif", "a.tif")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "has no .tif"),
        (("x_PAN.tif",), "its MSS is missing"),
        (("x_MSS.tif", "y_MSS.tif"), "has 2 rasters that may be the scene (x_MSS.tif, y_MSS.tif)"),
    ],
)
def test_a_folder_that_is_no_product(names, told, tmp_path):
    place = tmp_path / "delivery"
    place.mkdir()
    for name in names:
        plain(place / name, (20, 20), 1)
    with pytest.raises(PairError) as caught:
        process_scene(place, tmp_path / "out.tif", model="identity")
    assert told in str(caught.value)


# -- metadata ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "<Bands>B1,B2,B3,B4</Bands>",
        "<BandsID>1 2 3 4</BandsID>",
        "<Bands><BandID>1</BandID><BandID>2</BandID><BandID>3</BandID><BandID>4</BandID></Bands>",
        "<Bands>Blue;Green;Red;NIR</Bands>",
        '<x:Info xmlns:x="urn:x"><x:BANDS>Band1,Band2,Band3,Band4</x:BANDS></x:Info>',
    ],
)
def test_the_order_of_the_bands(body, model, tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, body)
    assert inspect_scene(place, mask="none", model=model)["model bands"] == list(NAMES)


def test_another_order_of_the_bands(tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, "<Bands>B4,B3,B2,B1</Bands>")
    assert inspect_scene(place, model="identity")["bands"] == ["nir", "red", "green", "blue"]


@pytest.mark.parametrize("body", ["", "<Bands>4</Bands>", "<Bands>B1,B2</Bands>", "<Bands>x,y,z,w</Bands>"])
def test_metadata_that_says_nothing_of_the_bands(body, model, tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, body)
    with pytest.raises(BandError, match="--bands"):
        inspect_scene(place, mask="none", model=model)
    found = inspect_scene(place, mask="none", model=model, bands=",".join(NAMES))
    assert found["model bands"] == list(NAMES)


def test_the_rasters_own_band_names_win(tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, "<Bands>B1,B2,B3,B4</Bands>")
    with rasterio.open(place / f"{NAME}_MSS.tif", "r+") as dataset:
        dataset.descriptions = NAMES[::-1]
    assert inspect_scene(place, model="identity")["bands"] == list(NAMES[::-1])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", IN_UTC),
        ("<Other>1</Other>", IN_UTC),
        ("<CenterTime>2025-01-12 08:40:05</CenterTime>", IN_UTC),  # Beijing's, as the name's
        ("<CenterTime>2025-01-12 00:40:05</CenterTime>", IN_UTC),  # UTC
        ("<CenterTime>2025-01-12T08:40:05+08:00</CenterTime>", IN_UTC),
        ("<ImagingTime>20250112004005</ImagingTime>", IN_UTC),
        (
            "<ReceiveTime>2025-01-13 10:00:00</ReceiveTime><StartTime>2025-01-12T00:40:05Z</StartTime>",
            IN_UTC,
        ),
        ("<CenterTime>soon</CenterTime><StartTime>2025-01-12T00:40:05Z</StartTime>", IN_UTC),
        ("<CenterTime>2025-01-12</CenterTime>", IN_UTC),  # the name says more
    ],
)
def test_the_moment_of_acquisition(body, expected, tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, body)
    assert acquisition_time(place) == expected
    assert acquisition_time(place / f"{NAME}_MSS.tif") == expected


def test_without_xml_and_a_telling_name_nobody_knows(tmp_path):
    assert acquisition_time(plain(tmp_path / "scene.tif", (9, 9), 1)) is None
    assert acquisition_time(tmp_path / "not there.tif") is None


@pytest.mark.parametrize(
    "content", [b"", b"<a><b></a>", b"\xff\xfe\x00", b'<?xml version="1.0" encoding="x"?><a/>']
)
def test_broken_metadata_is_none(content, tmp_path):
    place = product(tmp_path, with_pan=False)
    (place / f"{NAME}_MSS_meta.xml").write_bytes(content)
    assert acquisition_time(place) == IN_UTC
    process_scene(place, tmp_path / "out.tif", model="identity")


def test_gains_are_told_and_not_applied(tmp_path):
    place = product(tmp_path, with_pan=False)
    metadata(place, "<Gain>0.0312,0.0298,0.03,0.04</Gain><Bias>0 0 0 1.5</Bias>")
    report = process_scene(place, tmp_path / "out.tif", model="identity")
    assert report.product["gain"] == [0.0312, 0.0298, 0.03, 0.04]
    assert report.product["bias"] == [0, 0, 0, 1.5]
    np.testing.assert_array_equal(pixels_of(place / f"{NAME}_MSS.tif"), pixels_of(tmp_path / "out.tif"))


def test_metadata_of_pan_alone_is_not_taken_for_those_of_mss(tmp_path):
    name = "JL1KF01C_PMSL3_20250112084005_200339713_101_0039_001_L1"
    mss = plain(tmp_path / f"{name}_MSS.tif", (40, 50), 4)
    for kind, taken in (("PAN", False), ("MSS", True)):
        other = tmp_path / f"{name}_{kind}_meta.xml"
        other.write_text("<ProductMetaData/>")
        assert (find_product(mss).metadata == other) == taken
        other.unlink()
