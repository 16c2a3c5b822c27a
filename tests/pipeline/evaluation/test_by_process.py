"""Pairs that whole runs restore: the figures are those of the rasters that `process` writes."""

import numpy as np
import pytest
import rasterio
from evaluation_cases import first_table, invoke
from model_cases import tiny_model
from pair_cases import save_png, smooth_ground

from decr_scene.models.data import loading
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation import pairs
from decr_scene.pipeline.evaluation.answers import Settings
from decr_scene.pipeline.evaluation.compare import ablation, compare, compare_alone
from decr_scene.pipeline.raster.images import read_image
from decr_scene.pipeline.run import process_scene

BANDS = ("red", "green", "blue", "nir")


def psnr(one, other):
    return -10 * np.log10(np.square(one - other).mean() / 4)


@pytest.fixture
def scenes(tmp_path):
    """A pair of four bands of 16 bits, at 10 m, 70 x 100 px: no multiple of anything, in another order."""
    ground = smooth_ground(np.random.default_rng(3), 16, 128, (30, 90)).astype(np.uint16)[:70, :100]
    clear = np.stack([*ground.transpose(2, 0, 1), ground[..., 1] * 2]) * 20
    cloudy = clear.copy()
    cloudy[:, 20:45, 30:70] = 9000
    for name, image in (("cloudy", cloudy), ("clear", clear)):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        profile = {"width": 100, "height": 70, "count": 4, "dtype": "uint16", "crs": "EPSG:32631"}
        transform = rasterio.transform.from_origin(500000, 5000000, 10, 10)
        with rasterio.open(
            tmp_path / "pairs" / name / "a.tif", "w", driver="GTiff", transform=transform, **profile
        ) as target:
            target.write(image[[3, 2, 1, 0]])
            target.descriptions = BANDS[::-1]
    return tmp_path / "pairs"


def test_the_figures_are_those_of_what_process_writes(scenes, tmp_path):
    model = str(tiny_model(tmp_path / "tiny.safetensors", bands=BANDS))
    cloudy, out = scenes / "cloudy" / "a.tif", tmp_path / "out.tif"
    process_scene(cloudy, out, model=model, steps=2)
    truth, restored, as_it_is = (
        read_image(path, cloudy)[:, :64, :96] for path in (scenes / "clear" / "a.tif", out, cloudy)
    )
    systems = compare_alone([model], Settings(steps=2))
    rows = compare(systems, scenes, mask="auto", by_process=True).rows
    assert rows["cloudy"]["psnr"] == pytest.approx(psnr(as_it_is, truth), abs=1e-3)
    assert rows["tiny"]["psnr"] == pytest.approx(psnr(restored, truth), abs=5e-3)
    assert rows["tiny"]["psnr"] != pytest.approx(rows["cloudy"]["psnr"], abs=1e-2)


def test_coarse_scenes_are_on_the_curve_that_process_gives_them(scenes):
    systems = compare_alone(["default"], Settings())
    by_networks = compare(systems, scenes, mask="auto").rows["default"]["psnr"]
    by_runs = compare(systems, scenes, mask="auto", by_process=True, with_baselines=True).rows
    assert list(by_runs) == ["cloudy", "fill", "default"]
    assert by_runs["default"]["psnr"] != pytest.approx(by_networks, abs=0.05)


def test_pictures_are_restored_by_runs_of_their_own(folder, model):
    result = invoke("--model", model, "--by-process", "--data", folder)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in first_table(result).splitlines()[1:]] == ["cloudy", "tiny"]


def test_bands_that_no_file_names_and_an_alpha_channel_are_taken_as_the_networks_take_them(tmp_path):
    """Unnamed bands are the model's, in its order; alpha is none of 16 bits that are scaled by themselves."""
    model = str(tiny_model(tmp_path / "tiny.safetensors", bands=("blue", "green", "red")))
    rng = np.random.default_rng(5)
    for name in ("cloudy", "clear"):
        image = rng.integers(900, 9000, (3, 64, 64)).astype(np.uint16)
        for kind in ("plain", "alpha", "unnamed"):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True)
            layers = [*image, np.full((64, 64), 65535, np.uint16)] if kind == "alpha" else [*image]
            ending, driver = ("tif", "GTiff") if kind == "unnamed" else ("png", "PNG")
            profile = {"width": 64, "height": 64, "count": len(layers), "dtype": "uint16", "driver": driver}
            with rasterio.open(folder / f"a.{ending}", "w", **profile) as target:
                target.write(np.stack(layers))
    systems = compare_alone([model], Settings(steps=1))
    names = {"plain": "red,green,blue", "alpha": "red,green,blue", "unnamed": None}
    found = {
        kind: compare(systems, tmp_path / kind, bands=bands, mask="none", by_process=True).rows["tiny"][
            "psnr"
        ]
        for kind, bands in names.items()
    }
    assert found["alpha"] == pytest.approx(found["plain"], abs=1e-3)
    by_networks = compare(systems, tmp_path / "unnamed", mask="none").rows["tiny"]["psnr"]
    assert found["unnamed"] == pytest.approx(by_networks, abs=0.1)


