"""STAC Items in the place of scenes."""

import json

import pytest
import rasterio
from command_cases import call
from raster_cases import plain
from remote_cases import process, stac_properties

from decr_scene.pipeline.errors import PairError
from decr_scene.pipeline.products.delivery import delivered
from decr_scene.pipeline.products.stac_item import find_asset

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"

BANDS = [{"name": "B2", "common_name": "blue"}, {"name": "B8", "common_name": "nir"}]


def item(path, assets):
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "one", "assets": assets}))
    return path


def test_the_asset_of_an_item_is_taken_with_its_bands(server, tmp_path):
    plain(server.folder / "two.tif", (60, 50), 2)
    data = {"href": "./two.tif", "type": TIFF, "roles": ["data"], "eo:bands": BANDS}
    small = {"href": "small.png", "type": "image/png", "roles": ["thumbnail"]}
    item(server.folder / "item.json", {"image": data, "thumbnail": small})
    for place in (server.folder / "item.json", f"{server.address}/item.json"):
        report = process(place, tmp_path / "o.tif", overwrite=True)
        assert report.product["asset"] == "image"
    assert "blue, nir" in call("inspect", server.folder / "item.json", "--model", "identity").stdout
    assert find_asset(server.folder / "item.json", None).bands == "blue,nir"


def test_blanks_and_letters_in_references_of_an_item_on_the_web_are_encoded(server, tmp_path):
    plain(server.folder / "my bïg scene.tif", (60, 50), 1)
    for href in ("my bïg scene.tif", f"{server.address}/my bïg scene.tif", "my%20b%C3%AFg%20scene.tif"):
        item(server.folder / "item.json", {"image": {"href": href, "type": TIFF}})
        report = process(f"{server.address}/item.json", tmp_path / "o.tif", overwrite=True)
        assert report.input["path"] == f"{server.address}/my%20b%C3%AFg%20scene.tif"


def test_the_host_of_a_reference_stays_as_it_is(tmp_path):
    item(tmp_path / "item.json", {"image": {"href": "https://bücher.example/a bï.tif?b=c d", "type": TIFF}})
    assert find_asset(tmp_path / "item.json", None).href == "https://bücher.example/a%20b%C3%AF.tif?b=c%20d"


@pytest.mark.parametrize(
    ("times", "tag", "told"),
    [
        ({"datetime": "2024-05-06T07:08:09Z"}, {}, "2024-05-06T07:08:09Z"),
        (
            {"datetime": "2024-05-06T07:08:09Z"},
            {"TIFFTAG_DATETIME": "2025:01:01 00:00:00"},
            "2024-05-06T07:08:09Z",
        ),
        (
            {"datetime": "2024-05-06T07:08:09Z"},
            {"ACQUISITION_TIME": "2023-01-01T00:00:00"},
            "2023-01-01T00:00:00Z",
        ),
        (
            {
                "datetime": None,
                "start_datetime": "2024-05-06T00:00:00Z",
                "end_datetime": "2024-05-07T00:00:00Z",
            },
            {},
            None,
        ),
    ],
)
def test_the_time_of_an_item_counts_where_the_raster_says_none(times, tag, told, tmp_path):
    raster = plain(tmp_path / "scene.tif", (60, 50), 1)
    with rasterio.open(raster, "r+") as dataset:
        dataset.update_tags(**tag)
    path = item(tmp_path / "item.json", {"image": {"href": "scene.tif", "type": TIFF}})
    path.write_text(json.dumps({**json.loads(path.read_text()), "properties": times}))
    report = process(path, tmp_path / "o.tif", stac=True)
    assert report.product["item acquired"].startswith("2024-05-06")
    properties = stac_properties(tmp_path / "o.tif")
    assert properties["datetime"] == told
    assert told or (properties["start_datetime"], properties["end_datetime"]) == (
        "2024-05-06T00:00:00Z",
        "2024-05-07T00:00:00Z",
    )


def test_of_several_assets_one_is_to_be_named(tmp_path):
    one, other = ({"href": f"{name}.tif", "type": TIFF, "roles": ["data"]} for name in ("one", "other"))
    path = item(tmp_path / "item.json", {"one": one, "other": other})
    with pytest.raises(PairError, match=r"several assets that may be the scene \(one, other\).*--asset"):
        find_asset(path, None)
    assert find_asset(path, "other").href == str(tmp_path / "other.tif")
    with pytest.raises(PairError, match="no asset third, it has one, other"):
        find_asset(path, "third")


def test_json_that_is_no_item_is_none(tmp_path):
    (tmp_path / "a.json").write_text('{"type": "FeatureCollection", "features": []}')
    assert find_asset(tmp_path / "a.json", None) is None
    assert find_asset(tmp_path / "no.json", None) is None


def test_roles_that_are_null_are_none(tmp_path):
    path = tmp_path / "item.json"
    path.write_text('{"stac_version": "1.0.0", "assets": {"a": {"href": "a.tif", "roles": null}}}')
    assert find_asset(path, None).href == str(tmp_path / "a.tif")


def test_an_asset_of_what_is_no_item_is_refused(tmp_path):
    with (
        pytest.raises(PairError, match=r"scene\.tif is no STAC Item"),
        delivered(tmp_path / "scene.tif", tmp_path / "out.tif", asset="data"),
    ):
        pass
