"""One model measured on folders of pairs: `evaluate` and what it takes."""

import csv
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from evaluation_cases import invoke
from PIL import Image
from rasterio.transform import Affine

from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    SamplingConfig,
    build_modules,
    read_model_file,
    save_model_file,
)
from decr_scene.models.data.resize import resize
from decr_scene.models.model import Model, load_model
from decr_scene.models.networks.grown import GrownConfig
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Answerer, Settings
from decr_scene.pipeline.evaluation.compare import compare, sweep
from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs
from decr_scene.pipeline.evaluation.pairs import load_pairs
from decr_scene.pipeline.measures.metrics import paper_psnr, paper_ssim


def test_a_weight_of_one_is_the_reference_and_a_floor_of_one_too(folder, model):
    loaded = load_model(model)
    cloudy = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    guess = loaded.reference(torch.from_numpy(cloudy[None]))[0].numpy()
    np.testing.assert_array_equal(Settings(weight=1.0).sample(loaded, cloudy, guess), guess)
    np.testing.assert_allclose(Settings(weight_floor=1.0).sample(loaded, cloudy, guess), guess, atol=1e-5)


def test_a_fixed_weight_stands_in_for_the_weight_network(model):
    loaded = load_model(model)
    cloudy = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    guess = np.full_like(cloudy, 0.5)
    seen = []

    def on_step(*, t, x0, weight):
        seen.append((t, float(weight.min()), float(weight.max())))

    Settings(start=1000, weight=0.0).sample(loaded, cloudy, guess, on_step)
    Settings(weight=0.5).sample(loaded, cloudy, guess, on_step)
    assert seen == [(500, 0, 0), (0, 0, 0), (200, 0.5, 0.5), (100, 0.5, 0.5)]
    other = [
        Settings(start=1000, weight=0.0).sample(loaded, cloudy, guess + shift).tobytes() for shift in (0, 0.1)
    ]
    assert other[0] == other[1], "without a prior nothing depends on the first guess"


def test_without_a_prior_a_guided_network_does_not_see_the_first_guess():
    shape = ReferenceConfig(bands=3, width=8, multipliers=(1, 2), blocks=1, middle_blocks=1)
    network = NetworkConfig(
        bands=3, prediction="residual", guided=True, grown=GrownConfig(shape, 8, 1), covered=(0.1, 0.2)
    )
    config = ModelConfig("guided", ("red", "green", "blue"), network, shape, sampling=SamplingConfig(2, 200))
    torch.manual_seed(0)
    modules = build_modules(config)
    for parameter in modules.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    loaded = Model(config, modules.state_dict(), "cpu")
    cloudy = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    guesses = [np.full_like(cloudy, value) for value in (0.5, -0.5)]
    alone, with_prior = (
        [settings.sample(loaded, cloudy, guess).tobytes() for guess in guesses]
        for settings in (Settings(start=1000, weight=0.0), Settings(weight=0.0))
    )
    assert alone[0] == alone[1]
    assert with_prior[0] != with_prior[1]


def test_the_protocol_of_the_paper_resizes_and_truncates(folder, model, measured):
    row = evaluate_pairs(str(model), folder, protocol="paper").rows[0]
    dn = [np.asarray(Image.open(folder / kind / "0.png"), np.float32) for kind in ("cloud", "label")]
    images = [(resize(image.transpose(2, 0, 1), 4) / np.float32(127.5) - 1) for image in dn]
    assert row["cloudy/psnr"] == paper_psnr(*images)
    assert row["cloudy/ssim"] == paper_ssim(*images)
    assert row["cloudy/psnr"] != measured.rows[0]["cloudy/psnr"]


def test_the_mask_keeps_what_the_model_hardly_changes(folder, model, monkeypatch):
    faint = np.float32(3 / 127.5)
    monkeypatch.setattr(Settings, "sample", lambda self, model, cloudy, guess, on_step=None: cloudy + faint)
    without, masked = (evaluate_pairs(str(model), folder, mask=mask).mean() for mask in ("none", "auto"))
    assert without["DE/clear_shift_dn"] == pytest.approx(3, abs=0.01)
    assert masked["DE/clear_shift_dn"] == 0


