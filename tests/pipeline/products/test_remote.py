"""Scenes at web addresses, read from a real server, and STAC Items in the place of scenes."""

import json
from contextlib import suppress

import numpy as np
import pytest
import rasterio
from command_cases import assert_one_line, call
from pansharpen_cases import ground, pair
from raster_cases import described, plain
from web_cases import serving, serving_apart

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import DiskSpaceError, PairError, ResumeError, SceneReadError
from decr_scene.pipeline.files import source_path
from decr_scene.pipeline.inputs import remote
from decr_scene.pipeline.inputs.addresses import without_secrets
from decr_scene.pipeline.products.delivery import delivered
from decr_scene.pipeline.products.stac_item import find_asset


@pytest.fixture
def server(tmp_path):
    """A server of a folder; what it sent is in ``sent``."""
    with serving(tmp_path / "web") as handler:
        yield handler


@pytest.fixture
def scene(server):
    return described(server.folder / "scene.tif", ("blue", "green", "red", "nir"))


def process(address, out, **options):
    return process_scene(address, out, model="identity", **options)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_scene_is_fetched_once_and_gives_the_same_pixels(server, scene, tmp_path):
    report = process(f"{server.address}/scene.tif", tmp_path / "far.tif")
    assert sum(count for _, count in server.sent) == scene.stat().st_size
    assert report.input["path"] == f"{server.address}/scene.tif"
    assert report.product["etag"]
    process(scene, tmp_path / "near.tif")
    with rasterio.open(tmp_path / "far.tif") as one, rasterio.open(tmp_path / "near.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "lie", [{"Content-Range": "bytes 7-106/999"}, {"ETag": '"another"'}, {"Content-Range": "x"}]
)
def test_a_piece_that_is_not_the_rest_is_refused(lie, server, scene, tmp_path, monkeypatch):
    """Appended, it would be another raster."""
    told = server.send_header
    size = scene.stat().st_size
    server.breaks.append(size // 2)

    def send(self, name, value):
        told(self, name, lie.get(name, value) if "Range" in self.headers else value)

    monkeypatch.setattr(server, "send_header", send)
    monkeypatch.setattr(remote, "PAUSE", 0)
    with pytest.raises(SceneReadError, match=rf"another piece than the rest from byte {size // 2} on"):
        process(f"{server.address}/scene.tif", tmp_path / "far.tif")
    monkeypatch.undo()
    process(f"{server.address}/scene.tif", tmp_path / "far.tif")


def test_a_length_that_is_no_number_is_none(server, scene, tmp_path, monkeypatch):
    told = server.send_header

    def send(self, name, value):
        told(self, name, "many" if name == "Content-Length" else value)

    monkeypatch.setattr(server, "send_header", send)
    process(f"{server.address}/scene.tif", tmp_path / "far.tif")
    with rasterio.open(tmp_path / "far.tif") as one, rasterio.open(scene) as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_a_mask_beside_the_scene_comes_along(server, tmp_path):
    path = plain(server.folder / "scene.tif", (60, 50), 1)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        mask = np.full((60, 50), 255, "uint8")
        mask[:20] = 0
        dataset.write_mask(mask)
    assert (server.folder / "scene.tif.msk").exists()
    process(f"{server.address}/scene.tif", tmp_path / "far.tif")
    with rasterio.open(tmp_path / "far.tif") as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1), mask)
    assert hidden(tmp_path) == []


def test_a_scene_that_is_fetched_may_be_sharpened(server, tmp_path):
    colours, sharp = pair(server.folder, ground())
    report = process(f"{server.address}/{colours.name}", tmp_path / "far.tif", pan=str(sharp))
    assert all(report.checks.values())
    assert hidden(tmp_path) == []


