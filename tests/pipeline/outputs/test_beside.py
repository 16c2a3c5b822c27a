"""What lies beside an output: it is there, it is true, and it survives what the output survives."""

import json
import shutil
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from beside_cases import CLOUD, darker, noisy, run
from click.testing import CliRunner
from raster_cases import draw, no_georeferencing, plain, write
from resume_cases import hidden
from rio_cogeo.cogeo import cog_validate
from test_resume import failing_after
from test_run import pixels_of, smooth

from decr_scene.pipeline import process_directory, process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError, OutputExistsError, SceneError
from decr_scene.pipeline.files import journal_path
from decr_scene.pipeline.outputs.style import limits
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.provenance import BLENDED, GENERATED, NAMES, NODATA, ORIGINAL
from decr_scene.pipeline.writing.writer import SceneWriter

# -- provenance ----------------------------------------------------------------------------------------------


def test_the_provenance_says_where_every_pixel_comes_from(scene, mask):
    report, before, after, classes = run(scene, mask)
    valid = (before != 0).any(axis=0)
    np.testing.assert_array_equal(classes == NODATA, ~valid)
    np.testing.assert_array_equal(classes == ORIGINAL, valid & (before == after).all(axis=0))
    assert (classes[CLOUD] == GENERATED).all()
    far = np.ones(classes.shape, bool)
    far[20:160, 110:240] = False
    assert (classes[far] <= ORIGINAL).all()
    rim = classes[88:92, 200:235]
    assert (np.diff(rim.astype(int)) <= 0).all(), "generated, then blended, then original"
    assert set(np.unique(rim)) == {ORIGINAL, BLENDED, GENERATED}
    assert all(report.checks.values())
    assert report.verification["classes"]["generated"] == pytest.approx((classes == GENERATED).mean(), 1e-3)


def test_without_a_change_everything_is_original(scene, tmp_path):
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    before, classes = pixels_of(scene), pixels_of(tmp_path / "clean_provenance.tif")[0]
    np.testing.assert_array_equal(classes, (before != 0).any(axis=0) * ORIGINAL)


def test_a_pixel_is_valid_where_one_of_its_bands_is(tmp_path):
    image = np.zeros((2, 60, 70), np.uint8)
    image[0] = 100
    scene = write(tmp_path / "scene.tif", image, nodata=0)
    process_scene(scene, tmp_path / "clean.tif", restorer=darker)
    assert (pixels_of(tmp_path / "clean_provenance.tif") == GENERATED).all()


