"""Batches of scenes that are named one by one: addresses, GDAL's names, a text file."""

import json
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from batch_cases import IDENTITY, scene, statuses
from command_cases import assert_one_line, call
from web_cases import serving

from decr_scene.pipeline import process_directory, process_scene
from decr_scene.pipeline.batch.names import listed_scenes, output_stem
from decr_scene.pipeline.errors import OptionError


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A server that answers as S3 does to those who need no signature."""
    with serving(tmp_path / "web") as handler:
        settings = {
            "AWS_S3_ENDPOINT": handler.place,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_NO_SIGN_REQUEST": "YES",
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield handler


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_a_scene_in_a_bucket_gives_the_same_pixels(bucket, tmp_path):
    near = scene(bucket.folder / "incoming" / "a.tif")
    report = process_scene("s3://incoming/a.tif", tmp_path / "far.tif", **IDENTITY)
    np.testing.assert_array_equal(read(tmp_path / "far.tif"), read(near))
    assert report.input["path"] == "s3://incoming/a.tif"
    assert bucket.sent


def test_an_item_whose_raster_is_on_the_web_is_fetched_once(bucket, tmp_path):
    scene(bucket.folder / "far.tif")
    asset = {
        "href": f"{bucket.address}/far.tif",
        "roles": ["data"],
        "type": "image/tiff; application=geotiff",
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "far",
        "assets": {"far": asset},
        "properties": {},
    }
    (tmp_path / "item.json").write_text(json.dumps(item | {"geometry": None, "links": []}))
    (tmp_path / "list.txt").write_text("item.json")
    assert statuses(process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)) == ["done"]
    bucket.sent.clear()
    assert statuses(process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)) == ["skipped"]
    assert not bucket.sent


def test_a_text_file_names_scenes_anywhere_and_a_rerun_does_nothing(bucket, tmp_path):
    scene(tmp_path / "near.tif")
    for name in ("far", "bucket"):
        scene(bucket.folder / "incoming" / f"{name}.tif")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(scene(tmp_path / "packed.tif"), "inside.tif")
    wanted = ["near.tif", "", "# a comment", f"{bucket.address}/incoming/far.tif", "s3://incoming/bucket.tif"]
    (tmp_path / "list.txt").write_text("\n".join([*wanted, f"/vsizip/{tmp_path}/all.zip/inside.tif"]))
    first = process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
    assert statuses(first) == ["done"] * 4, first
    made = sorted(path.name for path in (tmp_path / "out").glob("*.tif") if "_" not in path.name)
    assert made == ["bucket.tif", "far.tif", "inside.tif", "near.tif"]
    again = process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
    assert statuses(again) == ["skipped"] * 4, again


def test_one_address_is_a_batch_of_one_and_what_is_not_there_is_told(bucket, tmp_path):
    out = tmp_path / "out"
    called = call("batch", "s3://incoming/none.tif", "--out", out, "--model", "identity", "--quiet")
    assert_one_line(called, 1, "failed s3://incoming/none.tif")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("https://host/a/scene.tif?token=x.y", "scene"),
        ("s3://bucket/a%20b.tif", "a_b"),
        ("/vsizip/x.zip/in/c.tif", "c"),
        ('NETCDF:"/data/day.nc":blue', "day_blue"),
        ('ZARR:"/data/store.zarr":/group/var', "store_group_var"),
        ("/data/scene.v2.tif", "scene.v2"),
        ("GTIFF_DIR:2:/data/pages.tif", "pages_2"),
        ("https://host/", "host"),
    ],
)
def test_an_output_is_named_after_the_last_part_of_its_scene(name, stem):
    assert output_stem(name) == stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("JL1GF03_PMS_1.5", "JL1GF03_PMS_1.5"),
        ("S2A_MSIL1C.SAFE", "S2A_MSIL1C"),
        ("store.zarr", "store"),
        ("x.gdb", "x"),
    ],
)
def test_a_dot_in_the_name_of_a_folder_may_be_one_of_a_number(name, stem, tmp_path):
    (tmp_path / name).mkdir()
    assert output_stem(str(tmp_path / name)) == stem
    assert output_stem(f"{tmp_path / name}/") == stem


def test_two_names_of_one_output_are_refused_before_any_work(tmp_path):
    (tmp_path / "list.txt").write_text("s3://a/x.tif\ns3://b/x.tif\n")
    with pytest.raises(OptionError, match="would both become"):
        process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"II*\0\x08\0\xff", "is a file, expected a folder of scenes or a text file"),
        (b"\n# nothing\n", "names no scene"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_one_line(content, said, tmp_path):
    (tmp_path / "scene.tif").write_bytes(content)
    called = call("batch", tmp_path / "scene.tif", "--out", tmp_path / "out", "--model", "identity")
    assert_one_line(called, 2, said)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_a_list_is_read_in_the_encoding_that_it_has(encoding, tmp_path):
    (tmp_path / "list.txt").write_bytes("吉林.tif\r\n".encode(encoding))
    (entry,) = listed_scenes(tmp_path / "list.txt", tmp_path / "out")
    assert entry.input == str(tmp_path / "吉林.tif")


@pytest.mark.parametrize(("driver", "name"), [("Zarr", 'ZARR:"{}":/store'), ("netCDF", 'NETCDF:"{}":Band1')])
def test_a_variable_of_a_store_is_a_scene_by_its_gdal_name(driver, name, tmp_path):
    near, store = scene(tmp_path / "near.tif"), tmp_path / ("store.zarr" if driver == "Zarr" else "store.nc")
    rasterio.shutil.copy(near, store, driver=driver)
    (tmp_path / "list.txt").write_text(name.format(store))
    report = process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
    assert statuses(report) == ["done"], report
    np.testing.assert_array_equal(read(report.scenes[0].output), read(near))