def test_a_connection_that_breaks_goes_on_where_it_stopped(server, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    server.breaks += [1000, 5000]
    process(f"{server.address}/scene.tif", tmp_path / "o.tif")
    assert sum(count for _, count in server.sent) == scene.stat().st_size


def test_one_that_stays_broken_is_one_line_and_the_same_command_goes_on(server, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    server.breaks += [1000] * 5
    words = ("process", f"{server.address}/scene.tif", "--out", tmp_path / "o.tif", "--model", "identity")
    assert_one_line(call(*words), 1, "the connection broke", "the same command goes on")
    assert not (tmp_path / "o.tif").exists()
    server.breaks.clear()
    server.sent.clear()
    assert call(*words).exit_code == 0
    assert sum(count for _, count in server.sent) == scene.stat().st_size - 1000


def test_another_file_at_the_address_is_fetched_anew(server, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    server.breaks += [1000] * 5
    with pytest.raises(SceneReadError):
        process(f"{server.address}/scene.tif", tmp_path / "o.tif")
    server.breaks.clear()
    described(scene, ("nir", "green", "red", "blue"))
    process(f"{server.address}/scene.tif", tmp_path / "o.tif")
    with rasterio.open(scene) as one, rasterio.open(tmp_path / "o.tif") as other:
        assert one.descriptions == other.descriptions
        np.testing.assert_array_equal(one.read(), other.read())


def test_two_runs_of_one_output_never_fetch_at_a_time(server, scene, tmp_path, monkeypatch):
    address, out, told = f"{server.address}/scene.tif", tmp_path / "o.tif", []
    fetch = remote._fetch

    def with_another(*arguments):
        monkeypatch.setattr(remote, "_fetch", fetch)
        fetch(*arguments)
        with pytest.raises(ResumeError, match="in use") as refused:
            process(address, out)
        told.append(refused.value)

    monkeypatch.setattr(remote, "_fetch", with_another)
    process(address, out)
    assert len(told) == 1
    assert sum(count for _, count in server.sent) == scene.stat().st_size
    assert hidden(tmp_path) == []


def test_what_is_not_there_is_one_line(server, tmp_path):
    words = ("process", f"{server.address}/no.tif", "--out", tmp_path / "o.tif", "--model", "identity")
    assert_one_line(call(*words), 1, "no such file there", "404")
    assert hidden(tmp_path) == []


def test_nothing_is_fetched_for_an_output_that_is_refused(server, scene, tmp_path):
    plain(tmp_path / "o.tif", (9, 9), 1)
    words = ("process", f"{server.address}/scene.tif", "--out", tmp_path / "o.tif", "--model", "identity")
    assert_one_line(call(*words), 1, "--overwrite")
    assert server.sent == []
    assert not source_path(tmp_path / "o.tif").exists()


def item(path, assets):
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "one", "assets": assets}))
    return path


BANDS = [{"name": "B2", "common_name": "blue"}, {"name": "B8", "common_name": "nir"}]
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


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


def stac_properties(out):
    return json.loads(out.with_suffix(".stac.json").read_text())["properties"]


def test_a_scene_that_is_fetched_keeps_its_own_name(server, tmp_path):
    name = "JL1KF01C_PMS01_20250112084005_200339713_101_0039_001_L1_MSS.tif"
    plain(server.folder / name, (60, 50), 1)
    report = process(f"{server.address}/{name}?sig=x", tmp_path / "o.tif", stac=True)
    assert report.product["acquired"] == "2025-01-12T00:40:05+00:00"
    told = stac_properties(tmp_path / "o.tif")
    assert told["datetime"] == "2025-01-12T00:40:05Z"
    assert told["processing:lineage"] == f"Clouds of {name} removed with identity"


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


