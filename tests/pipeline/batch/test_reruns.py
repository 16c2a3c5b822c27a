"""A folder of scenes again: what is as it was is left alone, all else is done again."""

import json
import os

import numpy as np
import pytest
import rasterio
from batch_cases import IDENTITY, Darker, inputs, scene, stamps, statuses
from raster_cases import as_png, plain, vrt_of, write
from test_run import assert_same_pixels
from web_cases import serving

from decr_scene.pipeline import process_directory
from decr_scene.pipeline.batch import earlier_outputs
from decr_scene.pipeline.errors import OptionError


def test_a_rerun_does_nothing_and_touches_nothing(folders):
    src, dst = folders
    process_directory(src, dst, restorer=Darker())
    before, again = stamps(dst), Darker()
    assert statuses(process_directory(src, dst, restorer=again, overwrite=True)) == ["skipped"] * 3
    assert stamps(dst) == before
    assert again.calls == 0


@pytest.mark.parametrize("change", [{"seed": 1}, {"scale": (0, 9000)}, {"overlap": 32}, IDENTITY])
def test_another_parameter_does_it_again(change, folders):
    src, dst = folders
    process_directory(src, dst, pattern="a.tif", restorer=Darker())
    changed = {**({} if "model" in change else {"restorer": Darker()}), **change}
    assert statuses(process_directory(src, dst, pattern="a.tif", **changed)) == ["done"]
    assert statuses(process_directory(src, dst, pattern="a.tif", **changed)) == ["skipped"]


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"device": "cpu"}, {"workers": 1}])
def test_what_leaves_the_pixels_alone_is_no_reason_to_do_it_again(change, folders):
    src, dst = folders
    process_directory(src, dst, pattern="a.tif", restorer=Darker())
    report = process_directory(src, dst, pattern="a.tif", restorer=Darker(), **change)
    assert statuses(report) == ["skipped"]


def test_a_nameless_callable_is_never_taken_for_another(folders):
    src, dst = folders
    for _ in range(2):
        report = process_directory(src, dst, pattern="a.tif", restorer=lambda tiles, noise: tiles)
        assert statuses(report) == ["done"]