@pytest.mark.parametrize("cloudy", ["tif", "png"])
@pytest.mark.parametrize("clear", ["tif", "png"])
@pytest.mark.parametrize("held", [10, 10**9])
def test_what_was_made_of_an_image_is_loaded_as_the_pair_is(cloudy, clear, held, tmp_path, monkeypatch):
    """Large rasters are read by window, and of a pair in which one is so, the middle alone."""
    monkeypatch.setattr(loading, "HELD_VALUES", held)
    monkeypatch.setattr(pairs, "HELD_VALUES", held)
    monkeypatch.setattr(pairs, "MOST_SIDE", 64)
    image = np.random.default_rng(7).integers(0, 255, (3, 110, 135)).astype(np.uint8)
    for name, ending in (("cloudy", cloudy), ("clear", clear)):
        (tmp_path / name).mkdir()
        driver = "GTiff" if ending == "tif" else "PNG"
        profile = {"width": 135, "height": 110, "count": 3, "dtype": "uint8", "driver": driver}
        with rasterio.open(tmp_path / name / f"a.{ending}", "w", **profile) as target:
            target.write(image if name == "cloudy" else 255 - image)
    (pair,) = pairs.load_pairs(("blue", "green", "red"), tmp_path, bands="red,green,blue")
    assert pair.cloudy.shape[1:] == ((96, 128) if held > 10 or cloudy == clear == "png" else (64, 64))
    path = tmp_path / "cloudy" / f"a.{cloudy}"
    np.testing.assert_array_equal(
        pairs.load_restored(path, path, (2, 1, 0), pair.cloudy.shape[1:]), pair.cloudy
    )


def test_what_runs_warn_of_is_told_once_with_the_images(scenes):
    result = invoke("--model", "default", "--by-process", "--data", scenes)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: a.tif: the scene's pixels are 10 m") == 1


def test_fill_looks_at_false_colours_as_what_it_is_compared_with(folder):
    systems = compare_alone(["rice2"], Settings())
    by_runs, by_networks = (
        compare(systems, folder, mask="auto", with_baselines=True, by_process=runs).rows["fill"]["psnr"]
        for runs in (True, False)
    )
    assert by_runs == by_networks


def test_the_image_of_which_a_run_goes_wrong_is_named(folder, model):
    result = invoke("--model", model, "--by-process", "--data", folder, "--detector", "ukis")
    assert result.exit_code == 1
    assert "0.png: " in result.output


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--reduce", 2], "drop --reduce"),
        (["--protocol", "paper"], "drop --reduce and --protocol"),
        (["--ablation"], "drop --by-process"),
        (["--samples", 2], "--samples is of one model"),
    ],
)
def test_what_no_run_does_is_refused(folder, model, args, told):
    result = invoke("--model", model, "--by-process", "--data", folder, *args)
    assert result.exit_code == 2
    assert told in result.output


def test_complexity_is_of_no_run():
    result = invoke("--complexity", "--by-process")
    assert result.exit_code == 2
    assert "drop --by-process" in result.output


def test_an_ablation_and_bands_in_other_files_are_refused(folder, model, scenes, tmp_path):
    with pytest.raises(OptionError, match="no whole run"):
        compare(ablation(str(model), Settings()), folder, by_process=True)
    ground = smooth_ground(np.random.default_rng(1), 16, 64, (60, 140))
    for part in ("cloud", "label", "nir/cloud", "nir/label"):
        save_png(tmp_path / "cuhk" / part / "1.png", ground if "nir" not in part else ground[..., 0])
    four = str(tiny_model(tmp_path / "four.safetensors", bands=BANDS))
    with pytest.raises(OptionError, match="stack them"):
        compare(compare_alone([four], Settings()), tmp_path / "cuhk", by_process=True)
