"""Scenes, metadata and areas with texts in other encodings than UTF-8: read, and kept as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio
from click.testing import CliRunner
from rasterio.transform import Affine

from decr_scene.models.errors import DecrSceneError
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.raster.vrt import band_tags, scene_tags
from decr_scene.pipeline.run import process_scene

ODD = {
    "latin-1": b"\xe9\xf1\xb5",
    "gbk": b"\xc0\xb6\xba",
    "U+FFFE": b"\xef\xbf\xbe",
    "half a character": b"\xe8\x93:",
}


def tagged(path: Path, odd: bytes) -> Path:
    """A scene with the same odd bytes in the tags of all kinds, and in the names of its bands."""
    cases.plain(path, (40, 50), 4)
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_ARTIST="Jos@@@", TIFFTAG_IMAGEDESCRIPTION="@@@", STATION="Instrument @@@")
        file.update_tags(ns="VENDOR", station="@@@ 7")
        file.update_tags(1, lamp="@@@")
        file.update_tags(2, ns="CALIBRATION", lamp="<@@@>")
        file.descriptions = ("blue @@@", "green", "red", "nir")
    path.write_bytes(path.read_bytes().replace(b"@@@", odd))
    return path


@pytest.mark.parametrize("kind", ODD)
def test_tags_and_names_of_any_bytes_are_kept(kind, tmp_path):
    path, clean = tagged(tmp_path / "a.tif", ODD[kind]), tmp_path / "o.tif"
    report = process_scene(path, clean, model="identity")
    assert all(report.checks.values())
    assert clean.read_bytes().count(ODD[kind]) >= path.read_bytes().count(ODD[kind])
    with rasterio.open(path) as one, rasterio.open(clean) as other:
        assert scene_tags(one) == scene_tags(other)
        assert [band_tags(one, n) for n in (1, 2)] == [band_tags(other, n) for n in (1, 2)]
        assert {"TIFFTAG_ARTIST", "STATION"} <= set(scene_tags(other)[""])
        assert set(band_tags(other, 2)) == {"CALIBRATION"}


def test_a_log_that_is_silent_hides_no_tag(tmp_path, caplog):
    path = tagged(tmp_path / "a.tif", b"\xe9\xf1\xb5")
    caplog.set_level("CRITICAL", logger="rasterio")
    with rasterio.open(path) as dataset:
        assert scene_tags(dataset)["VENDOR"]["station"].endswith(" 7")


def test_an_xmp_packet_in_latin_1_is_kept(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (40, 50), 4)
    packet = '<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><a>caf@</a></x:xmpmeta>'
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="xml:XMP", **{"xml:XMP": packet})
    path.write_bytes(path.read_bytes().replace(b"caf@", b"caf\xe9"))
    assert all(process_scene(path, tmp_path / "o.tif", model="identity").checks.values())
    assert b"caf\xe9" in (tmp_path / "o.tif").read_bytes()


def test_tags_in_a_file_beside_the_scene_may_be_of_any_encoding(tmp_path):
    path = cases.plain(tmp_path / "a.png", (40, 50), 3, "uint8", driver="PNG", crs=None, compress=None)
    text = b'<PAMDataset><Metadata><MDI key="PLACE">caf\xe9</MDI></Metadata></PAMDataset>'
    Path(f"{path}.aux.xml").write_bytes(text)
    assert all(process_scene(path, tmp_path / "o.tif", model="identity").checks.values())
    assert b"caf\xe9" in (tmp_path / "o.tif").read_bytes()


# -- metadata beside the scene -------------------------------------------------------------------------------

NAME = "JL1KF01B_PMSL3_20250112084005_200339713_101_0039_001_L1"
XML = (
    "<Product><Provider>长光卫星</Provider><CenterTime>2025-01-12 08:40:07.5</CenterTime>"
    "<Bands>1,2,3,4</Bands><Gain>0.1,0.2,0.3,0.4</Gain></Product>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb2312", "gbk", "gb18030", "utf-16"])
def test_metadata_of_a_vendor_are_read_as_they_declare(encoding, tmp_path):
    cases.plain(tmp_path / f"{NAME}_MSS.tif", (40, 50), 4)
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n{XML}'
    (tmp_path / f"{NAME}_MSS_meta.xml").write_bytes(text.encode(encoding))
    found = inspect_scene(tmp_path, model="identity")
    assert found["bands"] == ["blue", "green", "red", "nir"]
    assert found["warnings"] == []


@pytest.mark.parametrize("raw", [XML[:60].encode(), b"", b"\x00\x01", b"<A>\x01</B>"])
def test_metadata_that_cannot_be_read_are_not_dropped_in_silence(raw, tmp_path):
    cases.plain(tmp_path / f"{NAME}_MSS.tif", (40, 50), 4)
    (tmp_path / f"{NAME}_MSS_meta.xml").write_bytes(raw)
    report = process_scene(tmp_path, tmp_path / "o.tif", model="identity")
    assert any("cannot be read as XML" in warning for warning in report.warnings)


def test_two_files_of_metadata_are_told_of(tmp_path):
    path = cases.plain(tmp_path / f"{NAME}_MSS.tif", (40, 50), 4)
    for name in ("one", "two"):
        (tmp_path / f"{name}_meta.xml").write_text(XML)
    assert any(
        "one_meta.xml, two_meta.xml" in told for told in inspect_scene(path, model="identity")["warnings"]
    )


# -- areas of interest ---------------------------------------------------------------------------------------


def area(name: str) -> str:
    x, y = 400000, 4433000
    ring = [[x, y], [x + 10, y], [x + 10, y - 10], [x, y - 10], [x, y]]
    feature = {
        "type": "Feature",
        "properties": {"name": name},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32650"}}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}, ensure_ascii=False)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "latin-1", "cp1252", "gbk", "utf-16", "utf-16-le", "utf-32"]
)
def test_an_area_may_be_of_any_encoding(encoding, tmp_path):
    path = cases.plain(tmp_path / "a.tif", (60, 70), 4)
    (tmp_path / "area.geojson").write_bytes(area("red 红" if encoding == "gbk" else "Núñez").encode(encoding))
    report = process_scene(
        path,
        tmp_path / "o.tif",
        restorer=lambda tiles, noise: tiles * 0.5,
        mask="none",
        aoi=str(tmp_path / "area.geojson"),
    )
    assert all(report.checks.values())
    with rasterio.open(path) as one, rasterio.open(tmp_path / "o.tif") as other:
        assert 0 < np.mean(one.read() != other.read()) < 0.5


@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\x1e", ""])
def test_an_area_may_have_a_feature_a_line(between, tmp_path):
    path = cases.plain(tmp_path / "a.tif", (60, 70), 4)
    ring = [[115.82, 40.04], [115.83, 40.04], [115.83, 40.05], [115.82, 40.05], [115.82, 40.04]]
    place = {"type": "Polygon", "coordinates": [ring]}
    line = json.dumps({"type": "Feature", "properties": {}, "geometry": place})
    lead = "\x1e" if "\x1e" in between else ""
    (tmp_path / "area.geojsonl").write_text(lead + between.join([line] * 3))
    found = inspect_scene(path, model="identity", aoi=str(tmp_path / "area.geojsonl"))
    assert found["tiles"] == 1


# -- the terminal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\x1b[31m.tif", "b\x9b2J.tif", "evil\u202efig.tif", "line\nfeed\x07.tif"])
@pytest.mark.parametrize("command", ["process", "inspect", "none"])
def test_no_name_steers_the_terminal(name, command, tmp_path):
    path = cases.plain(tmp_path / "a.tif", (40, 50), 4).rename(tmp_path / name)
    args = ["inspect", str(path), "--model", "identity"]
    if command != "inspect":
        args = ["process", str(path), "--out", str(tmp_path / f"o{name}"), "--model", "identity"]
        args += ["--log", str(tmp_path / "log.txt")]
    if command == "none":
        path.unlink()
    done = CliRunner().invoke(main, args)
    assert (done.exit_code == 0) == (command != "none")
    logged = (tmp_path / "log.txt").read_text("utf-8") if command != "inspect" else ""
    assert not set(done.output + logged) & {"\x1b", "\x9b", "\u202e", "\x07"}
    assert not any(line.startswith("feed") for line in (done.output + logged).splitlines())


@pytest.mark.parametrize("role", ["scene", "mask"])
def test_a_crs_whose_name_is_no_utf8_is_refused(role, tmp_path):
    scene, named = cases.plain(tmp_path / "scene.tif", (40, 50), 1), tmp_path / "named.vrt"
    text = cases.vrt_of(scene)
    head, tail = text.split("<SRS", 1)[0], text.split("</SRS>", 1)[1]
    wkt = 'LOCAL_CS["Gr\u00fcn",UNIT["metre",1]]'.replace('"', "&quot;")
    named.write_bytes(f"{head}<SRS>{wkt}</SRS>{tail}".encode("latin-1"))
    given = {"src": named} if role == "scene" else {"src": scene, "mask": str(named)}
    with pytest.raises(DecrSceneError, match=r"CRS.* is no UTF-8"):
        process_scene(dst=tmp_path / "out.tif", model="identity", **given)


def test_a_mask_that_lies_nowhere_is_refused(tmp_path):
    scene = cases.plain(tmp_path / "scene.tif", (40, 50), 1)
    mask = cases.write(
        tmp_path / "mask.tif", np.ones((1, 40, 50), np.uint8), transform=Affine(0, 0, 5e5, 0, 0, 4e6)
    )
    with pytest.raises(MaskError, match="geotransform"):
        process_scene(scene, tmp_path / "out.tif", model="identity", mask=str(mask))


def test_nan_in_a_mask_is_told_and_a_mask_of_nan_alone_is_refused(tmp_path):
    """It is neither cloud nor clear; what was meant nobody knows."""
    scene = cases.plain(tmp_path / "scene.tif", (40, 50), 1)
    marks = np.zeros((1, 40, 50), np.float32)
    marks[:, :10] = np.nan
    mask = cases.write(tmp_path / "mask.tif", marks)
    told = inspect_scene(scene, model="identity", mask=str(mask))["warnings"]
    assert "NaN or infinite on 25 % of the scene" in told[0]
    cases.write(mask, marks, nodata=np.nan)
    declared = inspect_scene(scene, model="identity", mask=str(mask))["warnings"]
    assert "infinite on" not in " ".join(declared)
    cases.write(mask, np.full_like(marks, np.nan))
    with pytest.raises(MaskError, match="is nodata or NaN there"):
        inspect_scene(scene, model="identity", mask=str(mask))


def test_a_domain_of_tags_whose_name_is_no_utf8_is_refused(tmp_path):
    scene = cases.plain(tmp_path / "scene.tif", (40, 50), 1)
    text = b'<PAMDataset><Metadata domain="caf\xe9"><MDI key="A">1</MDI></Metadata></PAMDataset>'
    Path(f"{scene}.aux.xml").write_bytes(text)
    with pytest.raises(DecrSceneError, match=r"a domain of tags whose name is no UTF-8 .caf"):
        process_scene(scene, tmp_path / "out.tif", model="identity")
