"""Folders as data sets are published, told apart by what lies there."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from pair_cases import save_png, smooth_ground
from rasterio.transform import Affine

from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.layout import find_pairs
from decr_scene.models.errors import TrainingError
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.inspection.data_set import inspect_data_set


def pairs(folder, seeds, cloudy="cloud", clear="label"):
    for seed in seeds:
        ground = smooth_ground(np.random.default_rng(seed), 8, 48, (40, 160))
        save_png(folder / clear / f"{seed}.png", ground)
        save_png(folder / cloudy / f"{seed}.png", np.minimum(ground + 60.0, 255))


def sentinel2(path, seed, count=13):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 3000, (count, 32, 32)).astype(np.uint16)
    profile = {"driver": "GTiff", "height": 32, "width": 32, "count": count, "dtype": "uint16"}
    with rasterio.open(path, "w", transform=Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32650", **profile) as file:
        file.write(pixels)


@pytest.fixture
def sen12(tmp_path):
    """Two patches of SEN12MS-CR as published, and radar beside them."""
    for patch in (30, 31):
        base = "ROIs1158_spring"
        sentinel2(tmp_path / f"{base}_s2" / "s2_1" / f"{base}_s2_1_p{patch}.tif", patch)
        sentinel2(tmp_path / f"{base}_s2_cloudy" / "s2_cloudy_1" / f"{base}_s2_cloudy_1_p{patch}.tif", 9)
        (tmp_path / f"{base}_s1" / "s1_1").mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_data_sets_are_told_apart_by_what_lies_there(tmp_path):
    pairs(tmp_path / "rice1", (1, 2))
    pairs(tmp_path / "rice2", (1, 2))
    save_png(tmp_path / "rice2" / "mask" / "1.png", np.zeros((48, 48, 3)))
    for part, seeds in (("train", (1, 2)), ("test", (3,))):
        pairs(tmp_path / "tcloud" / part, seeds)
        pairs(tmp_path / "cuhk" / part, seeds)
        pairs(tmp_path / "cuhk" / part / "nir", seeds)
        pairs(tmp_path / "own" / part, seeds, "cloudy", "clear")
    found = {name: inspect_data_set(tmp_path / name) for name in ("rice1", "rice2", "tcloud", "cuhk", "own")}
    assert {name: data.kind for name, data in found.items()} == {
        "rice1": "RICE1",
        "rice2": "RICE2",
        "tcloud": "T-Cloud",
        "cuhk": "CUHK-CR",
        "own": "pairs",
    }
    assert found["cuhk"].bands == (4,)
    assert found["tcloud"].parts == {"train": 2, "test": 1}
    assert found["rice1"].sizes == ((48, 48),)


def test_sen12mscr_is_found_and_its_bands_are_taken(sen12):
    data = inspect_data_set(sen12)
    assert (data.kind, data.parts, data.bands) == ("SEN12MS-CR", {"all": 2}, (13,))
    paths, wrong = find_pairs(DataConfig(folder="."), sen12, 4)
    assert [path.name for path in paths] == ["ROIs1158_spring_1_p30", "ROIs1158_spring_1_p31"]
    assert "s2_cloudy_1_p30" in paths[0].cloudy.name
    assert not wrong


def test_sen12mscr_without_its_cloudy_part_is_refused(sen12):
    for file in sen12.glob("*_s2_cloudy/*/*.tif"):
        file.unlink()
    with pytest.raises(TrainingError, match=r"has no image under ROIs\*_s2_cloudy/s2_cloudy_\*: unpack"):
        inspect_data_set(sen12)


@pytest.fixture
def whus2(tmp_path):
    """Two clips of a part of WHUS2-CR as published, and its bands of 20 m."""
    for number in (7, 12):
        for folder, seed in (("clearDNclips", number), ("cloudDNclips", 90 + number)):
            sentinel2(tmp_path / folder / "10m" / "R075_T50TMK" / f"{number}.tif", seed, count=4)
            sentinel2(tmp_path / folder / "20m" / "R075_T50TMK" / f"{number}.tif", seed, count=6)
    return tmp_path


def test_whus2cr_is_recognised_and_its_bands_of_10_m_are_read(whus2):
    data = inspect_data_set(whus2)
    assert (data.kind, data.parts, data.bands) == ("WHUS2-CR", {"all": 2}, (4,))
    paths, wrong = find_pairs(DataConfig(folder="."), whus2, 4)
    assert [path.name for path in paths] == ["R075_T50TMK_12", "R075_T50TMK_7"]
    assert paths[1].cloudy == whus2 / "cloudDNclips" / "10m" / "R075_T50TMK" / "7.tif"
    assert not wrong


def test_whus2cr_as_its_scripts_cut_it_is_recognised_in_parts(whus2):
    for part in ("train", "test"):
        for name, published in (("clear", "clearDNclips"), ("cloud", "cloudDNclips")):
            shutil.copytree(whus2 / published, whus2 / "clips" / part / name)
    for name in ("clear", "cloud"):
        sentinel2(whus2 / "clips" / "test" / name / "10m" / "R075_T50TMK" / "30.tif", 30, count=4)
    data = inspect_data_set(whus2 / "clips")
    assert (data.kind, data.parts) == ("WHUS2-CR", {"train": 2, "test": 3})
    assert len([twins for twins in data.twins if twins.across()]) == 2


def test_parts_that_whus2cr_lacks_are_all_named(whus2):
    shutil.rmtree(whus2 / "clearDNclips" / "10m")
    shutil.rmtree(whus2 / "cloudDNclips" / "10m" / "R075_T50TMK")
    (whus2 / "cloudDNclips" / "10m" / "7.png").touch()
    with pytest.raises(TrainingError) as caught:
        inspect_data_set(whus2)
    for fault in ("clearDNclips/10m is missing beside 20m", "cloudDNclips/10m has 7.png, no scene with .tif"):
        assert fault in str(caught.value)
    shutil.rmtree(whus2 / "clearDNclips")
    with pytest.raises(TrainingError, match="there is no folder clearDNclips; cloudDNclips/10m has"):
        find_pairs(DataConfig(folder="."), whus2, 4)


def test_clips_of_whus2cr_without_a_twin_are_all_named(whus2):
    (whus2 / "clearDNclips" / "10m" / "R075_T50TMK" / "7.tif").unlink()
    (whus2 / "cloudDNclips" / "10m" / "R075_T50TMK" / "12.tif").unlink()
    with pytest.raises(TrainingError, match=r"12 has no cloudy twin.*7 has no clear twin"):
        inspect_data_set(whus2)


def test_images_in_two_parts_are_told(tmp_path):
    pairs(tmp_path / "train", (1, 2))
    pairs(tmp_path / "test", (2, 3))
    nearly = smooth_ground(np.random.default_rng(3), 8, 48, (40, 160)) * 0.9 + 5
    save_png(tmp_path / "train" / "label" / "9.png", nearly)
    save_png(tmp_path / "train" / "cloud" / "9.png", nearly)
    twins = inspect_data_set(tmp_path).twins
    assert {(t.one, t.other, t.same) for t in twins} == {
        ("train/2", "test/2", True),
        ("train/9", "test/3", False),
    }
    result = CliRunner().invoke(main, ["inspect", "--pairs", str(tmp_path)])
    assert "images twice: 2, across parts 2: figures of such a test part are too good" in result.stdout
    shown = CliRunner().invoke(main, ["inspect", "--pairs", "--json", str(tmp_path)])
    assert json.loads(shown.stdout)["kind"] == "T-Cloud"


def test_a_part_that_is_all_in_the_training_is_refused(tmp_path):
    for part, seeds in (("train", (1, 2, 3)), ("val", (1, 4)), ("test", (3, 1))):
        pairs(tmp_path / part, seeds)
    with pytest.raises(TrainingError, match="1 thing is wrong: test has no clear image that is not in t"):
        inspect_data_set(tmp_path)


def test_the_official_list_is_held_against_the_parts(tmp_path):
    pairs(tmp_path / "train", (1, 2))
    pairs(tmp_path / "test", (3,))
    (tmp_path / "official_test_names.txt").write_text("2.png\n3.png\n77.png\n")
    assert inspect_data_set(tmp_path).official == {"test": (2, 1)}


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    pairs(tmp_path / "train", (1, 2, 3))
    (tmp_path / "train" / "cloud" / "1.png").unlink()
    (tmp_path / "train" / "label" / "2.png").write_bytes(b"no image")
    save_png(tmp_path / "train" / "cloud" / "3.png", np.zeros((20, 20, 3)))
    (tmp_path / "test").mkdir()
    result = CliRunner().invoke(main, ["inspect", "--pairs", str(tmp_path)])
    assert result.exit_code == 1
    assert "4 things are wrong" in result.stderr
    for told in ("1 has no twin", "train/2:", "cloudy is (3, 20, 20), clear is (3, 48, 48)", "no folders"):
        assert told in " ".join(result.stderr.split())
    nowhere = CliRunner().invoke(main, ["inspect", "--pairs", str(tmp_path / "nowhere")])
    assert "no such folder" in nowhere.stderr


def test_two_files_of_one_name_are_told(tmp_path):
    pairs(tmp_path, (1, 2))
    shutil.copy(tmp_path / "cloud" / "1.png", tmp_path / "cloud" / "1.jpg")
    with pytest.raises(TrainingError, match=r"1 thing is wrong: all: 1\.jpg and 1\.png are both in .*cloud"):
        inspect_data_set(tmp_path)


def test_half_of_the_near_infrared_is_not_passed_over(tmp_path):
    pairs(tmp_path, (1, 2))
    shutil.copytree(tmp_path / "cloud", tmp_path / "nir" / "cloud")
    with pytest.raises(TrainingError, match=r"nir/label: no such folder"):
        inspect_data_set(tmp_path)


def test_both_halves_that_are_missing_or_empty_are_named(tmp_path):
    for folder in ("cloud", "label"):
        (tmp_path / folder).mkdir()
    with pytest.raises(TrainingError, match=r"1 thing is wrong: .*label: no images; .*cloud: no images: exp"):
        inspect_data_set(tmp_path)
    with pytest.raises(TrainingError, match=r"a: no such folder; .*b: no such folder: expected images"):
        find_pairs(DataConfig(clear="a", cloudy="b"), tmp_path, 3)
