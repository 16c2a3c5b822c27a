"""Secrets of addresses are written nowhere, in whole runs."""

import pytest
from command_cases import assert_one_line, call
from raster_cases import plain
from remote_cases import process
from web_cases import serving_apart

from decr_scene.pipeline.errors import SceneReadError
from decr_scene.pipeline.inputs import remote
from decr_scene.pipeline.inputs.addresses import without_secrets

AGAIN = "?X-Amz-Date=2&X-Amz-Credential=HUSH%2F2%2Feu&X-Amz-Signature=HUSH2"

SIGNED = "?X-Amz-Date=1&X-Amz-Credential=HUSH%2F1%2Feu&X-Amz-Signature=HUSH"


def test_a_password_in_an_address_is_not_written_down(server, scene, tmp_path):
    with pytest.raises(SceneReadError, match="GDAL_HTTP_USERPWD") as told:
        process(f"http://me:secret@{server.place}/scene.tif", tmp_path / "o.tif")
    assert "secret" not in str(told.value)


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