def test_bands_are_taken_in_the_order_of_the_model(folder, model, measured, tmp_path):
    turned = tmp_path / "turned"
    for kind in ("cloud", "label"):
        (turned / kind).mkdir(parents=True)
        for path in (folder / kind).iterdir():
            Image.fromarray(np.asarray(Image.open(path))[..., ::-1].copy()).save(turned / kind / path.name)
    assert evaluate_pairs(str(model), turned, bands="blue,green,red").rows == measured.rows
    with pytest.raises(OptionError, match="lacks red: the model takes red,green,blue"):
        evaluate_pairs(str(model), turned, bands="blue,green,nir")


def test_bands_are_taken_as_the_files_describe_them(folder, model, measured, tmp_path):
    def save(kind, path, names):
        order = [("red", "green", "blue").index(name) for name in names]
        image = np.asarray(Image.open(path)).transpose(2, 0, 1)[order]
        (tmp_path / kind).mkdir(exist_ok=True)
        described(tmp_path / kind / f"{path.stem}.tif", names, image)

    for kind in ("cloud", "label"):
        for path in (folder / kind).iterdir():
            save(kind, path, ("blue", "red", "green"))
    (tmp_path / "label" / "1.tif.aux.xml").write_text("<PAMDataset/>")  # as QGIS leaves it
    assert evaluate_pairs(str(model), tmp_path).rows == measured.rows
    save("label", folder / "label" / "1.png", ("red", "green", "blue"))
    with pytest.raises(OptionError, match="blue,red,green and red,green,blue, expected one order"):
        evaluate_pairs(str(model), tmp_path)
    assert evaluate_pairs(str(model), tmp_path, bands="b,r,g").rows != measured.rows


def test_pictures_are_red_green_and_blue_to_a_model_of_another_order(folder):
    bands = {"red": 0, "green": 1, "blue": 2}
    expected = load_pairs(tuple(bands), folder)
    for order in (("blue", "green", "red"), ("green", "blue", "red")):
        for pair, other in zip(load_pairs(order, folder), expected, strict=True):
            assert np.array_equal(pair.cloudy, other.cloudy[[bands[name] for name in order]])
            assert np.array_equal(pair.clear, other.clear[[bands[name] for name in order]])


def test_near_infrared_beside_pictures_has_its_name(folder, tmp_path):
    for kind in ("cloud", "label"):
        shutil.copytree(folder / kind, tmp_path / kind)
        shutil.copytree(folder / kind, tmp_path / "nir" / kind)
    seen = load_pairs(("blue", "green", "red", "nir"), tmp_path)
    plain = load_pairs(("red", "green", "blue"), folder)
    for pair, other in zip(seen, plain, strict=True):
        assert np.array_equal(pair.cloudy[:3], other.cloudy[::-1])
        assert np.array_equal(pair.cloudy[3], other.cloudy[0])


def described(path, names, image):
    """A GeoTIFF that says what its bands are."""
    profile = {"count": len(image), "dtype": "uint8", "height": image.shape[1], "width": image.shape[2]}
    with rasterio.open(
        path, "w", "GTiff", crs="EPSG:32633", transform=Affine(2, 0, 0, 0, -2, 0), **profile
    ) as target:
        target.write(image)
        target.descriptions = names