def test_another_input_does_it_again(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    plain(src / "b.tif", (60, 70), 1, "uint16")
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["skipped", "done", "skipped"]
    assert_same_pixels(src / "b.tif", dst / "b.tif")


def test_a_scene_whose_address_is_signed_anew_is_finished(tmp_path):
    with serving(tmp_path / "web") as server:
        scene(server.folder / "a.tif")
        for signature, status in (("HUSH1", "done"), ("HUSH2", "skipped")):
            address = f"{server.address}/a.tif?X-Amz-Date={signature[-1]}&X-Amz-Signature={signature}"
            told = process_directory(address, tmp_path / "out", **IDENTITY)
            assert statuses(told) == [status]
            assert "HUSH" not in told.to_json() + (tmp_path / "out" / "batch.json").read_text()
            assert inputs(told)[0].startswith("a.tif?")
        changed = process_directory(address, tmp_path / "out", **IDENTITY, seed=1)
        assert statuses(changed) == ["done"]


def test_addresses_of_two_scenes_that_a_secret_tells_apart_are_two(tmp_path):
    with serving(tmp_path / "web") as server:
        scene(server.folder / "a.tif")
        for key, status in (("a", "done"), ("a", "skipped")):
            told = process_directory(f"{server.address}/a.tif?key={key}", tmp_path / "out", **IDENTITY)
            assert statuses(told) == [status]
        told = process_directory(f"{server.address}/a.tif?key=b", tmp_path / "out", **IDENTITY)
        assert statuses(told) == ["failed"]
        assert "was made of" in told.to_json()


def test_the_files_that_options_name_are_asked_for_by_their_real_names(folders, tmp_path, monkeypatch):
    src, dst = folders
    mask = str(write(tmp_path / "mask.tif", np.ones((1, 40, 50), np.uint8)))
    given = f"/vsisubfile/0_{os.path.getsize(mask)},{mask}?token=HUSH"
    os.rename(mask, f"{mask}?token=HUSH")
    options = {**IDENTITY, "pattern": "a.tif", "mask": given}
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    asked, told = [], earlier_outputs.state_of_named_files
    monkeypatch.setattr(
        earlier_outputs, "state_of_named_files", lambda *names: (asked.append(names), told(*names))[1]
    )
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    assert asked == [(given, None, None)]
    assert "HUSH" not in (dst / "a.json").read_text().partition("named_files")[0]


def test_what_a_ledger_tells_of_a_failure_has_no_signature(tmp_path, caplog):
    with serving(tmp_path / "web") as server, caplog.at_level("INFO"):
        (tmp_path / "list.txt").write_text(
            f"{server.address}/a.tif?sig=HUSH\n{server.address}/b.tif?sig=HUSH\n"
        )
        told = process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
        assert statuses(told) == ["failed", "failed"]
        (tmp_path / "list.txt").write_text(
            f"{server.address}/a.tif?sig=HUSH\n{server.address}/a.tif?sig=HUSH2"
        )
        with pytest.raises(OptionError, match=r"both become") as refused:
            process_directory(tmp_path / "list.txt", tmp_path / "out", **IDENTITY)
    everything = told.to_json() + (tmp_path / "out" / "batch.json").read_text() + caplog.text
    assert "HUSH" not in everything + str(refused.value)
    assert "a.tif?sig=***" in everything


def test_another_mask_under_the_old_name_does_it_again(folders, tmp_path):
    src, dst = folders
    mask = write(tmp_path / "mask.tif", np.ones((1, 40, 50), np.uint8))
    options = {**IDENTITY, "pattern": "a.tif", "mask": str(mask)}
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    later = (dst / "a.json").stat().st_mtime + 5
    os.utime(mask, (later, later))
    assert statuses(process_directory(src, dst, **options)) == ["done"]


def test_another_raster_under_a_vrt_does_it_again(folders, tmp_path):
    src, dst = folders
    base = scene(tmp_path / "elsewhere" / "base.tif")
    (src / "v.vrt").write_text(vrt_of(base))
    options = {**IDENTITY, "pattern": "*.vrt"}
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    later = (dst / "v.json").stat().st_mtime + 5
    os.utime(base, (later, later))
    assert statuses(process_directory(src, dst, **options)) == ["done"]


def test_parts_that_come_go_or_change_do_it_again_however_old(folders, tmp_path):
    src, dst = folders
    base = scene(tmp_path / "elsewhere" / "base.tif")
    (src / "v.vrt").write_text(vrt_of(base))
    options = {**IDENTITY, "pattern": "v.vrt"}
    xml = src / "v_meta.xml"
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    for change in (
        lambda: write(base, np.full((1, 40, 50), 7, np.uint16)),
        lambda: xml.write_text("<r/>"),
        xml.unlink,
    ):
        change()
        for path in (base, xml):
            if path.exists():
                os.utime(path, (10**9, 10**9))
        assert statuses(process_directory(src, dst, **options)) == ["done"]
        assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    report = json.loads((dst / "v.json").read_text())
    del report["parts"]  # as of an earlier version
    (dst / "v.json").write_text(json.dumps(report))
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]


def test_a_folder_that_moved_is_not_done_again(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    moved = src.rename(src.with_name("elsewhere"))
    assert statuses(process_directory(moved, dst, **IDENTITY)) == ["skipped"] * 3


def test_an_output_that_was_deleted_is_made_again(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY)
    (dst / "a.tif").unlink()
    assert statuses(process_directory(src, dst, **IDENTITY)) == ["done", "skipped", "skipped"]


def test_a_report_with_the_old_name_of_an_option_is_read(folders):
    src, dst = folders
    process_directory(src, dst, **IDENTITY, pattern="a.tif")
    report = dst / "a.json"
    before = json.loads(report.read_text())
    before["parameters"]["reference"] = before["parameters"].pop("other_date")
    report.write_text(json.dumps(before))
    assert statuses(process_directory(src, dst, **IDENTITY, pattern="a.tif")) == ["skipped"]


def test_what_a_mask_is_made_of_and_another_of_an_older_date_do_it_again(folders, tmp_path):
    src, dst = folders
    source, mask = tmp_path / "source.tif", tmp_path / "mask.vrt"
    mask.write_text(vrt_of(write(source, np.ones((1, 40, 50), np.uint8))))
    options = {**IDENTITY, "pattern": "a.tif", "mask": str(mask)}
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    write(source, np.eye(40, 50, dtype=np.uint8)[None])
    os.utime(source, (10**9, 10**9))
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]


