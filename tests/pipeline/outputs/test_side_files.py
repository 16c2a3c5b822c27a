"""Files beside an output: refused before the work where they cannot be; one that fails stops no other."""

import json
import re
import shutil

import pytest
import rasterio
from click.testing import CliRunner
from raster_cases import plain
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError

from decr_scene.pipeline import process_directory, process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.engine.flow import Flow
from decr_scene.pipeline.errors import OutputError, SceneError
from decr_scene.pipeline.outputs import metadata_checks
from decr_scene.pipeline.outputs.names import SIDE_FILES
from decr_scene.pipeline.outputs.polygons import Polygons
from decr_scene.pipeline.outputs.stac import StacItem
from decr_scene.pipeline.outputs.style import Style

SITE = 'LOCAL_CS["Site grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


def full_disk(self, run, path):
    path.write_text("half of it")
    raise OSError("No space left on device")


@pytest.mark.parametrize("wish", [{"stac": True}, {"polygons": "areas.geojson"}])
def test_a_site_grid_has_no_longitudes_and_is_refused_before_any_work(wish, tmp_path):
    scene = plain(tmp_path / "scene.tif", (40, 50), 1, crs=CRS.from_wkt(SITE))
    wish = {name: value if value is True else tmp_path / value for name, value in wish.items()}
    with pytest.raises(SceneError, match="longitudes and latitudes"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", **wish)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("wish", [{"stac": True}, {"polygons": "areas.geojson"}, {"polygons": "areas.gpkg"}])
def test_a_scene_that_lies_nowhere_is_refused_before_any_work(wish, tmp_path):
    nowhere = rasterio.Affine(float("nan"), 0, 5e5, 0, -2, 4e6)
    scene = plain(tmp_path / "scene.tif", (40, 50), 1, transform=nowhere)
    wish = {name: value if value is True else tmp_path / value for name, value in wish.items()}
    with pytest.raises(SceneError, match=r"lies nowhere|longitudes and latitudes"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", **wish)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_geopackage_holds_polygons_of_a_site_grid(tmp_path):
    scene = plain(tmp_path / "scene.tif", (40, 50), 1, crs=CRS.from_wkt(SITE))
    report = process_scene(scene, tmp_path / "clean.tif", model="identity", polygons=tmp_path / "areas.gpkg")
    assert not report.faults
    assert (tmp_path / "areas.gpkg").exists()


def test_side_files_of_another_output_are_not_replaced(tmp_path):
    scene = plain(tmp_path / "scene.tif", (40, 50), 1)
    process_scene(scene, tmp_path / "a.tif", model="identity")
    told = (
        r"a\.json is the report of .*a\.tif, which shares its side files with .*a\.tiff: choose another name"
    )
    with pytest.raises(OutputError, match=told):
        process_scene(scene, tmp_path / "a.tiff", model="identity", overwrite=True)
    assert not (tmp_path / "a.tiff").exists()
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")  # a copy, or another name, shares nothing
    process_scene(scene, tmp_path / "b.tif", model="identity", overwrite=True)
    (tmp_path / "a.tif").unlink()
    process_scene(scene, tmp_path / "a.tiff", model="identity", overwrite=True)
    assert json.loads((tmp_path / "a.json").read_text())["output"]["path"].endswith("a.tiff")


def test_a_document_that_fails_leaves_the_rest_whole_and_is_told_in_one_line(scene, tmp_path, monkeypatch):
    out = tmp_path / "clean.tif"
    arguments = ["process", scene, "--out", out, "--model", "identity", "--quiet", "--stac", "--overwrite"]
    arguments += ["--polygons", tmp_path / "areas.geojson"]
    (tmp_path / "areas.geojson").write_text("of the output before")
    monkeypatch.setattr(Polygons, "write", full_disk)
    monkeypatch.setattr(Style, "write", full_disk)
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert re.fullmatch(
        r".*clean\.tif is written, but .*style.*No space.*polygons.*No space.*\n", result.output
    )
    report = json.loads((tmp_path / "clean.json").read_text())
    assert report["failed"].keys() == {"style", "polygons"}
    assert all(report["checks"].values())
    assert not {"style", "polygons"} & report["beside"].keys()
    assert "style" not in json.loads((tmp_path / "clean.stac.json").read_text())["assets"]
    names = {"scene", "clean", "clean_provenance", "clean.stac", ".clean.tif.unfinished"}
    assert {path.stem for path in tmp_path.iterdir()} == names, "nothing half-written, nothing out of date"

    monkeypatch.undo()
    monkeypatch.setattr(Flow, "blocks", None)  # which the same command has no need for
    made = (out.stat().st_ino, out.stat().st_mtime_ns)
    result = CliRunner().invoke(main, [str(argument) for argument in arguments if argument != "--overwrite"])
    assert result.exit_code == 0, result.output
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == made
    assert (tmp_path / "clean.qml").exists()
    assert (tmp_path / "areas.geojson").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_batch_makes_a_document_that_failed_again(folders, monkeypatch):
    src, dst = folders
    monkeypatch.setattr(StacItem, "write", full_disk)
    (entry,) = process_directory(src, dst, model="identity", stac=True, pattern="a.tif").scenes
    assert (entry.status, "no stac beside the output" in entry.error) == ("failed", True)
    monkeypatch.undo()
    (entry,) = process_directory(src, dst, model="identity", stac=True, pattern="a.tif").scenes
    assert entry.status == "done"
    assert (dst / "a.stac.json").exists()


def test_every_side_file_has_a_role_of_its_own():
    roles = [kind.role for kind in SIDE_FILES]
    assert len({*roles, "report"}) == len(roles) + 1
    assert all(kind.ending or kind.option for kind in SIDE_FILES)


def test_the_tags_of_a_geopackage_are_kept(tmp_path):
    scene = plain(tmp_path / "scene.gpkg", (256, 256), 3, "uint8", driver="GPKG", compress=None)
    report = process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert not report.faults
    with rasterio.open(scene) as one, rasterio.open(tmp_path / "clean.tif") as other:
        assert one.tags()["IDENTIFIER"] == other.tags()["IDENTIFIER"]


def test_what_a_copy_would_lose_is_told_before_any_work(tmp_path, monkeypatch):
    scene = plain(tmp_path / "scene.tif", (40, 50), 1)
    with rasterio.open(scene, "r+") as dataset:
        dataset.update_tags(MISSION="one")
    forgetful = metadata_checks.copy_vrt

    def forgets(*arguments):
        text, marked = forgetful(*arguments)
        return text.replace('<MDI key="MISSION">one</MDI>', ""), marked

    monkeypatch.setattr(metadata_checks, "copy_vrt", forgets)
    with pytest.raises(SceneError, match="would not keep its tags"):
        process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_copy_that_gdal_refuses_is_told_before_any_work(tmp_path, monkeypatch):
    scene = plain(tmp_path / "scene.tif", (40, 50), 1)

    def refuses(*arguments):
        raise RasterioIOError("no such driver")

    monkeypatch.setattr(metadata_checks, "write_cog", refuses)
    with pytest.raises(OSError, match="no such driver"):
        process_scene(scene, tmp_path / "clean.tif", model="identity")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
