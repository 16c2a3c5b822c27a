"""A run that ends after all its pixels are written goes on with what follows alone."""

import os

import pytest
from resume_cases import hidden, little
from test_run import smooth

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import OutputExistsError, ResumeError
from decr_scene.pipeline.outputs.names import SideFiles
from decr_scene.pipeline.planning.options import Options


class GoneError(Exception):
    """What ends a run in its last phase."""


def gone(*args, **more):
    raise GoneError


def end_in(monkeypatch, where, scene, out, **options):
    with monkeypatch.context() as patch:
        patch.setattr(where, gone)
        with pytest.raises(GoneError):
            process_scene(scene, out, restorer=smooth, **options)
    assert out.exists()


def never(tiles, noise):
    raise AssertionError("all tiles are finished")


never.__name__ = "smooth"


LAST = [
    "decr_scene.pipeline.outputs.conclusion.verify_pixels",
    "decr_scene.pipeline.outputs.conclusion.SideFiles.write",
    "decr_scene.pipeline.outputs.conclusion.Report",
    "decr_scene.pipeline.outputs.conclusion.Report.to_json",
]


@pytest.mark.parametrize("where", LAST)
def test_a_run_that_ends_in_its_last_phase_goes_on_with_that(where, small, whole_of, tmp_path, monkeypatch):
    out, whole = tmp_path / "clean.tif", whole_of(little)
    end_in(monkeypatch, where, small, out, quicklook=True)
    before = out.stat()
    report = process_scene(small, out, restorer=never, quicklook=True)
    assert all(report.checks.values())
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert out.read_bytes() == whole.read_bytes()
    for path in SideFiles.requested(out, {**vars(Options()), **QUICKLOOK}).paths.values():
        assert path.exists()
    assert not hidden(tmp_path)


QUICKLOOK = {"quicklook": True, "stac": False, "polygons": None}


@pytest.mark.parametrize("where", LAST[:2])
def test_documents_of_pixels_that_are_replaced_go_with_them(where, small, tmp_path, monkeypatch):
    out, areas = tmp_path / "clean.tif", tmp_path / "areas.geojson"
    process_scene(small, out, model="identity", quicklook=True, polygons=areas)
    end_in(monkeypatch, where, small, out, overwrite=True, polygons=areas)
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert left == {small.name, "clean.tif", "clean_provenance.tif"}
    report = process_scene(small, out, restorer=never, overwrite=True, polygons=areas)
    assert report.model["name"] == "smooth"
    assert areas.exists()


def test_another_run_does_not_go_on_with_the_last_phase(small, tmp_path, monkeypatch):
    out = tmp_path / "clean.tif"
    end_in(monkeypatch, LAST[0], small, out)
    content = out.read_bytes()
    with pytest.raises(ResumeError, match="seed differ"):
        process_scene(small, out, restorer=smooth, seed=1)
    with pytest.raises(OutputExistsError):
        process_scene(small, out, restorer=smooth, resume=False)
    assert out.read_bytes() == content
    process_scene(small, out, restorer=smooth)
    with pytest.raises(OutputExistsError):
        process_scene(small, out, restorer=smooth)


def test_a_file_that_a_run_was_not_about_to_write_is_never_replaced(small, tmp_path, monkeypatch):
    out, precious = tmp_path / "clean.tif", tmp_path / "precious.gpkg"
    end_in(monkeypatch, LAST[2], small, out)
    precious.write_text("precious")
    with pytest.raises(OutputExistsError, match=r"precious\.gpkg exists"):
        process_scene(small, out, restorer=smooth, polygons=precious)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["clean.tif", "clean_provenance.tif"])
@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_finished_files_that_are_damaged_or_gone_are_made_again(
    name, how, small, whole_of, tmp_path, monkeypatch
):
    out, whole = tmp_path / "clean.tif", whole_of(little)
    end_in(monkeypatch, LAST[2], small, out)
    victim = tmp_path / name
    if how == "removed":
        victim.unlink()
        out.unlink(missing_ok=True)  # an output without its provenance would be somebody else's
    else:
        times = victim.stat().st_mtime_ns
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
        os.utime(victim, ns=(times, times))
    process_scene(small, out, restorer=smooth)
    assert out.read_bytes() == whole.read_bytes()
    provenance = whole.with_name("whole_provenance.tif")
    assert (tmp_path / "clean_provenance.tif").read_bytes() == provenance.read_bytes()
    assert not hidden(tmp_path)