def test_another_area_in_a_layer_does_it_again(folders, tmp_path):
    src, dst = folders
    area = tmp_path / "area.geojson"

    with rasterio.open(src / "a.tif") as dataset:
        left, bottom, right, top = dataset.bounds
        code = dataset.crs.to_epsg()

    def draw_share(share):
        east = left + share * (right - left)
        ring = [[left, bottom], [left, top], [east, top], [east, bottom], [left, bottom]]
        feature = {
            "type": "Feature",
            "properties": {},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
        document = {"type": "FeatureCollection", "name": "fields", "crs": crs, "features": [feature]}
        area.write_text(json.dumps(document))

    draw_share(0.5)
    options = {**IDENTITY, "pattern": "a.tif", "aoi": f"{area}|layername=fields"}
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    draw_share(0.75)
    assert statuses(process_directory(src, dst, **options)) == ["done"]


def test_nodata_that_is_declared_beside_a_scene_does_it_again_and_statistics_do_not(folders):
    src, dst = folders
    options = {**IDENTITY, "pattern": "a.png"}
    as_png(src).rename(src / "a.png")
    assert statuses(process_directory(src, dst, **options)) == ["done"]
    bands = '<PAMRasterBand band="1">{}</PAMRasterBand>'
    sidecar = src / "a.png.aux.xml"
    known = '<Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata>'
    sidecar.write_text(f"<PAMDataset>{bands.format(known)}</PAMDataset>")
    assert statuses(process_directory(src, dst, **options)) == ["skipped"]
    declared = "".join(
        f'<PAMRasterBand band="{b}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for b in (1, 2, 3)
    )
    sidecar.write_text(f"<PAMDataset>{declared}</PAMDataset>")
    assert statuses(process_directory(src, dst, **options)) == ["done"]


def test_folders_of_products_and_items_are_not_done_again(folders, tmp_path):
    src, dst = folders
    product = tmp_path / "product"
    product.mkdir()
    plain(product / "only.tif", (40, 50), 4)
    asset = {"href": str(src / "b.tif"), "roles": ["data"], "type": "image/tiff; application=geotiff"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "b", "assets": {"b": asset}, "properties": {}}
    (tmp_path / "b.json").write_text(json.dumps(item | {"geometry": None, "links": []}))
    scenes = tmp_path / "scenes.txt"
    scenes.write_text(f"{product}\n{tmp_path / 'b.json'}\n")
    assert statuses(process_directory(scenes, dst, **IDENTITY)) == ["done", "done"]
    assert statuses(process_directory(scenes, dst, **IDENTITY)) == ["skipped", "skipped"]
    plain(product / "only.tif", (44, 50), 4)
    assert statuses(process_directory(scenes, dst, **IDENTITY)) == ["done", "skipped"]
    (tmp_path / "b.json").write_text(json.dumps(item | {"assets": {"b": asset | {"roles": 5}}}))
    assert statuses(process_directory(scenes, dst, **IDENTITY)) == ["skipped", "failed"], "and stops nothing"


def test_documents_that_a_finished_output_lacks_are_told(folders):
    src, dst = folders
    options = {**IDENTITY, "pattern": "a.tif"}
    process_directory(src, dst, quicklook=True, **options)
    before = stamps(dst)
    (again,) = process_directory(src, dst, quicklook=True, **options).scenes
    (more,) = process_directory(src, dst, quicklook=True, stac=True, **options).scenes
    assert (again.status, again.warnings, stamps(dst)) == ("skipped", (), before)
    assert "a.tif was finished without --stac" in more.warnings[0]


def test_what_was_warned_of_a_finished_scene_is_still_told(folders):
    src, dst = folders
    options = {**IDENTITY, "pattern": "a.tif"}
    (done,) = process_directory(src, dst, **options).scenes
    report = json.loads((dst / "a.json").read_text())
    (dst / "a.json").write_text(json.dumps(report | {"warnings": ["cloud is left"]}))
    (skipped,) = process_directory(src, dst, **options).scenes
    assert (done.status, skipped.status) == ("done", "skipped")
    assert skipped.warnings == ("cloud is left",)
