"""A path is not an identity: what is read is never written over, and is what the run was started with."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio
import rasterio.shutil
from click.testing import CliRunner

from decr_scene.models.bundled import find_model
from decr_scene.models.errors import CheckpointError, DecrSceneError
from decr_scene.pipeline import Progress
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OutputError, SceneError, SceneReadError
from decr_scene.pipeline.inputs.identity import FileIdentity
from decr_scene.pipeline.inputs.names import full_name, local_files
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.restoration.open_restorers import open_restorer
from decr_scene.pipeline.run import process_scene


def area(path: Path) -> Path:
    ring = [[115.82, 40.04], [115.83, 40.04], [115.83, 40.05], [115.82, 40.05], [115.82, 40.04]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def clouds(path: Path) -> Path:
    return cases.write(path, np.ones((1, 40, 50), np.uint8))


# -- no output is an input -----------------------------------------------------------------------------------


def as_mask(folder: Path) -> tuple[Path, dict]:
    return clouds(folder / "m.tif"), {"dst": folder / "m.tif", "mask": str(folder / "m.tif")}


def as_provenance(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / "o_provenance.tif")
    return mask, {"dst": folder / "o.tif", "mask": str(mask)}


def by_a_hard_link(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / "m.tif")
    os.link(mask, folder / "o.tif")
    return mask, {"dst": folder / "o.tif", "mask": str(mask)}


def under_a_vrt(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / "o.tif")
    rasterio.shutil.copy(mask, folder / "m.vrt", driver="VRT")
    return mask, {"dst": folder / "o.tif", "mask": str(folder / "m.vrt")}


def as_report(folder: Path) -> tuple[Path, dict]:
    where = area(folder / "o.json")
    return where, {"dst": folder / "o.tif", "aoi": str(where)}


def as_polygons(folder: Path) -> tuple[Path, dict]:
    where = area(folder / "a.geojson")
    return where, {"dst": folder / "o.tif", "aoi": str(where), "polygons": where}


def as_the_look(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / ".o.tif.cloud.partial.tif")
    return mask, {"dst": folder / "o.tif", "mask": str(mask)}


def as_the_ground(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / ".o.tif.ground.partial.tif")
    return mask, {"dst": folder / "o.tif", "mask": str(mask)}


def as_what_is_fetched(folder: Path) -> tuple[Path, dict]:
    mask = clouds(folder / ".o.tif.source.partial.tif")
    return mask, {"dst": folder / "o.tif", "mask": str(mask)}


def as_the_model(folder: Path) -> tuple[Path, dict]:
    model = shutil.copy(find_model("default"), folder / "o.json")
    return model, {"dst": folder / "o.tif", "model": str(model)}


@pytest.mark.parametrize(
    "make",
    [
        *(as_mask, as_provenance, by_a_hard_link, under_a_vrt, as_report, as_polygons),
        *(as_the_look, as_the_ground, as_what_is_fetched, as_the_model),
    ],
)
def test_no_output_is_an_input_whatever_it_is_called(make, tmp_path):
    scene = cases.described(tmp_path / "a.tif", ("blue", "green", "red", "nir"))
    kept, options = make(tmp_path)
    before = kept.read_bytes()
    with pytest.raises(OutputError, match="choose another name"):
        process_scene(scene, options.pop("dst"), overwrite=True, **{"model": "identity", **options})
    assert kept.read_bytes() == before


def test_other_commands_write_over_no_input_either(tmp_path):
    scene = cases.plain(tmp_path / "a.png", (40, 50), 3, "uint8", driver="PNG", crs=None, compress=None)
    card = tmp_path / "card.toml"
    card.write_text("x")
    calls = [
        ["inspect", scene, "--ccp", "--model", "rice2", "--out", scene, "--overwrite"],
        ["evaluate", "--data", tmp_path, "--sheet", scene, "--overwrite"],
        ["evaluate", "--data", tmp_path, "--csv", scene],
        *(["models", "import", card, "--reference", scene, "--out", x, "--overwrite"] for x in (card, scene)),
        ["models", "export", tmp_path, "--config", scene, "--card", card, "--out", card, "--overwrite"],
        ["simulate", scene, tmp_path / "mask/a.tif", "--out", tmp_path, "--overwrite"],
    ]
    (tmp_path / "mask").mkdir()
    clouds(tmp_path / "mask" / "a.tif")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for call in calls:
        done = CliRunner().invoke(main, [str(word) for word in call])
        assert done.exit_code, call
        assert "unexpected" not in done.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# -- names ---------------------------------------------------------------------------------------------------


def test_what_gdal_opens_is_processed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases.plain(tmp_path / "a.tif", (40, 50), 1)
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("a.tif", "in/a.tif")
    rasterio.shutil.copy("a.tif", "pages.tif", driver="GTiff")
    rasterio.shutil.copy("a.tif", "pages.tif", driver="GTiff", APPEND_SUBDATASET="YES")
    names = ["/vsizip/a.zip/in/a.tif", "zip://a.zip!in/a.tif", "GTIFF_DIR:2:pages.tif"]
    for number, name in enumerate(names):
        report = process_scene(name, tmp_path / f"o{number}.tif", model="identity")
        assert all(report.checks.values())
        assert report.input["bytes"] == Path(local_files(name)[0]).stat().st_size
    with pytest.raises(SceneError, match=r"has 2 rasters .*GTIFF_DIR:2.*name one of them"):
        process_scene("pages.tif", tmp_path / "o.tif", model="identity")


def test_names_are_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.zip", "two.nc", "s.tif"):
        Path(name).touch()
    here = str(tmp_path)
    assert full_name("/vsizip/a.zip/s.tif") == f"/vsizip/{here}/a.zip/s.tif"
    assert full_name("/vsizip/{a.zip}/s.tif") == f"/vsizip/{{{here}/a.zip}}/s.tif"
    assert full_name('NETCDF:"two.nc":red') == f'NETCDF:"{here}/two.nc":red'
    assert full_name("s.tif") == f"{here}/s.tif"
    for far in ("http://127.0.0.1/s.tif", "/vsicurl/http://host/s.tif", "s3://bucket/s.tif", "<VRTDataset/>"):
        assert (full_name(far), local_files(far)) == (far, [])


def test_a_name_that_is_no_utf_8_is_told_in_one_line(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (40, 50), 1)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xe9.tif"))
    path.rename(odd)
    with pytest.raises(DecrSceneError, match="no UTF-8"):
        inspect_scene(odd, model="identity")
    path = cases.plain(tmp_path / "b.tif", (40, 50), 1)
    with pytest.raises(OutputError, match="no UTF-8"):
        process_scene(path, odd, model="identity")


# -- the state that is meant ---------------------------------------------------------------------------------


def test_a_file_is_known_again_here_and_elsewhere(tmp_path):
    path = cases.plain(tmp_path / "a.tif", (40, 50), 1)
    here, sent = FileIdentity.of(str(path), travels=False), FileIdentity.of(str(path), travels=True)
    here.check()
    copy = shutil.copy2(path, tmp_path / "b.tif")
    os.replace(copy, path)  # as another machine's copy: another inode, the same time and content
    sent.check()
    with pytest.raises(SceneReadError, match=r"a.tif was changed or replaced during the run: put the former"):
        here.check()
    times = path.stat()
    (tmp_path / "c.tif").write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(tmp_path / "c.tif", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(tmp_path / "c.tif", path)
    with pytest.raises(SceneReadError, match="another file"):
        sent.check()
    path.unlink()
    with pytest.raises(SceneReadError, match="cannot see"):
        sent.check()
    with pytest.raises(SceneReadError, match=r"was there when the run began, .*: put it back$"):
        here.check()


@pytest.mark.parametrize("role", ["scene", "mask"])
def test_an_input_that_is_replaced_during_the_run_is_noticed(role, tmp_path):
    scene, mask = cases.plain(tmp_path / "a.tif", (40, 50), 4), clouds(tmp_path / "m.tif")
    target = {"scene": scene, "mask": mask}[role]

    def replaces(tiles, noise):
        os.replace(shutil.copy(target, tmp_path / "new"), target)
        return tiles * 0.5

    with pytest.raises(SceneReadError, match=r"was changed or replaced|another file|has changed"):
        process_scene(scene, tmp_path / "o.tif", restorer=replaces, mask=str(mask))
    assert not (tmp_path / "o.tif").exists()


def test_an_input_that_is_replaced_at_the_end_fails_a_check_and_is_not_what_the_report_tells_of(tmp_path):
    scene = cases.plain(tmp_path / "a.tif", (40, 50), 4)
    before = scene.stat().st_mtime_ns

    class Replacing(Progress):
        def stage(self, text):
            if text == "checking":
                os.replace(cases.plain(tmp_path / "new.tif", (40, 50), 4), scene)

    report = process_scene(scene, tmp_path / "o.tif", model="identity", progress=Replacing())
    assert report.input["modified"] == before
    assert not report.checks["input_unchanged"]


def test_a_model_replaced_under_its_name_is_another_model(tmp_path):
    from decr_scene.models.checkpoints.model_file import read_model_file, save_model_file

    path = Path(shutil.copy(find_model("rice2"), tmp_path / "m.safetensors"))
    options = Options(model=str(path))
    old, _ = spec_of(options)
    first = open_restorer(old)
    config, tensors = read_model_file(path)
    save_model_file(path, config, {name: tensor * 0.5 for name, tensor in tensors.items()})
    new, _ = spec_of(options)
    assert new != old
    assert open_restorer(new) is not first
    os.utime(path)
    save_model_file(path, config, tensors)
    with pytest.raises(CheckpointError, match="another file than the run was started with"):
        open_restorer(spec_of(options)[0].__class__(**{**vars(new), "halo": 3}))


@pytest.mark.parametrize("name", ["default", "rgb"])
def test_a_bundled_model_travels_by_its_name(name):
    spec, digest = spec_of(Options(model=name))
    assert (spec.name, spec.sha256) == (name, digest)
