"""Folders of products among the scenes of a batch: each is one scene, and what is in it is none."""

import shutil

import pytest
from batch_cases import IDENTITY, inputs, scene, statuses
from layout_cases import LANDSAT, PLEIADES, landsat, pleiades, safe_with, sentinel, single_bands
from pansharpen_cases import ground, pair
from test_run import pixels_of

from decr_scene.pipeline import process_directory
from decr_scene.pipeline.errors import OptionError

SAFE = "S2A_MSIL2A_20240315T101010_N0510_R022_T33UVP_20240315T141010.SAFE"
JILIN = "JL1KF01C_PMSL3_20250112084005_200339713_101_0039_001_L1"
MODES = pytest.mark.parametrize("recursive", [False, True])


def safe(place):
    """A SAFE of a name as it is delivered."""
    safe_with(sentinel(place.parent / "unpacked"), "2A", 5.11)
    (place.parent / "unpacked" / "safe.SAFE").rename(place)
    (place.parent / "unpacked").rmdir()
    return place


def jilin(place):
    """MSS and PAN, and a mask of cloud."""
    place.mkdir()
    for kind, path in zip(("MSS", "PAN"), pair(place, ground(128)), strict=True):
        path.rename(place / f"{place.name}_{kind}.tif")
    scene(place / f"{place.name}_MSS_Cloud.tif")


def bundle(folder):
    """MS and PAN of Pleiades in folders of their own, as in a delivery."""
    folder.mkdir()
    pleiades(folder / "IMG_MS")
    shutil.copytree(folder / "IMG_MS", folder / "IMG_P")
    for path in (folder / "IMG_P").iterdir():
        path.rename(path.with_name(path.name.replace("_MS_", "_P_")))


def rasters(dst):
    return sorted(str(path.relative_to(dst)) for path in dst.rglob("*.tif") if "_provenance" not in path.name)


@MODES
def test_folders_of_products_are_scenes_and_what_is_in_them_is_none(recursive, tmp_path):
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    scene(src / "a.tif")
    scene(src / "east" / "b.tif")
    landsat(src / LANDSAT)
    safe(src / SAFE)
    pleiades(src / PLEIADES)
    jilin(src / JILIN)
    report = process_directory(src, dst, **IDENTITY, recursive=recursive)
    stems = [JILIN, LANDSAT, PLEIADES, SAFE.removesuffix(".SAFE")]
    there = [*(f"{stem}.tif" for stem in stems), "a.tif", *(["east/b.tif"] if recursive else [])]
    assert rasters(dst) == there, report
    assert pixels_of(dst / f"{LANDSAT}.tif")[:, 5, 5].tolist() == [2, 3, 4, 5]
    assert pixels_of(dst / f"{JILIN}.tif").shape == (4, 128, 128)
    again = process_directory(src, dst, **IDENTITY, recursive=recursive)
    assert statuses(again) == ["skipped"] * len(there)


def test_products_in_the_tree_keep_their_place(tmp_path):
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    landsat(src / "2024" / LANDSAT)
    with pytest.raises(OptionError, match="--recursive"):
        process_directory(src, dst, **IDENTITY)
    process_directory(src, dst, **IDENTITY, recursive=True)
    assert rasters(dst) == [f"2024/{LANDSAT}.tif"]


def test_a_dot_of_a_number_does_not_end_the_name_of_a_product(tmp_path):
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    for day in ("20200101", "20200202"):
        landsat(src / f"GF_E116.5_N39.9_{day}")
    process_directory(src, dst, **IDENTITY)
    assert rasters(dst) == [f"GF_E116.5_N39.9_{day}.tif" for day in ("20200101", "20200202")]


@MODES
def test_ms_and_pan_in_folders_of_their_own_are_one_product(recursive, tmp_path):
    src = tmp_path / "incoming"
    scene(src / "a.tif")
    bundle(src / "delivery")
    assert inputs(process_directory(src, tmp_path / "clean", **IDENTITY, recursive=recursive)) == [
        "a.tif",
        "delivery",
    ]


@MODES
def test_a_product_that_is_not_whole_fails_and_its_bands_are_no_scenes(recursive, folders):
    src, dst = folders
    landsat(src / "half", bands=(2, 3))
    report = process_directory(src, dst, **IDENTITY, recursive=recursive)
    assert inputs(report) == ["a.tif", "b.tif", "c.tif", "half"]
    assert statuses(report) == ["done", "done", "done", "failed"]
    assert "lacks the Landsat band 4 (red), 5 (nir)" in report.scenes[3].error


def test_a_pattern_takes_a_product_by_its_name_or_that_of_a_part(tmp_path):
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    landsat(src / LANDSAT)
    safe(src / SAFE)
    found = {
        pattern: inputs(
            process_directory(src, dst / str(number), **IDENTITY, recursive=True, pattern=pattern)
        )
        for number, pattern in enumerate(("*.jp2", "lc09*T1", "*_sr_b4.tif", "*_TCI_10m.jp2"))
    }
    assert found == {
        "*.jp2": [SAFE],
        "lc09*T1": [LANDSAT],
        "*_sr_b4.tif": [LANDSAT],
        "*_TCI_10m.jp2": ["T33UVP_20240315T101010_TCI_10m.jp2"],
    }


@pytest.mark.parametrize("stems", [("x_MSS", "y_PAN"), ("x_MSS", "x_PAN", "y_MSS", "y_PAN")])
def test_a_folder_of_several_scenes_is_no_product(stems, tmp_path):
    src, names = tmp_path / "incoming", [f"{stem}.tif" for stem in stems]
    for name in names:
        scene(src / "east" / name)
    report = process_directory(src, tmp_path / "clean", **IDENTITY, recursive=True)
    assert inputs(report) == names


def test_one_band_of_many_scenes_makes_no_product(tmp_path):
    src, names = tmp_path / "incoming", [f"LC08_L1TP_1_2019{month}15_B8.TIF" for month in ("01", "02")]
    single_bands(src, names)
    single_bands(src / "east", names)
    report = process_directory(src, tmp_path / "clean", **IDENTITY, recursive=True)
    assert inputs(report) == names * 2


@MODES
@pytest.mark.parametrize("make", [landsat, safe, pleiades])
def test_the_folder_of_a_product_is_no_folder_of_scenes(make, recursive, tmp_path):
    place = make(tmp_path / "delivery.SAFE")
    with pytest.raises(OptionError, match=r"a part of a product, .* decr-scene process .*delivery\.SAFE"):
        process_directory(place, tmp_path / "clean", **IDENTITY, recursive=recursive)
    assert not (tmp_path / "clean").exists()


@MODES
def test_products_behind_links_that_leave_the_folder_are_left_out(recursive, folders, tmp_path):
    src, dst = folders
    (src / "far").symlink_to(landsat(tmp_path / "outside"))
    band = next(landsat(src / "near").glob("*_B4.TIF"))
    band.rename(tmp_path / "outside" / "red.tif")
    band.symlink_to(tmp_path / "outside" / "red.tif")
    report = process_directory(src, dst, **IDENTITY, recursive=recursive)
    assert inputs(report) == ["a.tif", "b.tif", "c.tif", "far", "near"]
    assert statuses(report) == ["done", "done", "done", "skipped", "skipped"]