def test_a_run_that_ended_before_its_report_goes_on_without_fetching(server, scene, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    address, out = f"{server.address}/{scene.name}", tmp_path / "out.tif"
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("decr_scene.pipeline.outputs.conclusion.verify_pixels", interrupted)
        process(address, out)
    assert out.exists()
    assert not out.with_suffix(".json").exists()
    server.sent.clear()
    assert not process(address, out).faults
    assert server.sent == []


@pytest.mark.parametrize("damage", ["html", "cut"])
def test_what_came_and_is_no_whole_raster_is_told_by_its_address_and_fetched_anew(
    damage, server, scene, tmp_path
):
    """Not by the name of a hidden copy; and a damaged copy is not used again."""
    whole = scene.read_bytes()
    scene.write_bytes(b"<html>sorry</html>" if damage == "html" else whole[: len(whole) // 2])
    address = f"{server.address}/scene.tif"
    words = ("process", address, "--out", tmp_path / "o.tif", "--model", "identity")
    told = call(*words)
    assert_one_line(told, 1, address)
    assert "partial" not in told.stderr
    assert "same command goes on" not in told.stderr
    scene.write_bytes(whole)
    assert call(*words, "--no-resume").exit_code == 0
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1/scene.tif",
        "http://127.0.0.1:port/scene.tif",
        "http://127.0.0.1/my scene.tif",
        f"http://{'a' * 70}/scene.tif",
        "http:///scene.tif",
        "http://[::1/item.json",
    ],
)
def test_what_is_no_address_is_one_line(address, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    told = call("process", address, "--out", tmp_path / "o.tif", "--model", "identity")
    assert_one_line(told, 1, "check")
    assert "unexpected" not in told.stderr
    assert "what has come" not in told.stderr
    assert hidden(tmp_path) == []


def test_a_redirection_to_nowhere_is_one_line(server, tmp_path, monkeypatch):
    def lead_away(handler):
        handler.send_response(302)
        handler.send_header("Location", "http://[::1/scene.tif")
        handler.end_headers()

    monkeypatch.setattr(server, "do_GET", lead_away)
    with pytest.raises(SceneReadError, match="leads to none"):
        process(f"{server.address}/scene.tif", tmp_path / "o.tif")


def test_a_password_in_an_address_is_not_written_down(server, scene, tmp_path):
    with pytest.raises(SceneReadError, match="GDAL_HTTP_USERPWD") as told:
        process(f"http://me:secret@{server.place}/scene.tif", tmp_path / "o.tif")
    assert "secret" not in str(told.value)


SIGNED = "?X-Amz-Date=1&X-Amz-Credential=HUSH%2F1%2Feu&X-Amz-Signature=HUSH"
AGAIN = "?X-Amz-Date=2&X-Amz-Credential=HUSH%2F2%2Feu&X-Amz-Signature=HUSH2"


def texts_in(folder):
    return "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())


def test_a_signature_is_written_nowhere(server, scene, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    options = ("--model", "identity", "--log", out / "log.txt", "--stac", "--polygons", out / "o.gpkg")
    told = call("process", f"{server.address}/scene.tif{SIGNED}", "--out", out / "o.tif", *options)
    assert told.exit_code == 0, told.output
    for ending in (".json", ".stac.json"):
        assert "scene.tif" in (out / "o.tif").with_suffix(ending).read_text()
    assert "X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Signature=***" in (out / "o.json").read_text()
    assert "HUSH" not in texts_in(out) + told.output


def test_a_signature_in_an_option_and_in_a_name_of_gdal_is_not_written_down(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with serving_apart(tmp_path / "web") as address:
        plain(tmp_path / "web" / "scene.tif", (60, 50), 1)
        plain(tmp_path / "web" / "mask.tif", (60, 50), 1)
        name, mask = (f"/vsicurl/{address}/{each}.tif?sig=HUSH" for each in ("scene", "mask"))
        report = process(name, out / "o.tif", mask=mask, mask_values="1", stac=True)
    assert report.parameters["mask"] == without_secrets(mask)
    assert report.input["path"] == without_secrets(name)
    assert "HUSH" not in texts_in(out)


@pytest.mark.parametrize("name", ["no.tif", "no.json"])
def test_an_error_tells_no_signature(name, server, tmp_path):
    told = call("process", f"{server.address}/{name}{SIGNED}", "--out", tmp_path / "o.tif")
    assert_one_line(told, 1, f"{server.address}/{name}?X-Amz-Date=1&X-Amz-Credential=***")
    with pytest.raises(SceneReadError, match=r"\*\*\*: no such file") as error:
        process(f"{server.address}/{name}{SIGNED}", tmp_path / "o.tif")
    assert "HUSH" not in told.output + str(error.value)


def test_an_address_that_is_signed_anew_goes_on_where_the_connection_broke(
    server, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "PAUSE", 0)
    server.breaks += [1000] * 5
    with pytest.raises(SceneReadError, match="the connection broke"):
        process(f"{server.address}/scene.tif{SIGNED}", tmp_path / "o.tif")
    assert "HUSH" not in "".join(path.read_text("latin-1") for path in tmp_path.glob(".*.json"))
    server.breaks.clear()
    server.sent.clear()
    process(f"{server.address}/scene.tif{AGAIN}", tmp_path / "o.tif")
    assert sum(count for _, count in server.sent) == scene.stat().st_size - 1000


def test_a_server_that_gives_a_byte_at_a_time_is_left(server, scene, tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 10))  # s: every byte takes ten
    monkeypatch.setattr(remote.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(remote, "PAUSE", 0)
    monkeypatch.setattr(remote, "_CHUNK", 1)
    with pytest.raises(SceneReadError, match=r"only \d+ bytes in 60 s"):
        remote._fetch(f"{server.address}/scene.tif", tmp_path / "part", tmp_path / "state")


def test_a_server_that_sends_nothing_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0)
    monkeypatch.setattr(server, "do_GET", lambda handler: None)
    with pytest.raises(SceneReadError, match="nothing comes from there"):
        process(f"{server.address}/scene.tif", tmp_path / "o.tif")
    assert hidden(tmp_path) == []


def test_a_range_that_was_not_asked_for_and_is_refused_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "do_GET", lambda handler: handler.send_error(416))
    with pytest.raises(SceneReadError, match="HTTP 416"):
        process(f"{server.address}/scene.tif", tmp_path / "o.tif")


def test_what_the_disk_has_no_room_for_is_not_begun(server, scene, tmp_path, monkeypatch):
    told = server.send_header
    monkeypatch.setattr(
        server,
        "send_header",
        lambda self, name, value: told(self, name, str(10**15) if name == "Content-Length" else value),
    )
    with pytest.raises(DiskSpaceError, match="still to come"):
        process(f"{server.address}/scene.tif", tmp_path / "o.tif")


def test_a_server_that_hangs_at_a_sidecar_is_asked_for_no_more(tmp_path, monkeypatch):
    asked = []

    def hang(address, headers):
        asked.append(address)
        raise TimeoutError

    monkeypatch.setattr(remote, "_open", hang)
    remote._fetch_sidecars("http://127.0.0.1/scene.tif", tmp_path / "scene.tif")
    assert asked == ["http://127.0.0.1/scene.tif.msk"]
    assert not list(tmp_path.iterdir())