def test_the_provenance_is_a_cog_of_classes(scene, mask, tmp_path):
    run(scene, mask, blocksize=64)
    path = tmp_path / "clean_provenance.tif"
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert dataset.tags()["CLASS_3"] == "generated"
        assert dataset.colormap(1)[NODATA][3] == 0
        assert dataset.overviews(1)
        small = dataset.read(1, out_shape=(dataset.height // 2, dataset.width // 2))
        assert np.isin(small, dataset.read(1)).all()
        assert dataset.crs == rasterio.open(scene).crs


HOW = {"batch_size": 2, "blocksize": 256, "samples": 2}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A scene with a folder of a whole output, and of another one in which the restorer has failed."""
    place, folder = tmp_path_factory.mktemp("scene"), tmp_path_factory.mktemp("begun")
    scene = plain(place / "scene.tif", (1500, 300), 1)
    process_scene(scene, folder / "whole.tif", restorer=smooth, **HOW)
    failing, _ = failing_after(20)
    with pytest.raises(OSError, match="fire"):
        process_scene(scene, folder / "clean.tif", restorer=failing, **HOW)
    return scene, folder


@pytest.mark.parametrize("lost", ["nothing", "journal", "scratch", "lines"])
def test_output_and_provenance_go_on_together(lost, begun, tmp_path):
    scene, folder = begun
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    out = tmp_path / "clean.tif"
    beside = journal_path(tmp_path / "clean_provenance.tif")
    finished = len(journal_path(out).read_text().splitlines()) - 1
    assert finished >= 2
    if lost == "journal":
        beside.unlink()
    elif lost == "lines":
        beside.write_text("\n".join(beside.read_text().splitlines()[:2]) + "\n")
    elif lost == "scratch":
        (scratch,) = tmp_path.glob(".clean_provenance*scratch*.tif")
        scratch.unlink()
    report = process_scene(scene, out, restorer=smooth, **HOW)
    expected = {"nothing": finished, "journal": 0, "scratch": 0, "lines": 1}
    assert report.tiles["windows_resumed"] == expected[lost]
    for name in ("", "_provenance", "_uncertainty"):
        one, other = (tmp_path / f"{stem}{name}.tif" for stem in ("whole", "clean"))
        assert one.read_bytes() == other.read_bytes()
    assert not hidden(tmp_path)


def test_a_run_that_ended_between_two_names_goes_on(scene, mask, tmp_path, monkeypatch):
    """The provenance has its name, the output has not."""
    publish = SceneWriter.publish

    def stop_at_the_output(writer):
        if writer.path.name == "clean.tif":
            raise KeyboardInterrupt
        publish(writer)

    with monkeypatch.context() as patch:
        patch.setattr(SceneWriter, "publish", stop_at_the_output)
        with pytest.raises(KeyboardInterrupt):
            run(scene, mask)
    assert (tmp_path / "clean_provenance.tif").exists()
    assert not (tmp_path / "clean.tif").exists()
    report, before, after, classes = run(scene, mask)
    assert all(report.checks.values())
    assert (before != after).any()
    assert (classes == GENERATED).any()
    assert not hidden(tmp_path)


def test_no_file_gets_its_name_before_all_are_made(scene, tmp_path, monkeypatch):
    make = SceneWriter.make

    def fail_at_the_last(writer):
        if writer.path.name == "clean_provenance.tif":
            raise OSError("the disk is full")
        return make(writer)

    monkeypatch.setattr(SceneWriter, "make", fail_at_the_last)
    with pytest.raises(OSError, match="full"):
        run(scene)
    assert [path.name for path in tmp_path.glob("clean*")] == []


@pytest.mark.parametrize("name", ["clean_provenance.tif", "clean.qml", "clean.json", "clean.stac.json"])
def test_a_file_in_the_place_of_one_of_ours_is_refused_before_any_work(name, scene, tmp_path):
    (tmp_path / name).write_text("precious")

    def never(tiles, noise):
        raise AssertionError("work was done")

    with pytest.raises(OutputExistsError, match=name):
        run(scene, restorer=never, stac=True)
    assert (tmp_path / name).read_text() == "precious"
    run(scene, stac=True, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"precious"


# -- uncertainty ---------------------------------------------------------------------------------------------


def test_the_uncertainty_is_the_spread_of_the_samples_in_digital_numbers(scene, mask, tmp_path):
    run(scene, mask, noisy, samples=12)
    with rasterio.open(tmp_path / "clean_uncertainty.tif") as dataset:
        assert np.isnan(dataset.nodata)
        deviation = dataset.read(1)
    classes = pixels_of(tmp_path / "clean_provenance.tif")[0]
    assert np.isnan(deviation[classes == NODATA]).all()
    assert (deviation[classes == ORIGINAL] == 0).all()
    assert np.median(deviation[classes == GENERATED]) == pytest.approx(0.1 * 6000, rel=0.1)
    assert np.median(deviation[classes == BLENDED]) < 0.1 * 6000


def test_samples_do_not_change_the_output(scene, tmp_path):
    process_scene(scene, tmp_path / "one.tif", restorer=noisy)
    process_scene(scene, tmp_path / "three.tif", restorer=noisy, samples=3)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "three.tif").read_bytes()
    assert not (tmp_path / "one_uncertainty.tif").exists()


def test_tiles_that_disagree_are_uncertain(tmp_path):
    scene = plain(tmp_path / "scene.tif", (256, 448), 1)  # two tiles, 64 px of overlap

    def one_dark_one_bright(tiles, noise):
        return np.stack([tile + (0.1 if number else -0.1) for number, tile in enumerate(tiles)])

    run(scene, restorer=one_dark_one_bright, samples=2, batch_size=2)
    deviation = pixels_of(tmp_path / "clean_uncertainty.tif")[0]
    assert not deviation[:, :192].any()
    assert not deviation[:, 256:].any()
    assert deviation[:, 223:225].mean() == pytest.approx(0.1 * 6000, rel=0.05)


def test_samples_belong_to_the_run(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 30), 1)
    with pytest.raises(OptionError, match="samples"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", samples=0)
    process_scene(scene, tmp_path / "clean.tif", model="identity", samples=2)
    assert not np.nan_to_num(pixels_of(tmp_path / "clean_uncertainty.tif"), nan=1).any()


# -- style ---------------------------------------------------------------------------------------------------


def renderer_of(path):
    return ET.parse(path).getroot().find("pipe/rasterrenderer")


def test_qgis_gets_the_right_bands_with_the_limits_of_the_output(scene, tmp_path):
    _, before, after, _ = run(scene)
    renderer = renderer_of(tmp_path / "clean.qml")
    assert renderer.get("type") == "multibandcolor"
    assert [renderer.get(f"{color}Band") for color in ("red", "green", "blue")] == ["3", "2", "1"]
    for color, band in (("red", 2), ("green", 1), ("blue", 0)):
        found = [
            float(renderer.find(f"{color}ContrastEnhancement/{end}Value").text) for end in ("min", "max")
        ]
        values = after[band]
        np.testing.assert_allclose(found, np.percentile(values[values != 0], (2, 98)), rtol=1e-6)
    assert (before != after).any()


def test_limits_of_bands_with_a_scale_are_those_of_their_values(scene, tmp_path):
    with rasterio.open(scene, "r+") as dataset:
        dataset.scales, dataset.offsets = (-1e-4, 1e-4, 1e-4, 1e-4), (-0.1, -0.2, -0.3, -0.4)
    _, _, after, _ = run(scene)
    renderer = renderer_of(tmp_path / "clean.qml")
    for color, band, scale, offset in (
        *(("red", 2, 1e-4, -0.3), ("green", 1, 1e-4, -0.2), ("blue", 0, -1e-4, -0.1)),
    ):
        found = [
            float(renderer.find(f"{color}ContrastEnhancement/{end}Value").text) for end in ("min", "max")
        ]
        values = after[band][after[band] != 0] * scale + offset
        np.testing.assert_allclose(found, np.percentile(values, (2, 98)), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, np.inf, 1e308])
def test_limits_stay_where_a_scale_gives_no_values(scale, scene, tmp_path):
    with rasterio.open(scene, "r+") as dataset:
        dataset.scales = (scale,) * dataset.count
    _, _, after, _ = run(scene, stac=True)
    renderer = renderer_of(tmp_path / "clean.qml")
    found = [float(renderer.find(f"redContrastEnhancement/{end}Value").text) for end in ("min", "max")]
    np.testing.assert_allclose(found, np.percentile(after[2][after[2] != 0], (2, 98)), rtol=1e-5)
    assert "Infinity" not in (tmp_path / "clean.stac.json").read_text()


def test_the_uncertainty_is_a_ramp_up_to_what_changed_pixels_have(scene, tmp_path):
    run(scene, restorer=noisy, samples=2)
    renderer = renderer_of(tmp_path / "clean_uncertainty.qml")
    with rasterio.open(tmp_path / "clean_uncertainty.tif") as dataset:
        values = dataset.read(1)
    high = np.nanpercentile(values[values > 0], 98)
    items = renderer.findall("rastershader/colorrampshader/item")
    assert renderer.get("type") == "singlebandpseudocolor"
    assert [float(item.get("value")) for item in items] == pytest.approx(high * np.arange(4) / 3, rel=1e-5)


def test_one_band_is_grey_and_a_colour_table_stays(tmp_path):
    process_scene(plain(tmp_path / "a.tif", (30, 30), 1), tmp_path / "clean.tif", model="identity")
    renderer = renderer_of(tmp_path / "clean.qml")
    assert (renderer.get("type"), renderer.get("grayBand")) == ("singlebandgray", "1")
    indexed = plain(tmp_path / "b.tif", (30, 30), 1, "uint8", photometric="palette")
    with rasterio.open(indexed, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, 0, 255 - n, 255) for n in range(256)})
    process_scene(indexed, tmp_path / "table.tif", model="identity")
    assert renderer_of(tmp_path / "table.qml").get("type") == "paletted"


@pytest.mark.parametrize("scale", [None, 0.1, 0.0, 1e300])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_tables_and_alpha_are_as_qgis_has_the_values(scale, alpha, tmp_path):
    image = draw((30, 30), 1 + alpha, "uint8")
    image[1:] = 255
    path = write(tmp_path / "a.tif", image, photometric="palette", **({"alpha": "yes"} if alpha else {}))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, 0, 255 - n, 255) for n in range(256)})
        if scale is not None:
            dataset.scales, dataset.offsets = (scale,) * dataset.count, (3.0,) * dataset.count
    process_scene(path, tmp_path / "clean.tif", model="identity")
    renderer = renderer_of(tmp_path / "clean.qml")
    entries = [float(entry.get("value")) for entry in renderer.findall("colorPalette/paletteEntry")]
    expected = np.float32(np.arange(256) * 0.1 + 3) if scale == 0.1 else np.arange(256)
    assert entries[1:] == expected.tolist()[1:]  # 0 by a scale of 1e300 is still 3
    assert renderer.get("alphaBand") == ("2" if alpha and scale in (None, 0.0) else "-1")


def test_the_legend_of_the_provenance_has_all_classes(scene, tmp_path):
    run(scene)
    renderer = renderer_of(tmp_path / "clean_provenance.qml")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [entry.get("label") for entry in entries] == [*NAMES] == [*NAMES[:4], "other date"]
    assert [entry.get("value") for entry in entries] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("overviews", [False, True])
def test_the_limits_of_a_large_scene_come_from_a_sample(overviews, tmp_path):
    path = plain(tmp_path / "scene.tif", (1300, 1100), 1, nodata=0, tiled=True)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2])
    with RasterioScene.open(path) as scene:
        ((low, high),) = limits(scene, [1])
    np.testing.assert_allclose([low, high], np.percentile(pixels_of(path), (2, 98)), rtol=0.05)


# -- polygons ------------------------------------------------------------------------------------------------


def test_polygons_have_the_area_of_their_pixels(scene, mask, tmp_path):
    _, _, _, classes = run(scene, mask, polygons=tmp_path / "areas.gpkg")
    info = pyogrio.read_info(tmp_path / "areas.gpkg", layer="restored")
    assert info["crs"] == "EPSG:32650"
    _, _, shapes, fields = pyogrio.raw.read(tmp_path / "areas.gpkg", layer="restored")
    values = dict(zip(info["fields"], fields, strict=True))
    restored, valid = (classes >= BLENDED).sum(), (classes != NODATA).sum()
    assert values["class"] == ["restored"]
    assert values["area_m2"] == pytest.approx(restored * 0.25)
    assert values["share"] == pytest.approx(restored / valid, abs=1e-6)
    assert values["generated"] == pytest.approx((classes == GENERATED).sum() / restored, abs=1e-4)
    outline = shapely.from_wkb(shapes[0])
    assert outline.area == pytest.approx(restored * 0.25, rel=0.02)
    _, _, shapes, fields = pyogrio.raw.read(tmp_path / "areas.gpkg", layer="footprint")
    assert shapely.from_wkb(shapes[0]).area == pytest.approx(valid * 0.25, rel=1e-3)


def test_geojson_is_in_degrees(scene, mask, tmp_path):
    run(scene, mask, polygons=tmp_path / "areas.geojson")
    features = json.loads((tmp_path / "areas.geojson").read_text())["features"]
    assert [feature["properties"]["layer"] for feature in features] == ["footprint", "restored"]
    whole, restored = (shapely.geometry.shape(feature["geometry"]) for feature in features)
    assert whole.contains(restored)
    place = rasterio.warp.transform_bounds("EPSG:32650", "EPSG:4326", *rasterio.open(scene).bounds)
    np.testing.assert_allclose(whole.bounds, place, atol=1e-5)


def test_polygons_that_cannot_be_are_refused_before_any_work(tmp_path):
    scene = no_georeferencing(tmp_path)
    with pytest.raises(SceneError, match="has no CRS"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", polygons=tmp_path / "a.gpkg")
    with pytest.raises(OptionError, match=r"got a\.shp"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", polygons=tmp_path / "a.shp")
    assert not list(tmp_path.glob("clean*"))


def test_two_files_of_one_name_are_refused(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 30), 1)
    with pytest.raises(OptionError, match="two files"):
        process_scene(scene, tmp_path / "clean.tif", model="identity", polygons=tmp_path / "clean.json")


# -- batch and the command -----------------------------------------------------------------------------------


def test_a_batch_makes_what_is_missing_beside_an_output(tmp_path):
    src, dst = tmp_path / "in", tmp_path / "out"
    src.mkdir()
    plain(src / "a.tif", (40, 50), 1)
    plain(src / "b.tif", (40, 50), 1)
    first = process_directory(src, dst, model="identity")
    assert [entry.status for entry in first.scenes] == ["done", "done"]
    (dst / "a_provenance.tif").unlink()
    again = process_directory(src, dst, model="identity")
    assert [entry.status for entry in again.scenes] == ["done", "skipped"]
    assert (dst / "a_provenance.tif").exists()


def test_a_batch_keeps_what_is_not_ours_beside_an_output(tmp_path):
    src, dst = tmp_path / "in", tmp_path / "out"
    src.mkdir()
    plain(src / "a.tif", (40, 50), 1)
    process_directory(src, dst, model="identity")
    (dst / "a_uncertainty.tif").write_text("precious")
    (entry,) = process_directory(src, dst, model="identity", samples=2).scenes
    assert (entry.status, "not ours" in entry.error) == ("failed", True)
    assert (dst / "a_uncertainty.tif").read_text() == "precious"


def test_a_batch_refuses_what_would_meet(tmp_path):
    src = tmp_path / "in"
    src.mkdir()
    plain(src / "a.tif", (40, 50), 1)
    with pytest.raises(OptionError, match="one file"):
        process_directory(src, tmp_path / "out", model="identity", polygons="areas.gpkg")
    plain(src / "a_provenance.tif", (40, 50), 1)
    with pytest.raises(OptionError, match=r"a_provenance\.tif"):
        process_directory(src, tmp_path / "out", model="identity")


def test_the_command_takes_it_all(scene, tmp_path):
    arguments = ["process", scene, "--out", tmp_path / "clean.tif", "--model", "identity", "--quiet"]
    arguments += ["--samples", 2, "--stac", "--polygons", tmp_path / "areas.geojson"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "clean.json").read_text())
    assert {"provenance", "uncertainty", "stac", "polygons", "style"} <= report["beside"].keys()
    assert report["verification"]["seam_score"] is None


# -- quicklook -----------------------------------------------------------------------------------------------


def test_nodata_does_not_stretch_the_quicklook(tmp_path):
    image = draw((200, 300), 3, "int16")
    image[:, :, :100] = -32768
    scene = write(tmp_path / "scene.tif", image, nodata=-32768)
    process_scene(scene, tmp_path / "clean.tif", model="identity", quicklook=True)
    shown = pixels_of(tmp_path / "clean.png")[:, :, 100:300]
    assert shown.min() == 0
    assert shown.max() == 255
    assert 80 < shown.mean() < 180


def test_the_quicklook_shows_the_bands_that_were_named(tmp_path):
    image = np.empty((4, 60, 70), np.uint8)
    image[:] = np.reshape([10, 20, 30, 40], (4, 1, 1))
    scene = write(tmp_path / "scene.tif", image, photometric="minisblack")
    options = {"model": "identity", "bands": "blue,green,red,nir", "quicklook": True}
    process_scene(scene, tmp_path / "clean.tif", **options)
    assert pixels_of(tmp_path / "clean.png")[:, 5, 5].tolist() == [30, 20, 10]


def test_what_the_run_before_made_beside_the_output_is_not_left_stale(scene, tmp_path):
    again = {"model": "identity", "overwrite": True}
    process_scene(scene, tmp_path / "clean.tif", model="identity", samples=2, quicklook=True, stac=True)
    (tmp_path / "clean_notes.txt").write_text("of the user")
    process_scene(scene, tmp_path / "clean.tif", mask=str(tmp_path / "clean_uncertainty.tif"), **again)
    names = {path.name for path in tmp_path.glob("clean*")}
    assert {"clean_uncertainty.tif", "clean_notes.txt"} < names, "an input of the run, and no file of ours"
    assert not {"clean.png", "clean.stac.json"} & names
