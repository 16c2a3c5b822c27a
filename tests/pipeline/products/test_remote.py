"""Scenes at web addresses, read from a real server."""

from contextlib import suppress

import numpy as np
import pytest
import rasterio
from command_cases import assert_one_line, call
from pansharpen_cases import ground, pair
from raster_cases import described, plain
from remote_cases import hidden, process, stac_properties

from decr_scene.pipeline.errors import DiskSpaceError, ResumeError, SceneReadError
from decr_scene.pipeline.files import source_path
from decr_scene.pipeline.inputs import remote


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


def test_a_scene_that_is_fetched_keeps_its_own_name(server, tmp_path):
    name = "JL1KF01C_PMS01_20250112084005_200339713_101_0039_001_L1_MSS.tif"
    plain(server.folder / name, (60, 50), 1)
    report = process(f"{server.address}/{name}?sig=x", tmp_path / "o.tif", stac=True)
    assert report.product["acquired"] == "2025-01-12T00:40:05+00:00"
    told = stac_properties(tmp_path / "o.tif")
    assert told["datetime"] == "2025-01-12T00:40:05Z"
    assert told["processing:lineage"] == f"Clouds of {name} removed with identity"


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