def test_a_sheet_and_a_trace_are_written(folder, model, tmp_path):
    sheet, trace, table = (tmp_path / name for name in ("sheet.png", "trace.csv", "table.csv"))
    result = invoke(
        "--model", model, "--data", folder, "--sheet", sheet, "--trace", trace, "--csv", table, "--steps", 4
    )
    assert result.exit_code == 0, result.output
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 64 + 3 * 4, 3 * (64 + 16) + 2 * 4)
    rows = list(csv.DictReader(trace.read_text().splitlines()))
    assert [float(row["t"]) for row in rows] == [200, 150, 100, 50]
    assert all(0.3 <= float(row["weight"]) <= 1 for row in rows)
    assert result.stdout.count("mean W") == 4
    assert [row["name"] for row in csv.DictReader(table.read_text().splitlines())] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ablation", "--sweep", "steps=5"), "take one"),
        (("--sweep", "colour=5"), "a sweep is such as"),
        (("--sweep", "steps=2.5"), "whole numbers"),
        (("--sweep", "steps=many"), "is no sweep"),
        (("--ablation", "--sheet", "x.png"), "--sheet is of one model"),
        (("--compare", "rice2", "--ablation"), "are comparisons: take one"),
        (("--compare", "rice2", "--trace", "x.csv"), "--trace is of one model"),
        (("--ablation", "--samples", "2"), "drop it, or the comparison"),
        (("--compare", "fill", "--complexity"), "measures no pairs: drop --data"),
        (("--plots", "no/such/folder"), "name a folder where there is one already"),
        (("--steps", "300"), "steps from start 200"),
        (("--weight-floor", "2"), "weight_floor must be in"),
        (("--protocol", "paper", "--reduce", "2"), "drop --reduce"),
    ],
)
def test_a_wrong_call_is_one_line(folder, model, options, told):
    result = invoke("--model", model, "--data", folder, *options)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_lpips_says_what_is_missing(folder, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    result = invoke("--model", model, "--data", folder, "--lpips")
    assert result.exit_code == 2
    assert "LPIPS needs torchmetrics and torchvision: pip install 'decr-scene[lpips]'" in result.stderr
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", lpips_module(OSError("no route to host")))
    result = invoke("--model", model, "--data", folder, "--lpips")
    assert result.exit_code == 2
    assert "AlexNet's weights, which torchvision could not fetch (no route to host)" in result.stderr


@pytest.mark.parametrize(("protocol", "low", "high"), [("plain", -1, 1), ("paper", 0, 255)])
def test_lpips_is_given_what_the_protocol_says(folder, model, monkeypatch, protocol, low, high):
    seen = []
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", lpips_module(seen=seen))
    mean = evaluate_pairs(str(model), folder, protocol=protocol, lpips=True).mean()
    assert mean["DE/lpips"] == 0.25
    assert {image.shape[:2] for image in seen} == {(1, 3)}
    assert low <= min(float(i.min()) for i in seen)
    assert high / 2 < max(float(i.max()) for i in seen) <= high


def lpips_module(error=None, seen=None):
    """torchmetrics' module as far as it is used, with a network of no weights."""

    class Metric:
        def __init__(self, net_type):
            assert net_type == "alex"
            if error is not None:
                raise error

        def net(self, image, truth):
            seen.extend([image, truth])
            return torch.full((1, 1, 1, 1), 0.25)

    module = ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = Metric
    return module


@pytest.mark.parametrize("option", ["--csv", "--trace"])
def test_a_folder_to_write_to_is_missed_before_anything_is_measured(option, folder, model, tmp_path):
    result = invoke("--model", model, "--data", folder, option, tmp_path / "no" / "file")
    assert result.exit_code == 1
    assert "no such folder" in result.stderr
    assert result.stdout == ""


def test_bands_may_be_written_as_everywhere(folder, model, measured):
    assert evaluate_pairs(str(model), folder, bands="R, g, b").rows == measured.rows


def test_the_spread_of_samples_is_held_against_their_error(folder, model, tmp_path, monkeypatch):
    drawn = []
    sample = Settings.sample

    def kept(self, *given):
        drawn.append(sample(self, *given))
        return drawn[-1]

    monkeypatch.setattr(Settings, "sample", kept)
    table, plots = tmp_path / "table.csv", tmp_path / "plots"
    options = ("--samples", 3, "--start", 1000, "--steps", 1, "--csv", table, "--plots", plots)
    result = invoke("--model", model, "--data", folder, *options)
    assert result.exit_code == 0, result.output
    assert len({answer.tobytes() for answer in drawn}) == 9, "three pairs, three samples"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert all(-1 <= float(row["DE/uncertainty_rank"]) <= 1 for row in rows)
    _, ranks, deciles = result.stdout.split("\n\n")
    mean = np.mean([float(row["DE/uncertainty_rank"]) for row in rows])
    (shown,) = (float(line.split()[1]) for line in ranks.splitlines() if line.startswith("rank  "))
    assert shown == pytest.approx(mean, abs=2e-4)
    assert [line.split()[0] for line in deciles.splitlines()[1:]] == [str(n) for n in range(1, 11)]
    points = list(csv.DictReader((plots / "uncertainty.csv").read_text().splitlines()))
    assert [point["series"] for point in points[:10]] == ["deciles"] * 10


def test_fill_draws_no_samples(folder):
    result = invoke("--model", "fill", "--data", folder, "--bands", "red,green,blue", "--samples", 2)
    assert result.exit_code == 2
    assert "fill draws no samples: drop --samples" in result.stderr


def test_fill_names_what_is_wrong_with_a_folder_before_it_asks_for_bands(tmp_path):
    (tmp_path / "input").mkdir()
    result = invoke("--model", "fill", "--data", tmp_path)
    assert result.exit_code == 1
    assert "found input, expected cloudy or cloud, and clear or label" in " ".join(result.stderr.split())


def test_a_system_of_one_answer_draws_no_samples(folder, tmp_path):
    gan = one_answer(tmp_path / "gan.safetensors")
    with pytest.raises(OptionError, match=r"gan\.safetensors draws no samples: drop --samples"):
        evaluate_pairs(str(gan), folder, samples=2)


def test_what_looks_is_given_the_answers_of_every_pair(folder, model, monkeypatch):
    given = []

    class Looking:
        def __init__(self, bands):
            assert bands == ("red", "green", "blue")

        def compare(self, cloudy, truth, classes, answers):
            given.append(tuple(answers))
            return {f"{who}/ukis_distance": 0.5 for who in answers}

        def frechet_distances(self):
            return {who: {"ukis_frechet": 2.0} for who in given[0]}

    monkeypatch.setattr("decr_scene.pipeline.evaluation.evaluate.Perception", Looking)
    found = evaluate_pairs(str(model), folder, perceptual=True)
    assert given == [("cloudy", "reference", "DE")] * 3
    assert found.mean()["DE/ukis_distance"] == 0.5
    assert "ukis_frechet" in found.to_text()


def test_a_sweep_and_the_weight_are_plotted(folder, model, tmp_path):
    compare(sweep(str(model), Settings(), "weight-floor", (0.3, 1)), folder, plots=tmp_path / "sweep")
    rows = list(csv.DictReader((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()))
    assert [(row["series"], row["weight-floor"]) for row in rows[:2]] == [("psnr", "0.3"), ("psnr", "1")]
    evaluate_pairs(str(model), folder, Settings(steps=4), plots=tmp_path / "one")
    maps = list(csv.DictReader((tmp_path / "one" / "weight_maps.csv").read_text().splitlines()))
    assert [int(row["t"]) for row in maps] == [200, 150, 100, 50]
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        f"{name}{end}" for name in ("weight_maps", "weight_by_step") for end in (".png", ".csv")
    }


def test_a_weight_that_no_network_gives_is_told_so(folder, model, tmp_path):
    with_network = evaluate_pairs(str(model), folder, trace=tmp_path / "own.csv")
    assert "mean W" in with_network.to_text()
    assert "is no network's" not in with_network.to_text()
    config, tensors = read_model_file(model)
    config = replace(config, network=replace(config.network, covered=(0.1, 0.4)))
    kept = {name: t for name, t in tensors.items() if not name.startswith("network.weight_net.")}
    save_model_file(tmp_path / "covered.safetensors", config, kept)
    found = evaluate_pairs(str(tmp_path / "covered.safetensors"), folder, trace=tmp_path / "w.csv")
    assert found.to_text().splitlines()[-1].startswith("W of tiny is no network's and the same at every step")
    assert len({(row["weight"], row["weight_cloud"], row["weight_clear"]) for row in found.trace}) == 1


def one_answer(path):
    """A model without noise."""
    config = ModelConfig("gan", ("red", "green", "blue"), None, ReferenceConfig("spagan", 3, 4))
    save_model_file(path, config, build_modules(config).state_dict())
    return path


def test_the_answer_of_a_reference_alone_is_the_reference(folder, tmp_path, monkeypatch):
    """A first guess may leave the scale, an answer does not."""
    gan, own = one_answer(tmp_path / "gan.safetensors"), Answerer.guess
    monkeypatch.setattr(Answerer, "guess", lambda *given: 3 * own(*given) + 0.5)
    for row in evaluate_pairs(str(gan), folder).rows:
        names = {key.partition("/")[2] for key in row if key.startswith("DE/")}
        assert "texture" in names
        for name in names:
            np.testing.assert_equal(row[f"DE/{name}"], row[f"reference/{name}"])


@pytest.mark.parametrize("option", ["--trace", "--plots"])
def test_a_system_without_steps_has_no_weight_to_tell_of(option, folder, tmp_path):
    one_answer(tmp_path / "gan.safetensors")
    result = invoke("--model", tmp_path / "gan.safetensors", "--data", folder, option, tmp_path / "out")
    assert result.exit_code != 0
    assert "takes no steps, so it has no weight to trace" in result.stderr
    assert not (tmp_path / "out").exists()
    plain = invoke("--model", tmp_path / "gan.safetensors", "--data", folder)
    assert plain.exit_code == 0, plain.output
